"""Sphinx extension: the playground, a page of its own on which the book's networks run on the reader's image.

`playground.md` is an ordinary page, for the search, the contents and the site map. When all pages are done, it is
written again without the theme (playground/page.html): a strict content security policy allows no inline script and no
other host, and the page is as light as it can be. Beside it goes the folder `playground/`, with the images of the book,
and with the networks and their worker where playground/export.py can make them. Without it, the page says so.

`[Try it](../../playground.md#view=explain&image=cat)`, alone in a paragraph of a lesson, opens the playground in place.
"""

import base64
import hashlib
import importlib
import json
import re
import shutil
import string
import subprocess
import sys
from html import escape
from pathlib import Path

import numpy as np
from bs4 import BeautifulSoup
from docutils import nodes
from PIL import Image
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

SOURCES = Path(__file__).with_name("playground")
PAGE, FOLDER = "playground", "playground"
THUMB, SHOWN = 128, 640  # pixels
EXAMPLES = (  # (name in addresses, dataset and split or photograph, index, network, what it shows)
    ("chelsea", "chelsea", None, None, "A ginger cat, close up"),
    ("coffee", "coffee", None, None, "A cup of coffee with a spoon on its saucer"),
    ("raccoon", "raccoon_small/val", 4, None, "A raccoon on a tiled floor"),
    ("cat", "eyes/mended_test", 2, "eyes", "A yellow toy cat from the side, one eye in sight"),
    ("dog", "eyes/mended_test", 15, "eyes", "A yellow toy dog seen from behind and the side"),
    ("car", "pavement/turned", 3, "pavement", "A white toy car on a floor of dark boards"),
    ("lawn", "scenes/test", 12, None, "Five toys on a lawn in front of a brick wall"),
    ("table", "scenes/test", 3, None, "A toy cat, a red block and a mushroom"),
)
MODELS_OF = {
    "eyes": ["eyes", "eyes_mended"],
    "pavement": ["pavement", "pavement_mended"],
    "scenes": ["detector", "segmenter"],
}
NETWORKS = {
    "lite0": "Photographs: EfficientNet-Lite0",
    "eyes": "Toys: cat or dog?",
    "pavement": "Toys: car or not?",
}
LESSONS = {
    "classify": "chapters/week1/transfer_learning",
    "detect": "chapters/week2/retinanet",
    "segment": "chapters/week3/fcn",
    "cam": "chapters/week4/cam",
    "grad_cam": "chapters/week4/grad_cam",
    "saliency": "chapters/week4/saliency",
    "smooth_grad": "chapters/week4/saliency",
    "occlusion": "chapters/week4/cam",
}
TOLD_BY = ("eye", "ear", "snout", "tail")  # the parts in which cats and dogs differ
# What has to be known before anything is drawn: whether workers can run here, and the theme that the reader has chosen
# on another page, or else that of the system.
INLINE = (
    'if (location.protocol !== "file:" && window.Worker) document.documentElement.dataset.runs = ""; '
    'var mode = "auto"; try { mode = localStorage.getItem("mode") || mode; } catch {} '
    'if (mode !== "light" && mode !== "dark") '
    'mode = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"; '
    "document.documentElement.dataset.theme = mode;"
)
SERVER = (
    "The playground needs JavaScript and a web server: run <code>python -m http.server</code> in the folder of these "
    "pages (or <code>make serve</code> in the book's repository), and open "
    "<code>http://127.0.0.1:8000/playground.html</code>."
)
NO_MODELS = "The networks were not built into this copy of the book: {}"
META = 'meta[name="description"], meta[property], meta[name^="twitter:"], link[rel="canonical"]'
logger = logging.getLogger(__name__)


class Playgrounds(SphinxPostTransform):
    """Open the playground in place where a lesson links to one of its views."""

    default_priority = 7  # before references look for a heading of that name

    def run(self):
        for link in list(self.document.findall(addnodes.pending_xref)):
            fragment = link.get("reftargetid") or ""
            if link.get("reftarget") != PAGE or "=" not in fragment:
                continue
            address = f"{self.app.builder.get_relative_uri(self.env.docname, PAGE)}#{fragment}"
            text, paragraph = link.astext(), link.parent
            if isinstance(paragraph, nodes.paragraph) and len(paragraph) == 1:
                paragraph.replace_self(nodes.raw("", in_place(text, address), format="html"))
            else:
                link.replace_self(nodes.reference("", text, refuri=address, internal=True))


def in_place(text, address):
    """Write what opens the playground at an address, within a lesson: nothing is loaded before it is opened."""
    page, inside = escape(address), escape(f"{address}&embed=1")
    return (
        f'<details class="cv-try"><summary>{escape(text)}</summary>'
        f'<iframe src="{inside}" title="{escape(text)}" loading="lazy"></iframe>'
        f'<p><a href="{page}">Open it as a page of its own</a></p></details>'
    )


def setup(app):
    app.add_post_transform(Playgrounds)
    app.connect("build-finished", finish, priority=950)  # after all that is done to the theme's pages
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def finish(app, error):
    page = Path(app.outdir, f"{PAGE}.html")
    if error is None and app.builder.format == "html" and page.exists():
        titles = {name: app.env.titles[name].astext() for name in set(LESSONS.values()) if name in app.env.titles}
        write_page(page, titles)


def write_page(page, titles):
    """Write the playground's page again, without the theme, and all that it needs beside it.

    Args:
        page: as the theme has it; its title, its description, its contents and its text are kept.
        titles: {page of a lesson: its title}.
    """
    folder = page.parent / FOLDER
    folder.mkdir(exist_ok=True)
    themed = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    models, reason = copy_models(folder)
    copy_scripts(folder)
    images = [write_example(folder, *example) for example in EXAMPLES]
    lead, text = split_article(themed.find("article"))
    told = {
        "images": images,
        "models": models and models["models"],
        "runtime": models["runtime"] if models else 0,
        "networks": NETWORKS,
        "lessons": {view: {"href": f"{name}.html", "title": titles.get(name, "")} for view, name in LESSONS.items()},
        "heat": heat_colours(),
        "colours": class_colours(),
        "version": digest(folder),
    }
    filled = string.Template((SOURCES / "page.html").read_text(encoding="utf-8")).substitute(
        policy=policy(),
        inline=INLINE,
        built=" data-built" if models else "",
        networks="".join(
            f'<option value="{name}">{escape(title)}</option>'
            for name, title in NETWORKS.items()
            if models and name in models["models"]
        ),
        meta="\n".join(map(str, themed.head.select(META))),
        title=themed.title.decode_contents(),
        style=versioned(folder, "playground.css"),
        script=versioned(folder, "playground.js"),
        contents=contents(themed),
        lead=lead,
        text=text,
        needs=SERVER if models else NO_MODELS.format(escape(reason)),
        images="".join(map(button, images)),
        data=json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
        footer=footer(themed),
    )
    partial = page.with_suffix(".partial")
    partial.write_text(filled, encoding="utf-8")
    partial.replace(page)


def policy():
    """Write the page's content security policy: its own scripts, no other host."""
    inline = base64.b64encode(hashlib.sha256(INLINE.encode()).digest()).decode()
    rules = {
        "default-src": "'none'",
        "script-src": f"'self' 'wasm-unsafe-eval' 'sha256-{inline}'",
        "worker-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' blob: data:",
        "style-src": "'self'",
        "font-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def copy_models(folder):
    """Bring the networks and their runtime into the page's folder.

    Returns:
        ({"models": {name: bytes to load}, "runtime": bytes}, ""), or (None, why there are none).
    """
    # In a process of its own: TensorFlow talks while it loads, and is not needed here.
    done = subprocess.run([sys.executable, SOURCES / "export.py", folder], capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"export.py ended with status {done.returncode}"]
        logger.info("the playground has no networks: %s", told[-1])
        return None, told[-1]
    listed = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    sys.path.insert(0, str(SOURCES))
    try:
        runtime = importlib.import_module("export").runtime_files()
    finally:
        sys.path.remove(str(SOURCES))
    for source, name in runtime:
        shutil.copyfile(source, folder / name)
    sizes = {model["name"]: model["bytes"] for model in listed["models"]}
    scripts, programs = listed["runtime"]["scripts"], listed["runtime"]["programs"].values()
    runtime = sum(file["bytes"] for file in scripts) + max(file["bytes"] for file in programs)  # it needs one of them
    return {"models": sizes, "runtime": runtime}, ""


def copy_scripts(folder):
    """Copy scripts and the style sheet into the page's folder, the latter with the book's two themes."""
    for source in [*SOURCES.glob("*.js"), *SOURCES.glob("*.css")]:
        text = source.read_text(encoding="utf-8")
        (folder / source.name).write_text(text.replace("/* themes */", themes()), encoding="utf-8")


def themes():
    """Take the fonts and the two themes from the book's style sheet, for a page that has one of its own."""
    css = Path(__file__).with_name("_static").joinpath("pages.css").read_text(encoding="utf-8")
    fonts = "\n".join(re.findall(r"@font-face \{.*?\}", css, re.S)).replace('url("fonts/', 'url("../_static/fonts/')
    light, dark = (re.search(rf'html\[data-theme="{name}"\] \{{(.*?)\}}', css, re.S)[1] for name in ("light", "dark"))
    return (
        f'{fonts}\nhtml {{{light}}}\nhtml[data-theme="dark"] {{{dark}}}\n'
        f'@media (prefers-color-scheme: dark) {{ html[data-theme="auto"] {{{dark}}} }}'
    )


def write_example(folder, name, source, index, network, alt):
    """Write the files of an image of the book, and say what the page needs to know of it."""
    from cvlab import data  # which imports a backend

    if index is None:
        image, told = data.photograph(source), {}
    else:
        part, split = source.split("/")
        dataset = data.load(part, split, limit=index + 1).take([index])
        image = np.asarray(dataset.images[0])
        told = {}
        if part in MODELS_OF:
            told = ground_truth(folder, name, part, dataset)
            save(image, folder / f"{name}-small.png")
            told |= {"small": f"{name}-small.png", "models": MODELS_OF[part], "side": image.shape[0]}
            image = data.display(source, index)
    save(image, folder / f"{name}.webp", quality=82, method=4)
    save(square(image), folder / f"{name}-thumb.webp", quality=50, method=4)
    return {"id": name, "large": f"{name}.webp", "thumb": f"{name}-thumb.webp", "network": network, "alt": alt, **told}


def ground_truth(folder, name, part, dataset):
    """Give the true label or the true boxes of an image of the toybox, and write its map of parts or classes."""
    labels = np.atleast_1d(dataset.labels[0])
    names = [dataset.class_names[label] for label in labels]
    regions, words = (
        (dataset.masks[0], dataset.mask_names) if part == "scenes" else (dataset.parts[0], dataset.part_names)
    )
    save(np.asarray(regions, "uint8"), folder / f"{name}-truth.png")
    truth = {"map": f"{name}-truth.png", "names": ["background" if word == "none" else word for word in words]}
    if part == "scenes":
        boxes = [{"box": box, "label": label} for box, label in zip(np.round(dataset.boxes[0], 1).tolist(), names)]
        return {"truth": truth | {"segments": True}, "boxes": boxes}
    if part == "eyes":
        truth |= {"cause": [words.index(one) for one in TOLD_BY], "words": "eyes, ears, snout and tail", "plural": True}
    else:
        truth |= {"cause": [k for k, word in enumerate(words) if word != "none"], "words": names[0]}
    return {"truth": truth, "label": names[0]}


def save(image, path, **options):
    partial = path.with_name(f".{path.name}")
    Image.fromarray(image).save(partial, path.suffix[1:].upper(), **options)
    partial.replace(path)


def square(image):
    """Cut the square in the middle of an image, and reduce it to a thumbnail."""
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    cut = Image.fromarray(image[top : top + side, left : left + side])
    return np.asarray(cut.resize((THUMB, THUMB), Image.Resampling.LANCZOS))


def button(image):
    """Write the button of an image of the book."""
    place = f'src="{FOLDER}/{image["thumb"]}" width="64" height="64" alt=""'
    label = escape(image["alt"])
    return (
        f'<button type="button" data-image="{image["id"]}" aria-pressed="false" aria-label="{label}" title="{label}">'
        f'<img class="cv-thumbnail" {place}></button>'
    )


def heat_colours():
    """Give the colours of a heat map in the lessons, from low to high, as "#rrggbb"."""
    from cvlab import show

    return ["#{:02x}{:02x}{:02x}".format(*colour) for colour in show.heat(np.arange(33)[None])[0].tolist()]


def class_colours():
    """Give the colours of the toybox's classes as the lessons have them: {name: "#rrggbb"}."""
    from cvlab import data, interact

    return dict(zip(data.load("scenes", "test", limit=1).mask_names, interact.COLOURS))


def split_article(article):
    """Cut the page's text in two, what comes before the first heading and the rest, as HTML."""
    section = article.find("section")
    for link in section.select(".headerlink"):
        link.decompose()
    for tag in section.find_all(style=True):
        del tag["style"]  # which the policy forbids
    first = section.find("section")
    text = [child for child in section.children if first in (child, *child.previous_siblings)] if first else []
    for child in text:
        child.extract()
    return section.decode_contents(), "".join(map(str, text))


def contents(themed):
    """Give the book's contents, from the theme's navigation."""
    rows = []
    for tag in themed.select("nav.bd-docs-nav p.caption, nav.bd-docs-nav li > a"):
        if tag.name == "p":
            rows.append(f"</ul><p>{escape(tag.get_text(strip=True))}</p><ul>")
        else:
            href = f"{PAGE}.html" if tag["href"] == "#" else tag["href"]
            rows.append(f'<li><a href="{escape(href)}">{escape(tag.get_text(" ", strip=True))}</a></li>')
    return f"<ul>{''.join(rows)}</ul>".replace("<ul></ul>", "")


def footer(themed):
    found = themed.find(class_="extra_footer")
    return found.decode_contents() if found else ""


def versioned(folder, name):
    """Give a file's address, which changes with its content."""
    return f"{name}?v={hashlib.sha256((folder / name).read_bytes()).hexdigest()[:8]}"


def digest(folder):
    """Give a few characters that change with any of the scripts, for their addresses."""
    scripts = sorted(folder.glob("*.js"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in scripts)).hexdigest()[:8]
