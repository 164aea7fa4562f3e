"""Figures of the pages that are no lessons, drawn from the book's own data when the pages are built."""

import functools

import numpy as np
from PIL import Image

from cvlab import data, show
from cvlab.explore import explore

SCENES = {"a cat between balls": 21, "six toys": 34, "mugs": 22}  # of the test split
SIDE = 440  # pixels
SAMPLES = {  # part: (split, pictures, caption)
    "objects": ("test", range(10, 20), "`objects`: one toy a picture."),
    "scenes": ("test", (13, 20, 25, 36, 41), "`scenes`: one to six toys a picture, with walls behind them."),
    "duck": ("test", (0, 1, 2, 3, 4), "`duck`: rubber ducks among the other toys."),
    "eyes": ("test", (2, 3, 4, 5, 14, 15), "`eyes`: each pair is one toy, with a cat's eyes and with a dog's."),
    "pavement": ("test", (1, 3, 4, 0, 5, 14), "`pavement`: cars stand on pavement, and nothing else does."),
}


def truth():
    """Draw some scenes, with what is known about them, for the reader to choose."""
    import matplotlib

    scenes = data.load("scenes", "test", limit=max(SCENES.values()) + 1)
    colours = matplotlib.colormaps["tab20"]([*range(0, 20, 2), *range(1, 20, 2)], bytes=True)[..., :3]

    def large(image, method):
        return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), method))

    def draw(scene, truth):
        image = scenes.images[scene]
        if truth in ("picture", "boxes"):
            boxes = scenes.boxes[scene] * (SIDE / len(image))
            names = [scenes.class_names[label] for label in scenes.labels[scene]]
            picture = large(image, Image.Resampling.LANCZOS)
            return show.draw_boxes(picture, boxes, names) if truth == "boxes" else picture
        maps = {"toys": scenes.instances, "parts": scenes.parts, "classes": scenes.masks}
        values, grey = maps[truth][scene], image.mean(-1, keepdims=True)
        told = (values > 0) | (truth == "classes")
        tinted = np.where(told[..., None], 0.4 * grey + 0.6 * colours[values], 0.4 * grey)
        return large(tinted.astype("uint8"), Image.Resampling.NEAREST)

    told = {"picture": "as they are", "boxes": "with a box and a name for each toy", "toys": "each toy in one colour",
            "parts": "each part, such as an ear or a wheel, in one colour",
            "classes": "each pixel in its class's colour, floor and wall too"}  # fmt: skip
    choices = {"the picture": "picture", "a box for each toy": "boxes", "each toy's pixels": "toys",
               "its parts": "parts", "a class for every pixel": "classes"}  # fmt: skip
    scene_of = {number: text for text, number in SCENES.items()}
    return explore(
        draw, scene=SCENES, truth=choices, label={"scene": "Picture", "truth": "Show"}, name="truth",
        start={"truth": "a box for each toy"}, lossless=False,
        caption="A picture from the book's own data set, and what is known about it. Choose what to see.",
        alt=lambda scene, truth: f"Rendered toys on a floor before a wall ({scene_of[scene]}), {told[truth]}",
    )  # fmt: skip


def samples(part):
    """Draw some pictures of a part of the toybox."""
    split, chosen, caption = SAMPLES[part]
    pictures = data.load(part, split, limit=max(chosen) + 1).take(chosen)
    alt = f"{len(chosen)} rendered pictures of toys"
    return show.images(pictures.images, caption=caption, alt=alt, name=f"samples-{part}", columns=min(6, len(chosen)))


DRAWN = {"truth": truth, **{f"samples-{part}": functools.partial(samples, part) for part in SAMPLES}}
