"""The appendix "API": every public module once, nothing private, and docstrings as they are meant."""

import ast
import re
import subprocess
import sys

import pytest

import cvlab
from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import api_page

pytestmark = pytest.mark.house
ROOT = run.book_root()
PAGE = (ROOT / "chapters" / "appendix" / "api.md").read_text(encoding="utf-8")


class Environment:
    def note_dependency(self, path):
        pass


def html_of(module):
    return api_page.section(module, Environment()).children[1].astext()


def listed():
    return [name for line in api_page.NAMED.findall(PAGE) for name in api_page.asked(line.split(), PAGE)]


def test_every_module_of_the_package_is_there_once():
    names = listed()
    assert len(names) == len(set(names))
    assert set(cvlab.__all__) - api_page.INTERNAL <= set(names)


@pytest.mark.parametrize("name", listed())
def test_a_module_shows_its_public_functions_and_no_others(name):
    html, tree = html_of(name), ast.parse(api_page.source_of(name).read_text(encoding="utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    shown = set(re.findall(rf'id="api-{name}-(\w+)"', html))
    assert shown == {function for function in functions if not function.startswith("_")}
    assert "`" not in html and html.count("<details") == html.count("</details>")


def test_arguments_become_a_list_and_the_rest_paragraphs():
    text = """Do it.

    More `code`.

    Args:
        a, b: one (N, 4);
            goes on.
        c: two.

    Returns:
        what <it> gives.

        An example:

            x = 1
              y = 2
    """
    html = api_page.described(text)
    assert "<dt><code>a, b</code></dt><dd>one (N, 4); goes on.</dd><dt><code>c</code></dt><dd>two.</dd>" in html
    assert "<b>Returns:</b> what &lt;it&gt; gives." in html and "<p>More <code>code</code>.</p>" in html


def test_a_signature_has_no_type_hints_and_a_class_shows_how_it_is_made():
    source = "def f(a: int, *, b: str = 'x', **rest: int) -> int: ...\nclass C:\n  x: int\n  _y: int = 0\n"
    source += "class D:\n  def __init__(self, a, b=1): ...\n"
    signatures = [api_page.signature(node) for node in ast.parse(source).body]
    assert signatures == ["f(a, *, b='x', **rest)", "class C(x)", "class D(a, b=1)"]


def test_reading_the_docstrings_imports_no_backend():
    code = (
        "import sys; sys.path.insert(0, 'book'); import api_page; print('keras' in sys.modules, 'cvlab' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
