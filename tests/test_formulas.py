"""book/formulas.py: formulas are set at build time, can be heard, and fit a phone or scroll."""

import sys

import pytest
from bs4 import BeautifulSoup

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import formulas

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(
        not (run.book_root() / "node_modules" / "mathjax").is_dir(), reason="no MathJax: `make book` fetches it"
    ),
]


def page_with(tmp_path, *texts):
    inline = "".join(f'<p><span class="math notranslate nohighlight">\\({text}\\)</span></p>' for text in texts)
    display = (
        '<div class="math notranslate nohighlight" id="equation-one">\n'
        '<span class="eqno">(1.1)<a class="headerlink" href="#equation-one">#</a></span>\\[\n'
        "\\operatorname{IoU} = \\frac{|A \\cap B|}{|A \\cup B|} &lt; 1\\]</div>"
    )
    page = tmp_path / "page.html"
    page.write_text(f"<html><body><article>{inline}{display}</article></body></html>", encoding="utf-8")
    return page


def test_each_formula_becomes_a_drawing_with_spoken_text(tmp_path):
    page = page_with(tmp_path, "x^2", "\\sigma")
    formulas.set_formulas([page])
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    spoken = [svg["aria-label"] for svg in soup.select(".math svg")]
    assert spoken[:2] == ["x squared", "sigma"]
    assert "A intersection B" in spoken[2]
    assert spoken[2].endswith("less than 1")
    assert soup.select_one("#equation-one .eqno").get_text() == "(1.1)#"
    assert "\\" not in soup.get_text()


def test_every_glyph_that_a_formula_names_is_in_the_page_once(tmp_path):
    page = page_with(tmp_path, "x", "x + x", "\\frac{x}{y}")
    formulas.set_formulas([page])
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    named = {use["xlink:href"].removeprefix("#") for use in soup.find_all("use")}
    drawn = [path["id"] for path in soup.select("defs path")]
    assert named <= set(drawn)
    assert len(drawn) == len(set(drawn))


def test_a_page_carries_the_glyphs_of_its_own_formulas_alone(tmp_path):
    (tmp_path / "other").mkdir()
    pages = [page_with(tmp_path, "\\sum"), page_with(tmp_path / "other")]
    formulas.set_formulas(pages)
    first, second = (
        {path["id"] for path in BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").select("defs path")}
        for page in pages
    )
    assert second < first


def test_a_very_wide_formula_can_be_scrolled_by_keyboard_and_a_short_one_need_not(tmp_path):
    page = page_with(tmp_path)
    wide = page.read_text(encoding="utf-8").replace("&lt; 1", "+ ".join(["\\frac{a + b + c}{d}"] * 14))
    other = tmp_path / "wide.html"
    other.write_text(wide, encoding="utf-8")
    formulas.set_formulas([page, other])
    assert "tabindex" not in page.read_text(encoding="utf-8")
    assert 'tabindex="0"' in other.read_text(encoding="utf-8")


def test_a_page_without_formulas_stays_as_it_is(tmp_path):
    page = tmp_path / "page.html"
    page.write_text("<article>no formula</article>", encoding="utf-8")
    formulas.set_formulas([page])
    assert page.read_text(encoding="utf-8") == "<article>no formula</article>"


def test_tex_that_cannot_be_set_is_named(tmp_path):
    with pytest.raises(RuntimeError, match=r"formulas: .*\\nonsense"):
        formulas.set_formulas([page_with(tmp_path, "\\nonsense{x}")])
