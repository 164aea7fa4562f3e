"""book/lesson_pages.py on a small book: figures are numbered and referred to, and each lesson says how to run it."""

import re
import shutil
import subprocess
import sys

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from cvlab import run, show

pytestmark = pytest.mark.house

ROOT = run.book_root()
SETUP = next(cell for cell in run.read_notebook(run.chapters()[0]).cells if cell.cell_type == "code").source
PYTHON = {"language_info": {"name": "python"}}
ONE = """# One

[Figure](#fig-late) comes after [Figure](#fig-early) and [Figure](#fig-drawn); see [Table](#table-sizes),
[Figure](two.ipynb#fig-other) and [Figure](#fig-other).

```{figure} picture.svg
:name: fig-drawn
:alt: a line

Drawn by hand.
```
"""
TWO = "# Two\n\n[Figure](one.ipynb#fig-early) is of lesson 1, [Figure](#fig-early) its own."


def html(*figures):
    outputs = [new_output("display_data", {"text/html": figure.html, "text/plain": "x"}) for figure in figures]
    return new_code_cell("draw()", outputs=outputs)


def figure(name):
    return show.Figure("<b>picture</b>", f"Caption of {name}.", "a picture", name)


def write_book(root, one=ONE, remote=None):
    """Write a book of two lessons, with the real book's configuration and extension, into a clone."""
    for name in ("lesson_pages", "pictures", "look", "thumbnails", "folding", "cells", "image_files"):
        (root / "book").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "book" / f"{name}.py", root / "book")
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    elsewhere = "offline_pages|formulas|sharing|styles|api_page|results_page|playground_page|favicon|logo"
    config = re.sub(rf".*({elsewhere}).*\n|bibtex_bibfiles.*\n|html:\n", "", config)
    config = config.replace("      - sphinxcontrib.bibtex\n", "").replace(
        "    bibtex_reference_style: author_year\n", ""
    )
    (root / "_config.yml").write_text(config, encoding="utf-8")
    lessons = root / "chapters" / "week1"
    lessons.mkdir(parents=True)
    (lessons / "picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    (root / "intro.md").write_text("# Intro\n\nA book.\n")
    files = "".join(f"      - file: chapters/week1/{name}\n" for name in ("one", "two"))
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: intro\nparts:\n  - numbered: 1\n    chapters:\n{files}")
    table = show.table([{"a": 1}], caption="Sizes.", name="sizes")
    cells = [new_markdown_cell(one), new_code_cell(SETUP), html(figure("early"), table), html(figure("late"))]
    nbformat.write(new_notebook(cells=cells, metadata=PYTHON), lessons / "one.ipynb")
    cells = [new_markdown_cell(TWO), html(figure("other"), figure("early"))]
    nbformat.write(new_notebook(cells=cells, metadata=PYTHON), lessons / "two.ipynb")
    git = ["git", "-C", root, "-c", "user.name=book", "-c", "user.email=book@localhost"]
    origin = [["remote", "add", "origin", remote]] if remote else []
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "book"], *origin):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def build(root):
    """Render it; give (the pages' folder, the warnings)."""
    code = "import jupyter_book.cli.main as jb; jb.main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "build", root, "--path-output", root / "out", "-q"],
        capture_output=True,
        text=True,
        cwd=root,
    )
    assert done.returncode == 0, done.stderr
    return root / "out" / "_build" / "html", re.sub(r"\x1b\[[\d;]*m", "", done.stderr)


def article(pages, name):
    page = BeautifulSoup((pages / "chapters" / "week1" / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    return page.find("article")


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A book whose origin is GitHub, under an address with a secret in it; gives (pages, warnings, commit)."""
    if not shutil.which("git"):
        pytest.skip("git is needed to stand in for a clone")
    root = tmp_path_factory.mktemp("book")
    commit = write_book(root, remote="https://me:hidden@github.com/owner/the.book.git")
    return *build(root), commit


def test_figures_and_tables_are_numbered_by_chapter_and_order_together_with_those_of_markdown(published):
    pages, warnings, _ = published
    assert warnings == ""
    captions = {
        name: [c.get_text(" ", strip=True) for c in article(pages, name).find_all(["figcaption", "caption"])]
        for name in ("one", "two")
    }
    numbers = [[re.match(r"(?:Figure|Table) [\d.]*\d", caption)[0] for caption in each] for each in captions.values()]
    assert numbers == [["Figure 1.1", "Figure 1.2", "Table 1.1", "Figure 1.3"], ["Figure 2.1", "Figure 2.2"]]
    assert captions["one"][1].endswith("Caption of early.")


def test_a_reference_gets_the_number_and_leads_there_from_other_chapters_too(published):
    pages, _, _ = published
    links = {name: article(pages, name).find("section").p.find_all("a") for name in ("one", "two")}
    found = {name: [(a.get_text().replace("\xa0", " "), a["href"]) for a in links[name]] for name in links}
    assert found["one"] == [
        ("Figure 1.3", "#fig-late"),
        ("Figure 1.2", "#fig-early"),
        ("Figure 1.1", "#fig-drawn"),
        ("Table 1.1", "#table-sizes"),
        ("Figure 2.1", "two.html#fig-other"),
        ("Figure 2.1", "two.html#fig-other"),
    ]
    assert found["two"] == [("Figure 1.2", "one.html#fig-early"), ("Figure 2.2", "#fig-early")]


def test_an_unknown_figure_or_one_named_twice_is_a_warning(tmp_path):
    write_book(tmp_path, ONE + "\n[Figure](#fig-nowhere), [Figure](two.ipynb#fig-nothing)\n")
    path = tmp_path / "chapters" / "week1" / "two.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(html(figure("other")))
    nbformat.write(notebook, path)
    _, warnings = build(tmp_path)
    for told in ("fig-nowhere", "fig-nothing", "two figures or tables have the name 'fig-other'"):
        assert told in warnings


def test_a_chapter_offers_colab_with_the_notebook_that_names_its_commit(published):
    pages, _, commit = published
    box = article(pages, "one").find(class_="cv-run")
    colab, notebook = box.find_all("a")
    beginning = "https://colab.research.google.com/github/owner/the.book/blob/gh-pages/"
    assert colab["href"].startswith(beginning)
    behind = pages / colab["href"].removeprefix(beginning)
    assert behind == (pages / "chapters" / "week1" / notebook["href"]).resolve()
    code = next(cell for cell in nbformat.read(behind, as_version=4).cells if cell.cell_type == "code").source
    assert code == SETUP.replace('BOOK = ""', f'BOOK = "https://github.com/owner/the.book@{commit}"')
    assert "git clone https://github.com/owner/the.book.git" in box.pre.text and "CHAPTER=week1/one" in box.pre.text
    assert not [path for path in pages.rglob("*") if path.is_file() and b"me:hidden" in path.read_bytes()]


@pytest.mark.parametrize("remote", [None, "ssh://git@forge.invalid/owner/book.git", "/srv/book.git"])
def test_without_a_github_origin_there_is_no_colab_and_no_host(tmp_path, remote):
    write_book(tmp_path, remote=remote)
    pages, _ = build(tmp_path)
    box = article(pages, "one").find(class_="cv-run")
    assert [a.text for a in box.find_all("a")] == ["Download the notebook"]
    assert "clone of the book" in box.pre.text and "make run CHAPTER=week1/one" in box.pre.text
    notebook = nbformat.read(pages / "_sources" / "chapters" / "week1" / "one.ipynb", as_version=4)
    assert notebook.cells[1].source == SETUP
    assert "forge.invalid" not in str(box)


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("https://github.com/o/r", ("o", "r")),
        ("https://github.com/o/r.git", ("o", "r")),
        ("git@github.com:o/r.git", ("o", "r")),
        ("ssh://git@github.com/o/r.git", ("o", "r")),
        ("https://github.com.elsewhere.invalid/o/r", None),
        ("https://elsewhere.invalid/github.com/o/r", None),
        ("http://127.0.0.1:3000/o/r.git", None),
    ],
)
def test_only_github_is_taken_for_github(address, found):
    pattern = re.search(r"^GITHUB = re\.compile\(r\"(.*)\"\)$", (ROOT / "book/lesson_pages.py").read_text(), re.M)[1]
    match = re.fullmatch(pattern, address)
    assert (match and match.groups()) == found
