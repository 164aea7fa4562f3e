"""Sphinx extension: pages that ask no other host for anything, weigh little, and stand in nobody's way.

It serves the fonts from the book itself, and the search's index only to the search; formulas need no script
(formulas.py). It keeps of the theme's Font Awesome only the icons that some page uses (0.7 MB less to transfer), and
mends what screen readers stumble over.
"""

import re
import shutil
from pathlib import Path

from fontTools import subset, ttLib
from fontTools.varLib import instancer
from sphinx.util import logging

MODULES = Path(__file__).parents[1] / "node_modules"
FONTS = {  # as _static/pages.css names them: (file, the weights that are kept of it)
    "source-serif.woff2": (
        "@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-normal.woff2",
        (400, 700),
    ),
    "source-serif-italic.woff2": (
        "@fontsource-variable/source-serif-4/files/source-serif-4-latin-wght-italic.woff2",
        400,
    ),
    "source-code.woff2": ("@fontsource/source-code-pro/files/source-code-pro-latin-400-normal.woff2", None),
    "source-serif-LICENSE.txt": ("@fontsource-variable/source-serif-4/LICENSE", None),
    "source-code-LICENSE.txt": ("@fontsource/source-code-pro/LICENSE", None),
}
MATHS = re.compile(r"<script>window\.MathJax = .*?</script>\s*|<script[^>]*mathjax[^>]*></script>\s*", re.S)
SEARCH = re.compile(r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>\s*')
OPTIONS = re.compile(r'<script src="[^"]*documentation_options\.js[^"]*"></script>')
# From a disk, a page can't read others for an excerpt.
TITLES_ALONE = '<script>if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;</script>'
# Scripts that need not hold up the page. (documentation_options.js must come first: others read it as they load.)
LATER = re.compile(
    r'<script (?=(?:data-[^>]*)?src="[^"]*_static/'
    r"(?:doctools|sphinx_highlight|clipboard\.min|copybutton|togglebutton|design-tabs|scripts/sphinx-book-theme)\.js)"
)
# The font of the text, asked for before the style sheet names it, so that lines don't break anew when it comes: on wide
# screens, as on a phone's line it would hold up the first view, and not from a disk, where browsers refuse it.
STYLES = re.compile(r'<link rel="stylesheet"[^>]* href="([^"]*_static/)')
FONT_FIRST = """<script>
if (location.protocol !== "file:" && matchMedia("(min-width: 960px)").matches)
  document.head.appendChild(Object.assign(document.createElement("link"),
    {{rel: "preload", as: "font", type: "font/woff2", crossOrigin: "", href: "{}fonts/source-serif.woff2"}}));
</script>
"""
# Names, punctuation and operators in code look as code does anyway: half of a page's elements.
PLAIN = re.compile(r'<span class="(?:n|nn|nx|o|p|pm|w)">([^<]*)</span>')
# Font Awesome's icons, in its script: "name":[width,height,["alias",…],"code","path"], and in its style sheet.
ICON = re.compile(r'(?<=[{,])"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"\w+",(?:"[^"]*"|\[[^\]]*\])\],?')
ICON_RULE = re.compile(
    r'(?:\.fa-[\w-]+:{1,2}before,?)+\{content:"[^"]*"\}|(?:\.fa-[\w-]+,?)+\{--fa:"[^"]*"(?:;--fa--fa:"[^"]*")?\}'
)
# (what the theme or docutils writes, what goes in its place), as regular expressions
BARRIERS = (
    (r'(<button class="btn search-button-field[^>]*?) aria-label="[^"]*"', r"\1"),  # its text says more
    (r'(<i class="theme-switch[^>]*?) title="[^"]*"', r"\1"),  # read out as a part of the button's name
    (
        r"(<div[^>]*?) (class=\"bd-sidebar-primary )",
        r'\1 role="complementary" aria-label="Book" \2',
    ),  # else no landmark
    (r'<link rel="preload" as="font"[^>]*>', ""),  # three fonts at once, and none of them from a disk
    (r'(<img src="[^"]*logo\.svg")', r'\1 width="64" height="64"'),  # else the sidebar jumps as it comes
    (r' role="list"(?= class="citation-list")', ""),  # a list without list items
    (r'<summary aria-label="Toggle hidden content">', "<summary>"),  # the text in it says what is hidden
    (r' role="doc-biblioentry"', ""),  # deprecated, and only for list items
    (r'id="pst-page-toc-nav"', 'id="page-contents"'),  # marked by pages.js: the theme is wrong on the way up
)


def setup(app):
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, error):
    if error is None and app.builder.format == "html":
        copy_fonts(Path(app.outdir, "_static", "fonts"))
        trim_icons(Path(app.outdir))
        lift_barriers(Path(app.outdir))
        lighten(Path(app.outdir))


def copy_fonts(target):
    """Copy the fonts of the pages from node_modules."""
    target.mkdir(parents=True, exist_ok=True)
    for name, (source, weights) in FONTS.items():
        if not (MODULES / source).exists():
            logging.getLogger(__name__).warning("no fonts in node_modules (`make book` fetches them)")
            return
        if weights is None:
            shutil.copy2(MODULES / source, target / name)
        else:
            font = ttLib.TTFont(MODULES / source)
            instancer.instantiateVariableFont(font, {"wght": weights}, inplace=True)
            font.save(target / name)


def lighten(pages):
    """Take from each page what it does not use, and let its scripts wait until it has been drawn."""
    for page in pages.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        text = PLAIN.sub(r"\1", MATHS.sub("", text))
        if found := STYLES.search(text):  # before any style sheet, which a script would wait for
            text = text.replace("<head>\n", f"<head>\n{FONT_FIRST.format(found[1])}", 1)
        if page.name == "search.html":  # whose scripts need each other as they load
            text = OPTIONS.sub(rf"\g<0>{TITLES_ALONE}", text)
        else:
            text = LATER.sub("<script defer ", SEARCH.sub("", text))
        page.write_text(text, encoding="utf-8")


def trim_icons(pages):
    """Keep of the theme's Font Awesome (a script that draws icons, style rules, fonts) what the pages use."""
    bundles = [p for pattern in ("**/fontawesome.js", "**/fontawesome/**/js/all.min.js") for p in pages.glob(pattern)]
    styles = list(pages.glob("_static/**/*.css"))
    readers = [p for pattern in ("**/*.html", "_static/scripts/*.js") for p in pages.glob(pattern) if p not in bundles]
    texts = [p.read_text(encoding="utf-8") for p in readers]
    names = {name for text in texts for name in re.findall(r"\bfa-([\w-]+)", text)}

    def keep(match):
        return match[0] if names & {match[1], *re.findall(r"[\w-]+", match[2])} else ""

    for bundle in bundles:
        bundle.write_text(ICON.sub(keep, bundle.read_text(encoding="utf-8")), encoding="utf-8")
    for style in styles:
        text = style.read_text(encoding="utf-8")
        trimmed = ICON_RULE.sub("", text)
        if trimmed != text:
            style.write_text(trimmed, encoding="utf-8")
        texts.append(trimmed)
    # What is left are the icons that rules such as those of admonitions draw with the font, by code or as themselves.
    codes = {int(code, 16) for text in texts for code in re.findall(r"\\([ef][0-9a-f]{3})\b", text)}
    codes |= {ord(character) for text in texts for character in text if "\ue000" <= character <= "\uf8ff"}
    for font in pages.glob("_static/**/webfonts/fa-*.woff2"):
        subset_font(font, codes)


def subset_font(path, codes):
    options = subset.Options(flavor="woff2")
    font = subset.load_font(str(path), options)
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=codes)
    subsetter.subset(font)
    subset.save_font(font, str(path), options)


def lift_barriers(pages):
    for page in pages.glob("**/*.html"):
        text = page.read_text(encoding="utf-8")
        for found, better in BARRIERS:
            text = re.sub(found, better, text)
        page.write_text(text, encoding="utf-8")
