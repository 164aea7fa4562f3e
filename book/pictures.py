"""Figures of the pages that are no lessons, drawn from the book's own data when the pages are built."""

import base64
import functools
import io
import re

import look
import numpy as np
from PIL import Image

from cvlab import data, show
from cvlab.explore import explore

EMBEDDED = re.compile(r"data:image/webp;base64,([^\"]+)")
SCENES = {"a cat between balls": 21, "six toys": 34, "mugs": 22}  # of the test split
SAMPLE_SIDE, SAMPLE_QUALITY = 216, 45  # pixels of a sample, two for each CSS pixel; a page has many of them
SAMPLES = {  # part: (split, images, caption)
    "objects": ("test", (1, 2, 14, 15, 16, 18), "`objects`: one toy per image."),
    "scenes": ("test", (13, 20, 21, 25, 36, 41), "`scenes`: one to six toys per image, in front of a wall."),
    "duck": ("test", (0, 1, 2, 3, 4, 35), "`duck`: rubber ducks among the other toys."),
    "eyes": ("test", (2, 3, 4, 5, 14, 15), "`eyes`: each pair is one toy, with a cat's eyes and with a dog's."),
    "pavement": ("test", (1, 3, 4, 0, 5, 14), "`pavement`: cars stand on pavement, and nothing else does."),
    "raccoon_small": ("val", (1, 5, 9, 18, 29, 34), "`raccoon_small`: photographs of raccoons, with their boxes."),
}


def truth():
    """Draw some scenes with their ground truth, for the reader to choose from."""
    import matplotlib

    scenes = data.load("scenes", "test", display=True)
    scenes = scenes.take([scenes.index.tolist().index(number) for number in SCENES.values()])
    colours = matplotlib.colormaps["tab20"]([*range(0, 20, 2), *range(1, 20, 2)], bytes=True)[..., :3]

    def draw(scene, truth):
        image = scenes.images[scene]
        if truth == "image":
            return image
        if truth == "boxes":
            return show.draw_boxes(image, scenes.boxes[scene], [scenes.class_names[k] for k in scenes.labels[scene]])
        maps = {"toys": scenes.instances, "parts": scenes.parts, "classes": scenes.masks}
        values, grey = maps[truth][scene], image.mean(-1, keepdims=True)
        told = (values > 0) | (truth == "classes")
        return np.where(told[..., None], 0.4 * grey + 0.6 * colours[values], 0.4 * grey).astype("uint8")

    told = {
        "image": "as they are",
        "boxes": "with a box and a name for each toy",
        "toys": "each toy in one colour",
        "parts": "each part, such as an ear or a wheel, in one colour",
        "classes": "each pixel in its class's colour, floor and wall too",
    }
    choices = {
        "the image": "image",
        "a box for each toy": "boxes",
        "each toy's pixels": "toys",
        "its parts": "parts",
        "a class for every pixel": "classes",
    }
    scene_of = list(SCENES)
    return explore(
        draw,
        scene={text: place for place, text in enumerate(scene_of)},
        truth=choices,
        name="truth",
        label={"scene": "Scene", "truth": "Show"},
        start={"truth": "a box for each toy"},
        lossless=False,
        caption="A rendered scene and its ground truth, exact to the pixel. Choose what to show.",
        alt=lambda scene, truth: f"Rendered toys on a floor before a wall ({scene_of[scene]}), {told[truth]}",
    )


def samples(part):
    """Show some images of a part of the toybox, or photographs with their boxes."""
    split, chosen, caption = SAMPLES[part]
    those = data.load(part, split, limit=max(chosen) + 1).take(chosen)
    alt, columns, boxes = f"{len(chosen)} rendered images of toys", 6, None
    if part == "raccoon_small":
        alt, columns, boxes = f"{len(chosen)} photographs of raccoons, each in a box", 3, those.boxes
    options = {"caption": caption, "alt": alt, "name": f"samples-{part}", "columns": columns}
    shown = show.images(those.images, display=those.display(size=SAMPLE_SIDE), boxes=boxes, **options)
    shown.html = EMBEDDED.sub(lighter, shown.html)
    return shown


def lighter(found):
    """Encode an image that a page holds as data again, in `SAMPLE_QUALITY`."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(found[1]))).save(file, "WEBP", quality=SAMPLE_QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


DRAWN = {"look": look.draw, "truth": truth, **{f"samples-{part}": functools.partial(samples, part) for part in SAMPLES}}
