"""book/downloads.py: links within the one page of the PDF, the links in the footers, and the zip archive."""

import sys
import zipfile

import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import downloads

pytestmark = pytest.mark.house
NAMES = {"intro", "chapters/week1/one", "chapters/week1/two"}


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("#fig-a", "#chapters-week1-one--fig-a"),
        ("two.html#fig-b", "#chapters-week1-two--fig-b"),
        ("two.html", "#chapters-week1-two"),
        ("../../intro.html", "#intro"),
        ("https://keras.io/a.html#b", "https://keras.io/a.html#b"),
    ],
)
def test_a_link_leads_to_the_same_place_in_the_one_page(address, leads_to):
    assert downloads.moved(address, "chapters/week1/one", NAMES) == leads_to


def test_footers_name_the_downloads_from_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PAGES", tmp_path)
    (tmp_path / "chapters").mkdir()
    for name in ("index.html", "chapters/one.html"):
        (tmp_path / name).write_text(f"<footer>{downloads.MARK}</footer>", encoding="utf-8")
    downloads.link_downloads()
    assert 'href="downloads/advanced-computer-vision.pdf"' in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="../downloads/' in (tmp_path / "chapters" / "one.html").read_text(encoding="utf-8")


def test_the_archive_holds_the_pages_without_the_downloads_and_is_the_same_each_time(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "PAGES", tmp_path)
    monkeypatch.setattr(downloads, "FOLDER", tmp_path / "downloads")
    (tmp_path / "downloads").mkdir()
    for name in ("index.html", ".rendered", "downloads/book.pdf"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    contents = []
    for target in (tmp_path / "downloads" / "a.zip", tmp_path / "downloads" / "b.zip"):
        downloads.zip_pages(target)
        contents.append(target.read_bytes())
    assert contents[0] == contents[1]
    assert zipfile.ZipFile(tmp_path / "downloads" / "a.zip").namelist() == ["advanced-computer-vision/index.html"]
