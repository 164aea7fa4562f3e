"""Sphinx extension: pages that are found and shared.

Each page has a description, an Open Graph title and, where it is known under which address the book is published, its
canonical address and a card; there are a site map and a page for addresses that lead nowhere, and the root page is the
book's first page rather than a refresh to it. The address is the environment variable BOOK_URL, or else that of the
GitHub pages of the clone's origin.
"""

import io
import os
import re
import shutil
from html import escape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import lesson_pages
from bs4 import BeautifulSoup
from docutils import nodes
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
CARD, CARD_SIZE = "_static/card.png", (1200, 630)
CARD_TEXT = (
    "A toy scene with boxes around its toys, beside the title: Advanced Computer Vision, an interactive textbook"
)
TITLE = re.compile(r"<title>.*?</title>", re.S)
LOST = """<h1>This page does not exist</h1>
<p>The address may be mistyped, or the page may have moved. The
<a href="intro.html">first page of the book</a> lists all lessons; the <a href="search.html">search</a> finds words in
them.</p>"""


def setup(app):
    app.connect("config-inited", set_address)
    app.connect("html-page-context", describe)
    app.connect("html-collect-pages", lambda app: [("404", {"title": "Page not found", "body": LOST}, "page.html")])
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def address():
    """Give the address under which the book is published, with a slash at its end; "" where that is not known.

    Raises: ValueError for a BOOK_URL that is no address.
    """
    if url := os.environ.get("BOOK_URL", ""):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise ValueError(f"BOOK_URL is {url!r}, expected an address such as https://name.github.io/book/")
        return url.rstrip("/") + "/"
    found = lesson_pages.origin()
    return f"https://{found[0].lower()}.github.io/{found[1]}/" if found else ""


def set_address(app, config):
    config.html_baseurl = address()


def describe(app, page, template, context, doctree):
    """Put a page's description, Open Graph title and card, and canonical address into its head."""
    if page == "404":
        context["metatags"] = '<meta name="robots" content="noindex" />'
        return
    tags, base, root = context.get("metatags", ""), app.config.html_baseurl, app.config.root_doc
    if doctree is None:
        return
    described = 'name="description"' in tags
    paragraph = next((p for p in doctree.findall(nodes.paragraph) if isinstance(p.parent, nodes.section)), None)
    text = " ".join(paragraph.astext().split()) if paragraph else app.config.html_title
    text = text if len(text) <= 160 else text[:160].rsplit(" ", 1)[0] + " …"
    if not described:
        tags += meta("name", "description", text)
    title = app.config.html_title if page == root else BeautifulSoup(context["title"], "html.parser").get_text()
    tags += meta("property", "og:title", title) + meta("property", "og:description", text)
    tags += meta("property", "og:type", "website" if page == root else "article")
    tags += meta("property", "og:site_name", app.config.html_title) + meta("property", "og:locale", "en_GB")
    if base:
        context["pageurl"] = base if page == root else urljoin(base, f"{page}.html")
        tags += meta("property", "og:url", context["pageurl"])
        tags += meta("property", "og:image", urljoin(base, CARD)) + meta("property", "og:image:alt", CARD_TEXT)
        tags += meta("property", "og:image:width", CARD_SIZE[0]) + meta("property", "og:image:height", CARD_SIZE[1])
        tags += meta("name", "twitter:card", "summary_large_image")
    context["metatags"] = tags


def meta(kind, name, content):
    return f'<meta {kind}="{name}" content="{escape(str(content))}" />\n'


def finish(app, error):
    if error is not None or app.builder.format != "html":
        return
    pages, base = Path(app.outdir), app.config.html_baseurl
    root = pages / f"{app.config.root_doc}.html"
    text = root.read_text(encoding="utf-8")  # the theme puts the book's title behind that of each page
    root.write_text(TITLE.sub(rf"<title>{escape(app.config.html_title)}</title>", text, count=1), encoding="utf-8")
    shutil.copyfile(root, pages / "index.html")
    lost = pages / "404.html"  # a server shows it under any address, so that it has to say where it lies
    text = lost.read_text(encoding="utf-8")
    if base:
        place = escape(urlsplit(base).path or "/")
        lost.write_text(text.replace("<head>", f'<head><base href="{place}">', 1), encoding="utf-8")
        write_sitemap(pages, base, [page for page in sorted(app.env.found_docs) if page != app.config.root_doc])
        draw_card().save(pages / CARD)


def write_sitemap(pages, base, names):
    """Write sitemap.xml, and a robots.txt that names it."""
    places = [base, *(urljoin(base, f"{name}.html") for name in names)]
    rows = "".join(f"<url><loc>{escape(place)}</loc></url>\n" for place in places)
    schema = "http://www.sitemaps.org/schemas/sitemap/0.9"
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{schema}">\n{rows}</urlset>\n'
    (pages / "sitemap.xml").write_text(text, encoding="utf-8")
    (pages / "robots.txt").write_text(f"User-agent: *\nAllow: /\nSitemap: {base}sitemap.xml\n", encoding="utf-8")


def draw_card():
    """Draw the card that is shown where someone shares a link to the book: 1,200 × 630 pixels."""
    card = Image.new("RGB", CARD_SIZE, "#fdfcf9")
    scene = Image.open(ROOT / "data" / "toybox" / "scene.webp").convert("RGB")
    side = min(scene.height, scene.width)
    card.paste(scene.crop((0, 0, side, side)).resize((630, 630), Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(card)
    draw.text((680, 190), "Advanced\nComputer\nVision", fill="#1a1a1a", font=serif(78), spacing=18)
    draw.text((682, 500), "An interactive textbook", fill="#0a6b7c", font=serif(38))
    return card


def serif(size):
    """Give the pages' serif for Pillow, which can't read WOFF2."""
    font, file = (
        TTFont(ROOT / "node_modules/@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2"),
        io.BytesIO(),
    )
    font.flavor = None
    font.save(file)
    file.seek(0)
    return ImageFont.truetype(file, size)
