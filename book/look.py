"""The landing page's figure: what should a network look at, and what did it look at, before and after mending its data?

The reader answers by a click on the image or by a button, and then sees heat maps of two networks over the image. The
networks' probabilities and maps come from `experiments/landing.py`; how much of a map lies inside the true part is
computed here, by `metrics.energy_in_mask` and the masks of the dataset. All frames are in the page (image_files.py
makes files of them), and look.js switches between them. Without JavaScript, the first image and its map are shown, and
what was measured is said in words.
"""

import base64
import dataclasses
import html
import io
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from cvlab import data, interact, metrics, page, show

SCRIPT = Path(__file__).with_name("look.js")
SIDE = 640  # pixels of the image
SHOWN = SIDE // 2  # CSS pixels that it takes in the page, so that it is sharp at two device pixels each
QUALITY = 62  # of the image as WebP
MAP_SIDE = 160  # pixels of a map, which is smooth
OPACITY = 0.3, 0.9  # of a map over its image, where it is 0 and where it is greatest


@dataclasses.dataclass
class Example:
    """An image of the toybox, its two networks, and the words about them.

    Attributes:
        row: of experiments/results/landing.json.
        name: of the image, as on its button. target: the class that the probability is of.
        question: what the reader is asked. regions: {what the reader may choose: a part of the toy, such as "ear"};
            "toy" is all of it, and "elsewhere" all else.
        true: the regions that tell the class. right, wrong: what is said to one who chose one of these, or another.
        learned: what the network learned from, before and after.
        alt: what the image shows.
    """

    row: dict
    name: str
    target: str
    question: str
    regions: dict
    true: tuple
    right: str
    wrong: str
    learned: dict
    alt: str

    def __post_init__(self):
        self.dataset = f"{self.row['part']}/{self.row['split']}"

    def small(self):
        """Give the image as the networks saw it, with its masks: a dataset of one image."""
        index, size = self.row["index"], self.row["size"]
        return data.load(self.row["part"], self.row["split"], size=size, limit=index + 1).take([index])

    def large(self):
        """Give the image as it is shown, 640×640 pixels, with masks of that size: a dataset of one image."""
        rendered = data.load(self.row["part"], self.row["split"], display=True)
        return rendered.take([rendered.index.tolist().index(self.row["index"])])

    def masks(self, part):
        """Give {region: (H, W) bool} of a dataset of one image."""
        toy = part.masks[0] > 0
        masks = {"toy": toy, "elsewhere": ~toy}
        masks |= {name: part.parts[0] == number for number, name in enumerate(part.part_names)}
        return {region: masks[name] for region, name in self.regions.items()}

    def true_mask(self, part):
        """Give the pixels that a network should look at, (H, W) bool."""
        masks = self.masks(part)
        return np.any([masks[region] for region in self.true], axis=0)

    def measure(self, when):
        """Tell what a network looked at: its map, the share inside the true part, and the probability of the class.

        Returns:
            {"map": (size, size) uint8, "share": float in [0, 1], "probability": float in [0, 1]}.
        """
        measured = self.row[when]
        heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(measured["map"]))))
        inside = metrics.energy_in_mask(heat[None].astype("float64"), self.true_mask(self.small())[None])
        return {"map": heat, "share": float(inside[0]), "probability": measured["probability"]}


CAR = {"car": "toy", "floor": "elsewhere"}
ANIMAL = {"eyes": "eye", "ears": "ear", "snout": "snout", "tail": "tail", "body": "body", "background": "elsewhere"}
FEATURES = ("eyes", "ears", "snout", "tail")
FRONT = "It had learned from cats and dogs seen from the front, which differed in their eyes alone."
ALL_SIDES = "It learned from cats and dogs seen from all sides too, which also differ in ears, snout and tail."
ASKED = "A network tells cats from dogs. What should it look at here?"
SAME = "Cats and dogs differ in their eyes, ears, snouts and tails."


def examples():
    """Give the images that the reader may choose from."""
    car, dog, cat = data.results("landing")["rows"]
    return [
        Example(
            car,
            "Car",
            "car",
            "A network tells cars from other toys. What should it look at here?",
            CAR,
            ("car",),
            "Yes: a car is a car, whatever it stands on.",
            "The floor does not make it a car. Only the car does.",
            {
                "before": "It had learned from cars that all stood on pavement, and other toys that never did.",
                "after": "It learned from cars and other toys on every kind of ground.",
            },
            "A white toy car on a floor of dark boards",
        ),
        Example(
            dog,
            "Dog",
            "dog",
            ASKED,
            ANIMAL,
            FEATURES,
            f"Yes. {SAME}",
            f"That tells little. {SAME}",
            {"before": FRONT, "after": ALL_SIDES},
            "A yellow toy dog seen from behind and the side: a hanging ear, a curled tail, and only the rim of an eye",
        ),
        Example(
            cat,
            "Cat",
            "cat",
            ASKED,
            ANIMAL,
            FEATURES,
            f"Yes. {SAME}",
            f"That tells little. {SAME}",
            {"before": FRONT, "after": ALL_SIDES},
            "A yellow toy cat from the side: pointed ears, a raised tail, and one eye in sight",
        ),
    ]


def describe(example):
    """Give what the page needs to know of an example, as JSON holds it."""
    large = example.large()
    small = example.small()
    area = float(example.true_mask(small).mean())
    networks = {}
    for when in ("before", "after"):
        measured = example.measure(when)
        place = np.unravel_index(measured["map"].argmax(), measured["map"].shape)
        peak = next(region for region, mask in example.masks(small).items() if mask[place])
        networks[when] = {
            "map": source(colours(measured["map"])),
            "alt": f"What the network looked at {when} its data was mended: most at the {peak}",
            "share": percent(measured["share"]),
            "width": round(100 * measured["share"], 1),
            "probability": f"{measured['probability']:.2f}",
            "told": example.learned[when],
        }
    return {
        "name": example.name,
        "target": example.target,
        "image": source(large.images[0]),
        "alt": example.alt,
        "question": example.question,
        "regions": [[region, outline(mask)] for region, mask in example.masks(large).items()],
        "true": list(example.true),
        "outline": outline(example.true_mask(large)),
        "right": example.right,
        "wrong": example.wrong,
        "area": percent(area),
        "mark": round(100 * area, 1),
        **networks,
    }


def draw():
    """Draw the figure: HTML that needs nothing else, with a few lines of JavaScript."""
    chosen = examples()
    described = [describe(example) for example in chosen]
    first = described[0]
    size = f'width="{SHOWN}" height="{SHOWN}"'
    buttons = "".join(
        f'<button type="button" data-example="{k}" aria-pressed="{str(k == 0).lower()}">'
        f'<img class="dark-light" alt="" width="40" height="40" src="{source(thumbnail(example))}">'
        f"{html.escape(example.name)}</button>"
        for k, example in enumerate(chosen)
    )
    told = json.dumps(described, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    before, after = first["before"], first["after"]
    still = (
        f"Over the image: what one network looked at. {before['told']} {before['share']} of its map lies on the car, "
        f"which takes {first['area']} of the image, and it is {percent(float(before['probability']))} sure of a car. "
        f"With mended data: {after['share']} and {percent(float(after['probability']))}. {after['told']}"
    )
    content = (
        f'<figure class="cv-figure cv-interact cv-look" id="fig-look"><style>{interact.style()}</style>'
        f'<div class="cv-panel"><div class="cv-seen"><div class="cv-stage" style="max-width:{SHOWN}px">'
        f'<img data-part="image" class="dark-light" alt="{html.escape(first["alt"])}" {size} src="{first["image"]}">'
        f'<img data-part="map" class="cv-map dark-light" alt="{html.escape(before["alt"])}" {size}'
        f' src="{before["map"]}">'
        f'<svg class="cv-layer" data-part="layer" viewBox="0 0 {SIDE} {SIDE}" aria-hidden="true">'
        f'<path class="cv-halo" d="{first["outline"]}"/><path class="cv-outline" d="{first["outline"]}"/></svg></div>'
        '<div class="cv-result" data-part="result" hidden>'
        '<div class="cv-buttons" role="group" aria-label="Network">'
        '<button type="button" data-when="before">Before mending</button>'
        '<button type="button" data-when="after">After mending</button></div>'
        '<dl class="cv-tiles" style="--columns:2"><div><dt>Map inside the outline</dt><dd data-part="share"></dd></div>'
        '<div><dt>Probability of <em data-part="target"></em></dt><dd data-part="probability"></dd></div></dl>'
        '<div class="cv-meter" aria-hidden="true">'
        '<span data-part="bar"></span><span data-part="mark"></span></div>'
        '<p class="cv-help">The outline takes <span data-part="area"></span> of the image (the line): so much of a map '
        "would lie inside it by chance.</p></div></div>"
        f'<div class="cv-side"><p data-part="still">{html.escape(still)}</p>'
        f'<div class="cv-buttons cv-examples" role="group" aria-label="Image" data-live hidden>{buttons}</div>'
        '<p class="cv-question" data-part="question" id="look-question" data-live hidden></p>'
        '<div class="cv-buttons cv-answers" role="group" aria-labelledby="look-question" data-part="answers" data-live'
        ' hidden></div><p class="cv-help" data-part="help" data-live hidden>Click on the image, or choose.</p>'
        '<div aria-live="polite"><p class="cv-verdict" data-part="verdict"></p><p data-part="told"></p></div>'
        "</div></div>"
        "<figcaption>Choose what a network should look at; then see what it did look at, before and after its data was "
        'mended. The maps of the car are <a href="chapters/week4/saliency.html">SmoothGrad</a>, those of the dog and '
        'the cat <a href="chapters/week4/cam.html">class activation maps</a>. Three images prove nothing: these '
        "lessons measure whole test splits.</figcaption>"
        f'<script type="application/json">{told}</script><script>{script()}</script></figure>'
    )
    return page.Shown(content, "What should a network look at?")


def script():
    """Give look.js as one function that starts in the figure around it."""
    lines = (line.strip() for line in SCRIPT.read_text(encoding="utf-8").splitlines())
    source = "\n".join(line for line in lines if line and not line.startswith("//"))
    return f'(function(){{"use strict";\n{source}\nstart(document.currentScript.closest("figure"));}})()'


def colours(heat):
    """Colour a map, (H, W) uint8, as the lessons do → (160, 160, 4) uint8, interpolated; low values hide less."""
    smooth = cv2.resize(heat, (MAP_SIDE, MAP_SIDE))
    opacity = np.interp(smooth, (0, 255), np.multiply(OPACITY, 255)).round().astype("uint8")
    return np.dstack([show.heat(smooth, low=0, high=255), opacity])


def thumbnail(example):
    """Give an example's image for its button, (80, 80, 3) uint8."""
    return cv2.resize(example.large().images[0], (80, 80), interpolation=cv2.INTER_AREA)


def source(image):
    """Give an image, (H, W, 3 or 4) uint8, as the address of an `<img>`: WebP within the page."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "WEBP", quality=QUALITY, alpha_quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def outline(mask):
    """Give the outline of a mask, (H, W) bool, as the path of an SVG."""
    contours, _ = cv2.findContours(mask.astype("uint8"), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    paths = []
    for contour in contours:
        corners = cv2.approxPolyDP(contour, 1.0, True)[:, 0]
        if len(corners) > 2 and cv2.contourArea(contour) > 20:
            paths.append("M" + "L".join(f"{x} {y}" for x, y in corners.tolist()) + "Z")
    return "".join(paths)


def percent(share):
    """Write a share as the page does, "14 %"."""
    return f"{100 * share:.0f} %"
