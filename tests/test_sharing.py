"""book/sharing.py: where the book is published, and what search engines and those who share a link get."""

import sys
import xml.etree.ElementTree as ElementTree
from types import SimpleNamespace

import pytest
from docutils import nodes

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import sharing

pytestmark = pytest.mark.house


def test_the_address_is_the_one_that_is_set_or_that_of_the_origin(monkeypatch):
    monkeypatch.setenv("BOOK_URL", "https://books.example/vision")
    assert sharing.address() == "https://books.example/vision/"
    monkeypatch.delenv("BOOK_URL")
    monkeypatch.setattr(sharing.lesson_pages, "origin", lambda: ("Someone", "book", "abc"))
    assert sharing.address() == "https://someone.github.io/book/"
    monkeypatch.setattr(sharing.lesson_pages, "origin", lambda: None)
    assert sharing.address() == ""


def test_what_is_no_address_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("BOOK_URL", "books.example/vision")
    with pytest.raises(ValueError, match=r"BOOK_URL is 'books.example/vision', expected"):
        sharing.address()


def described(base, page="chapters/week1/one", tags=""):
    config = SimpleNamespace(html_baseurl=base, root_doc="intro", html_title="The book")
    paragraph = nodes.section("", nodes.paragraph(text="What a network " + "looks at " * 40))
    context = {"title": "1. <em>One</em> &amp; two", "metatags": tags}
    document = nodes.container("", paragraph)
    sharing.describe(SimpleNamespace(config=config), page, "page.html", context, document)
    return context


def test_a_page_of_a_published_book_has_its_address_and_a_card():
    context = described("https://books.example/vision/")
    assert context["pageurl"] == "https://books.example/vision/chapters/week1/one.html"
    assert 'property="og:title" content="1. One &amp; two"' in context["metatags"]
    assert 'property="og:image" content="https://books.example/vision/_static/card.png"' in context["metatags"]
    assert described("https://books.example/vision/", "intro")["pageurl"] == "https://books.example/vision/"


def test_a_book_whose_address_is_unknown_names_none():
    context = described("")
    assert "pageurl" not in context
    assert "og:image" not in context["metatags"]
    assert 'property="og:description" content="What a network' in context["metatags"]


def test_a_description_that_a_page_brings_is_kept():
    context = described("", tags='<meta name="description" content="its own" />')
    assert context["metatags"].count('name="description"') == 1


def test_the_site_map_names_each_page_once(tmp_path):
    sharing.write_sitemap(tmp_path, "https://books.example/vision/", ["chapters/one", "references"])
    root = ElementTree.parse(tmp_path / "sitemap.xml").getroot()
    places = [place.text for place in root.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    base = "https://books.example/vision/"
    assert places == [base, f"{base}chapters/one.html", f"{base}references.html"]
    assert f"Sitemap: {base}sitemap.xml" in (tmp_path / "robots.txt").read_text(encoding="utf-8")


@pytest.mark.skipif(not (run.book_root() / "node_modules").is_dir(), reason="no fonts: `make book` fetches them")
def test_the_card_has_the_size_that_its_tags_say_and_a_title():
    card = sharing.draw_card()
    assert card.size == sharing.CARD_SIZE
    title = card.crop((660, 150, 1200, 600)).convert("L")
    assert min(title.tobytes()) < 60 < 240 < max(title.tobytes())
