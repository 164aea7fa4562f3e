"""What `cvlab` and the lessons call is there in the lowest versions that pyproject.toml allows."""

import ast
import re

import ipywidgets
import keras
import pytest
from lowest_api import offered, recorded

from cvlab import run

pytestmark = pytest.mark.house
ROOT = run.book_root()
SEARCHED = ("keras", "ipywidgets")


def sources():
    """List (name, syntax tree) of the package's modules, and of each lesson's code."""
    trees = [
        (path.name, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted((ROOT / "cvlab").rglob("*.py"))
    ]
    for name in run.chapters():
        code = [cell.source for cell in run.read_notebook(name).cells if cell.cell_type == "code"]
        trees.append((name, ast.parse(re.sub(r"^\s*[%!].*$", "", "\n".join(code), flags=re.M))))
    return [pytest.param(tree, id=name) for name, tree in trees]


def imported(tree):
    """Give what the names that a tree imports from Keras and ipywidgets stand for, as {"ops": "keras.ops"}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:  # `import keras.ops` makes the name keras, `import keras.ops as o` the name o
                first = each.name.partition(".")[0]
                names[each.asname or first] = each.name if each.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
    return {name: meant for name, meant in names.items() if meant.split(".")[0] in SEARCHED}


def dotted(node, names):
    """Give the full name of an expression such as `ops.flip`, None where it is none of those searched for."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute) and (above := dotted(node.value, names)):
        return f"{above}.{node.attr}"
    return None


def missing(tree, known):
    """List the names and arguments that a tree uses and that the lowest versions do not have."""
    names, found = imported(tree), []
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    modules = {name.rpartition(".")[0] for name in known}
    for node in ast.walk(tree):
        name = dotted(node, names)
        whole = not isinstance(parents.get(node), ast.Attribute)  # of `keras.ops.flip`, not its beginning `keras.ops`
        if name is None or not whole:
            continue
        while name not in known and name.rpartition(".")[0] in known:  # a method, as of `keras.Model.call`
            name = name.rpartition(".")[0]
        if name in modules or name in SEARCHED:
            continue
        if name not in known:
            found.append(name)
        elif isinstance(call := parents.get(node), ast.Call) and call.func is node and known[name] is not None:
            found += [f"{name}({each.arg}=)" for each in call.keywords if each.arg and each.arg not in known[name]]
    return found


@pytest.mark.parametrize("tree", sources())
def test_all_that_is_called_is_there_in_the_lowest_versions(tree):
    assert missing(tree, recorded()) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import keras\nkeras.ops.flip(x, axis=0)", []),
        ("from keras import ops as o\no.not_there_yet(x)", ["keras.ops.not_there_yet"]),
        ("import keras\nkeras.ops.flip(x, axes=(0, 1))", ["keras.ops.flip(axes=)"]),
        ("import ipywidgets as w\nw.HTML('', tooltips=1)", ["ipywidgets.HTML(tooltips=)"]),
        ("from ipywidgets import TagsInput\nTagsInput()", ["ipywidgets.TagsInput"]),
        ("import keras\nclass A(keras.Model):\n  def f(self): return keras.Model.summary(self)", []),
    ],
)
def test_what_is_missing_is_found(line, found):
    assert missing(ast.parse(line), recorded()) == found


def test_the_list_is_that_of_the_lowest_versions():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lowest = {name: re.search(rf'"{name}>=([\d.]+)', project)[1] for name in SEARCHED}
    if not (keras.__version__.startswith(lowest["keras"]) and ipywidgets.__version__ == lowest["ipywidgets"]):
        pytest.skip("these are not the lowest versions: make lowest has them")
    assert offered() == recorded()
