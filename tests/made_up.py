"""Small made-up datasets that are not the book's: circles, crosses and squares on a noisy ground."""

import numpy as np
from PIL import Image

CLASSES = ("circle", "cross", "square")


def write(kind, folder):
    """Write a dataset of 60 images (`folder`: 180), 36 of them to train on.

    Args:
        kind: "one" (Pascal VOC, one object an image), "several" (Pascal VOC), "masks" or "folder".
        folder: a path that does not exist yet.
    """
    generator = np.random.default_rng(0)
    count = 180 if kind == "folder" else 60
    splits = {"train": range(3 * count // 5), "val": range(3 * count // 5, 4 * count // 5)}
    splits["test"] = range(4 * count // 5, count)
    for split, numbers in splits.items():
        for i in numbers:
            if kind == "folder":
                class_name = CLASSES[i % 3]
                image, *_ = draw(generator, 64, 1, (10, 24), [class_name])
                save(image, folder / split / class_name / f"{i}.png")
            elif kind == "masks":
                image, mask, _, _ = draw(generator, 160, generator.integers(1, 5), (9, 26), CLASSES)
                save(image, folder / split / "images" / f"{i}.png")
                save(mask, folder / split / "labels" / f"{i}.png")
            else:
                most, radii = (1, (14, 44)) if kind == "one" else (4, (9, 26))
                image, _, names, boxes = draw(generator, 160, generator.integers(1, most + 1), radii, CLASSES)
                save(image, folder / "images" / f"{i}.png")
                annotate(folder / "annotations" / f"{i}.xml", names, boxes)
        if kind in ("one", "several"):
            listed = folder / "ImageSets" / "Main" / f"{split}.txt"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("\n".join(map(str, numbers)))
    if kind == "masks":
        (folder / "classes.txt").write_text("\n".join(["ground", *CLASSES]))


def draw(generator, side, count, radii, classes):
    """Draw objects that do not overlap → (image, label map, class names, boxes as xyxy)."""
    image = generator.normal(200, 6, (side, side, 3)) + generator.normal(0, 12, 3)
    mask, names, boxes = np.zeros((side, side), np.uint8), [], []
    while len(names) < count:
        radius = int(generator.integers(*radii))
        x, y = generator.integers(radius + 2, side - radius - 2, 2)
        box = [x - radius, y - radius, x + radius + 1, y + radius + 1]
        if mask[box[1] : box[3], box[0] : box[2]].any():
            continue
        name = classes[generator.integers(len(classes))]
        inside = shape(name, side, x, y, radius)
        image[inside] = generator.integers(0, 170, 3)
        mask[inside] = 1 + CLASSES.index(name)
        names.append(name)
        boxes.append(box)
    return image.clip(0, 255).astype(np.uint8), mask, names, boxes


def shape(name, side, x, y, radius):
    """Give the pixels of one object, (side, side) bool."""
    rows, columns = np.mgrid[:side, :side]
    across, down = np.abs(columns - x), np.abs(rows - y)
    if name == "circle":
        return across**2 + down**2 <= radius**2
    if name == "square":
        return np.maximum(across, down) <= radius
    return (np.minimum(across, down) <= radius // 3) & (np.maximum(across, down) <= radius)


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def annotate(path, names, boxes):
    """Write an annotation as Pascal VOC does, counting pixels from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for name, (left, top, right, bottom) in zip(names, boxes)
    )
    path.write_text(f"<annotation>{objects}</annotation>")


def rectangles(count=1, side=64, seed=0):
    """Grey noise with two rectangles an image, one red and one green, that don't overlap: images, boxes, labels."""
    draw = np.random.default_rng(seed)
    images = draw.integers(90, 120, (count, side, side, 3)).astype(np.uint8)
    truth = []
    for image in images:
        placed = []
        for label in (0, 1):
            width, height = draw.integers(14, 26, 2)
            left, top = draw.integers(2, side // 2 - width) + label * side // 2, draw.integers(2, side - height - 2)
            image[top : top + height, left : left + width] = 30
            image[top : top + height, left : left + width, label] = 230
            placed.append([left, top, left + width, top + height])
        truth.append(np.float32(placed))
    return images, truth, [np.array([0, 1])] * count
