"""book/styles.py: one style sheet, with the rules that pages and their scripts can ask for."""

import sys

import pytest

from cvlab import run

sys.path.insert(0, str(run.book_root() / "book"))

import styles

pytestmark = [
    pytest.mark.house,
    pytest.mark.skipif(
        not (run.book_root() / "node_modules" / "purgecss").is_dir(), reason="no PurgeCSS: `make book` fetches it"
    ),
]


@pytest.fixture
def pages(tmp_path):
    static = tmp_path / "_static"
    (static / "styles").mkdir(parents=True)
    (static / "fonts").mkdir()
    (static / "fonts" / "serif.woff2").write_bytes(b"font")
    (static / "basic.css").write_text(".imported { color: red }")
    (static / "styles" / "theme.css").write_text(
        '@import "../basic.css";\n@font-face { font-family: F; src: url("../fonts/serif.woff2") }\n'
        ".used { color: blue } .unused { color: green } .by-script { color: black }"
    )
    (static / "late.css").write_text(".used { color: white }")
    (static / "play.js").write_text('element.classList.add("by-script")')
    head = '<link href="{up}_static/styles/theme.css?v=1" rel="stylesheet" />\n'
    head += '<link rel="stylesheet" href="{up}_static/late.css" />'
    for name, up in (("index.html", ""), ("week1/lesson.html", "../")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(
            f'<head>{head.format(up=up)}</head><p class="used imported">text</p>', encoding="utf-8"
        )
    styles.join_styles(tmp_path)
    return tmp_path


def sheet(pages):
    (only,) = (pages / "_static").glob("book.*.css")
    return only


def test_each_page_names_the_one_sheet(pages):
    name = sheet(pages).name
    for page, up in (("index.html", ""), ("week1/lesson.html", "../")):
        text = (pages / page).read_text(encoding="utf-8")
        assert text.count("stylesheet") == 1
        assert f'href="{up}_static/{name}"' in text


def test_rules_that_nobody_asks_for_are_gone_and_the_others_keep_their_order(pages):
    text = sheet(pages).read_text(encoding="utf-8")
    assert ".unused" not in text
    assert ".by-script" in text
    assert text.index(".imported") < text.index("blue") < text.index("white")


def test_addresses_lead_to_the_same_files(pages):
    assert 'url("fonts/serif.woff2")' in sheet(pages).read_text(encoding="utf-8")


def test_no_other_sheet_is_left_behind(pages):
    assert [path.name for path in pages.rglob("*.css")] == [sheet(pages).name]
