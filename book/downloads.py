"""Make what readers may take along: the whole book as one PDF, and as a zip archive that opens from a disk.

    python book/downloads.py    # after the pages were built; needs Chromium

Both go to _build/html/downloads, and every page gets links to them in its footer.
"""

import shutil
import sys
import zipfile
from pathlib import Path
from urllib.parse import urldefrag

import yaml
from browser import chromium
from bs4 import BeautifulSoup
from PIL import Image
from playwright.sync_api import sync_playwright
from pypdf import PdfReader

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "_build" / "html"
FOLDER = PAGES / "downloads"
NAME = "advanced-computer-vision"
MARK = "<!-- downloads -->"  # where _config.yml wants the links in a page's footer
LEFT_OUT = (
    ".cv-controls, .cv-run, .cv-code, .cv-checks, .cv-answer, .headerlink, script, button, .cv-start, .cv-try, .pg-app"
)
PRINTED = FOLDER / "printed"  # images as the PDF takes them
FOOTER = '<div style="width:100%;text-align:center;font:8pt serif;color:#555"><span class="pageNumber"></span></div>'


def main():
    if not (PAGES / "index.html").exists():
        sys.exit("downloads: there is no _build/html/index.html; run `make book` first")
    FOLDER.mkdir(exist_ok=True)
    print_pdf(FOLDER / f"{NAME}.pdf")
    link_downloads()
    zip_pages(FOLDER / f"{NAME}.zip")
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1e6:.1f} MB")


def pages_in_order():
    """Name the pages as _toc.yml has them: [(caption of the part or None, "intro"), …]."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    rows = [(None, toc["root"])]
    for part in toc["parts"]:
        names = [chapter["file"] for chapter in part["chapters"]]
        rows += [(part["caption"] if name == names[0] else None, name) for name in names]
    return rows


def print_pdf(target):
    """Print all pages as one, twice: the second time, the contents know the numbers of the pages."""
    executable, whole, rows = chromium(), FOLDER / "whole.html", pages_in_order()
    if executable is None:
        sys.exit("downloads: no Chromium here: install it, or name it in the environment variable CHROMIUM")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
            numbers = {}
            for _ in range(2):
                whole.write_text(one_page(rows, numbers), encoding="utf-8")
                page = browser.new_page(color_scheme="light")
                page.goto(whole.as_uri(), wait_until="networkidle")
                page.evaluate("Promise.all([...document.images].map(image => image.decode().catch(() => null)))")
                partial = target.with_suffix(".partial")
                page.pdf(
                    path=partial,
                    format="A4",
                    print_background=True,
                    tagged=True,
                    outline=True,
                    display_header_footer=True,
                    header_template="<span></span>",
                    footer_template=FOOTER,
                    margin={"top": "18mm", "bottom": "18mm", "left": "18mm", "right": "18mm"},
                )
                page.close()
                numbers = chapter_pages(partial)
            browser.close()
        partial.replace(target)
    finally:
        whole.unlink(missing_ok=True)
        shutil.rmtree(PRINTED, ignore_errors=True)


def chapter_pages(path):
    """Give the page that each chapter begins on, by its title without spaces, from the PDF's outline."""
    reader = PdfReader(path)  # in whose titles a space is missing where a line broke
    return {
        "".join(entry.title.split()): reader.get_destination_page_number(entry) + 1
        for entry in reader.outline
        if not isinstance(entry, list)
    }


def one_page(rows, numbers):
    """Put all pages into one, without what only works on a screen.

    Args:
        rows: as `pages_in_order` gives them.
        numbers: {title of a chapter, without spaces: page}, for the contents.
    """
    first = BeautifulSoup((PAGES / "index.html").read_text(encoding="utf-8"), "html.parser")
    styles = "".join(
        f'<link rel="stylesheet" href="../{link["href"]}">' for link in first.select('link[rel="stylesheet"]')
    )
    names = {name for _, name in rows}
    contents, articles = [], []
    for caption, name in rows:
        article = article_of(name, names)
        title = article.h1.get_text(" ", strip=True)
        if caption:
            contents.append(f'<li class="part">{caption}</li>')
        contents.append(
            f'<li><a href="#{key(name)}">{title}</a> <span>{numbers.get("".join(title.split()), "")}</span></li>'
        )
        articles.append(f'<div class="chapter" id="{key(name)}">{article}</div>')
    return f"""<!DOCTYPE html><html lang="en-GB" data-theme="light"><head><meta charset="utf-8">
<title>Advanced Computer Vision</title>{styles}<style>
.chapter {{ break-before: page; }} .cover {{ padding-top: 30vh; text-align: center; }}
.contents {{ break-before: page; }} .contents ul {{ list-style: none; padding: 0; }}
.contents li {{ display: flex; justify-content: space-between; padding: .15rem 0; }}
.contents li.part {{ margin-top: 1rem; font-weight: 600; }}
body {{ font-family: "Source Serif", serif; }} figure img {{ max-height: 200mm; object-fit: contain; }}
</style></head><body><main class="bd-article"><div class="cover"><p style="font-size:3rem">Advanced Computer Vision</p>
<p>An interactive textbook</p></div><nav class="contents"><h1>Contents</h1><ul>{"".join(contents)}</ul></nav>
{"".join(articles)}</main></body></html>"""


def article_of(name, names):
    """Take the text of a page: its ids and links made unique, its images eager, its answers open."""
    path = PAGES / f"{name}.html"
    article = BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser").find("article")
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    for tag in article.find_all(id=True):
        tag["id"] = f"{key(name)}--{tag['id']}"
    for link in article.find_all(["a", "use"], href=True):
        link["href"] = moved(link["href"], name, names)
    for use in article.find_all("use"):
        use["xlink:href"] = moved(use["xlink:href"], name, names)
    for image in article.find_all("img", src=True):
        image["src"] = printed((path.parent / image["src"]).resolve()).as_uri()
        image.attrs.pop("loading", None)
    for details in article.find_all("details"):
        details["open"] = ""
    return article


def printed(image):
    """Give an image as JPEG where it is a large WebP, which Chromium would put into a PDF uncompressed."""
    if image.suffix != ".webp" or image.stat().st_size < 6_000:
        return image
    PRINTED.mkdir(exist_ok=True)
    target = PRINTED / f"{image.stem}.jpg"
    if not target.exists():
        Image.open(image).convert("RGB").save(target, quality=88, subsampling=0)
    return target


def moved(address, name, names):
    """Give the place in the one page to which a link of a page leads, or its address where it leads elsewhere."""
    file, part = urldefrag(address)
    if "://" in address or address.startswith(("mailto:", "data:")):
        return address
    if not file:
        return f"#{key(name)}--{part}"
    target = (Path("/") / Path(name).parent / file).resolve().relative_to("/").with_suffix("").as_posix()
    if target not in names:
        return (PAGES / f"{target}.html").as_uri()
    return f"#{key(target)}--{part}" if part else f"#{key(target)}"


def key(name):
    return name.replace("/", "-")


def link_downloads():
    """Name the downloads in the footer of every page."""
    for page in PAGES.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        up = "../" * (len(page.relative_to(PAGES).parts) - 1)
        links = f'<p>Take the book along: <a href="{up}downloads/{NAME}.pdf">one PDF</a>, or '
        links += f'<a href="{up}downloads/{NAME}.zip">a zip archive of these pages</a>.</p>'
        page.write_text(text.replace(MARK, links), encoding="utf-8")


def zip_pages(target):
    """Pack the pages, undated and in order, so that the same pages give the same archive."""
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(PAGES.rglob("*")):
            if path.is_file() and FOLDER not in path.parents and path.name != ".rendered":
                inside = zipfile.ZipInfo(f"{NAME}/{path.relative_to(PAGES).as_posix()}")
                inside.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(inside, path.read_bytes())
    partial.replace(target)


if __name__ == "__main__":
    main()
