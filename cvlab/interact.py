"""Controls that are moved by hand: drag boxes, step through suppression, merge regions, paint label maps.

Each shows an image with numbers beside it, and needs no kernel: what it draws is computed here by the functions that
the lessons teach (`boxes`, `metrics`, `propose`), and what follows a reader's hand by a few lines of JavaScript
(`controls/`), which the tests hold to the same functions. `measure` gives the numbers of any state from the real code.
Without JavaScript, a still figure remains, with the numbers of the state that it shows.
"""

import functools
import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import boxes as box_functions
from . import files, metrics
from .page import Shown, identifier, img, pixels, prose, require

FOLDER = Path(__file__).resolve().parent / "controls"
WIDTH = 640  # pixels that an image has at most: two for each CSS pixel of its place on a phone
MAX_BOXES, MAX_CLASSES = 40, 24
# Colours of classes, apart for the colour-blind (Paul Tol's muted scheme); the first two are greys for background.
COLOURS = (
    "#d8d8d8",
    "#9a9a9a",
    "#cc6677",
    "#332288",
    "#ddcc77",
    "#117733",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#dd9966",
    "#6699cc",
)


class Panel(Shown):
    """A control in a page: `html` is the figure, `data` what its script works with, `measure` the real numbers."""

    def __init__(self, control, image, data, parts, *, caption, alt, name, display, measure, scripts=(), plain=()):
        require(caption=caption, alt=alt)
        self.control, self.data, self.caption, self.alt, self.measure = control, data, caption, alt, measure
        self.id = identifier("fig", name, control, caption, alt)
        layer, tags, side = parts
        width, height = data["size"]
        told = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        page = (
            f'<figure class="cv-figure cv-interact" id="{self.id}" data-control="{control}"><style>{style()}</style>'
            '<div class="cv-panel">'
            f'<div class="cv-stage" style="max-width:{_shown_width(width)}px">{_picture(image, display, alt)}'
            f'<svg class="cv-layer" viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" aria-hidden="true">'
            f'{layer}</svg>{tags}</div><div class="cv-side">{side}</div></div>'
            f"<figcaption>{prose(caption)}</figcaption>"
            '<p class="cv-spoken" data-part="spoken" aria-live="polite"></p>'
            f'<script type="application/json">{told}</script><script>{script(control, *scripts, own=self.id)}</script>'
            "</figure>"
        )
        super().__init__(page, "\n".join([caption, *plain, f"[{alt}]"]))


def drag_boxes(
    image: np.ndarray,
    true_box: Any,
    predicted_box: Any,
    *,
    caption: str,
    alt: str,
    name: str | None = None,
    display: np.ndarray | None = None,
) -> Panel:
    """Let the reader drag and resize a true and a predicted box, and see their overlap and its gradient.

    Args:
        image: (H, W, 3) or another form that `show.images` takes.
        true_box, predicted_box: (4,) xyxy in pixels of `image`, within it, with a positive area.
        caption: what to see. alt: what is to be seen at the start. name: makes its address in the page `#fig-name`.
        display: the same image to be shown in its place, such as its large render.

    Returns:
        Panel; `measure(true_box, predicted_box)` gives "intersection", "union", "IoU" and "GIoU" as floats.
    """
    width, height = _size(image)
    start = {}
    for key, given in (("true_box", true_box), ("predicted_box", predicted_box)):
        box = np.asarray(given, np.float64).reshape(-1)
        if box.shape != (4,) or not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
            raise ValueError(
                f"drag_boxes: {key} is {np.asarray(given).tolist()}, expected [x_min, y_min, x_max, y_max]"
                f" with a positive area within {width}×{height} pixels"
            )
        start[key] = np.round(box, 2).tolist()
    true, predicted = start.values()
    now = _overlap(true, predicted)
    low, high = np.maximum(true, predicted), np.minimum(true, predicted)
    shared = [low[0], low[1], high[2], high[3]]
    layer = _rectangle([high[0], high[1], low[2], low[3]], "cv-hull")
    layer += _rectangle(shared, "cv-shared", halo=False) if now["intersection"] else ""
    layer += _rectangle(true, "cv-true") + _rectangle(predicted, "cv-found")
    tags = _tag("true", true, (width, height)) + _tag("predicted", predicted, (width, height), below=True)
    tiles = {
        "IoU": ("iou", f"{now['IoU']:.3f}"),
        "GIoU": ("giou", f"{now['GIoU']:.3f}"),
        "Intersection": ("intersection", f"{now['intersection']:.0f}"),
        "Union": ("union", f"{now['union']:.0f}"),
    }
    slopes = [[side, (f"iou{k}", ""), (f"giou{k}", "")] for k, side in enumerate(("x min", "y min", "x max", "y max"))]
    slopes = _numbers(["Side", "∂ IoU", "∂ GIoU"], slopes, "Gradient, per pixel").replace(
        "<div ", "<div data-live hidden ", 1
    )
    side = (
        _tiles(tiles)
        + slopes
        + '<p data-live hidden>In Python: <code data-part="code"></code></p>'
        + _buttons({"reset": "Start again"})
        + _help(
            "Drag a box or one of its corners. By keyboard: Tab to a box, arrow keys move it, with Shift they "
            "resize it. Arrows on the image show how moving a side raises the GIoU."
        )
    )
    return Panel(
        "drag_boxes",
        image,
        {"size": [width, height], "true": true, "predicted": predicted},
        (layer, tags, side),
        caption=caption,
        alt=alt,
        name=name,
        display=display,
        measure=_overlap,
        scripts=["overlap"],
        plain=[f"true {true}, predicted {predicted}: " + ", ".join(f"{k} {v:.3f}" for k, v in now.items())],
    )


def _overlap(true_box, predicted_box):
    true, predicted = np.float32([true_box]), np.float32([predicted_box])
    iou, areas = float(box_functions.iou(predicted, true)[0, 0]), box_functions.area(np.concatenate([true, predicted]))
    whole = float(areas.astype(np.float64).sum())
    union = whole / (1 + iou)
    return {
        "intersection": whole - union,
        "union": union,
        "IoU": iou,
        "GIoU": float(box_functions.giou(predicted, true)[0, 0]),
    }


def step_nms(
    image: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    threshold: float = 0.5,
    caption: str,
    alt: str,
    name: str | None = None,
    display: np.ndarray | None = None,
) -> Panel:
    """Step through non-maximum suppression: which box is kept, which others it suppresses, and with what IoU.

    Args:
        image, caption, alt, name, display: as in `drag_boxes`; alt says what the first step shows.
        boxes: (N, 4) xyxy in pixels of `image`, at most 40. scores: (N,).
        labels: (N,) int; if given, boxes of different classes do not suppress each other.
        class_names: of the labels, to be shown.
        threshold: of the IoU, where the control starts.

    Returns:
        Panel; `measure(threshold)` gives the indices of the kept boxes, by `boxes.nms`.
    """
    boxes, scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    if boxes.ndim != 2 or boxes.shape[1:] != (4,) or not 1 <= len(boxes) <= MAX_BOXES:
        raise ValueError(
            f"step_nms: boxes has shape {boxes.shape}, expected (N, 4) with N from 1 to {MAX_BOXES}: "
            "give those with the highest scores"
        )
    labels = None if labels is None else np.asarray(labels)
    width, height = _size(image)
    kept = functools.partial(box_functions.nms, boxes, scores, labels=labels)
    result = kept(iou_threshold=threshold)  # which also checks scores, labels and threshold
    order = np.argsort(-scores, kind="stable")
    sorted_labels = np.zeros(len(boxes), int) if labels is None else labels[order]
    if class_names is not None and not {*sorted_labels.tolist()} <= {*range(len(class_names))}:
        raise ValueError(
            f"step_nms: labels hold {sorted(set(sorted_labels.tolist()))}, expected 0 to "
            f"{len(class_names) - 1}, as class_names has {len(class_names)} entries"
        )
    words = [f"{class_names[k]} " if class_names is not None else "score " for k in sorted_labels]
    names = [f"{word}{score:.2f}" for word, score in zip(words, scores[order])]
    iou = box_functions.iou(boxes[order], boxes[order])
    thresholds = sorted({*(k / 20 for k in range(2, 19)), float(threshold)})
    texts = [f"{value:g}" for value in thresholds]
    data = {
        "size": [width, height],
        "boxes": np.round(boxes[order].astype(float), 2).tolist(),
        "names": names,
        "labels": sorted_labels.tolist(),
        "iou": [[float(f"{v:.9g}") for v in row] for row in iou.tolist()],
        "thresholds": thresholds,
        "texts": {"threshold": texts},
    }
    same = sorted_labels == sorted_labels[0]
    dropped = [k for k in range(1, len(boxes)) if same[k] and iou[0, k] > np.float32(threshold)]
    looks = ["cv-best", *("cv-dropped" if k in dropped else "cv-waiting" for k in range(1, len(boxes)))]
    upwards = sorted(range(len(boxes)), key=lambda k: ("cv-waiting", "cv-dropped", "cv-best").index(looks[k]))
    layer = "".join(_rectangle(data["boxes"][k], looks[k]) for k in upwards)
    tags = "".join(_tag(k + 1, data["boxes"][k], (width, height), below=k > 0) for k in (0, *dropped))
    fates = {0: "kept"} | {k: f"box 1, IoU {iou[0, k]:.2f}" for k in dropped}
    rows = "".join(
        f'<tr data-box class="{looks[k]}"><th scope="row">{k + 1}</th><td>{html.escape(text)}</td>'
        f"<td>{fates.get(k, 'undecided')}</td></tr>"
        for k, text in enumerate(names)
    )
    others = ", ".join(f"box {k + 1} (IoU {iou[0, k]:.2f})" for k in dropped)
    says = (
        f"Step 1 of {len(result)}: box 1, {names[0]}, has the highest score of those left, and is kept. "
        f"It suppresses {others or 'none'}."
    ) + (f" All boxes are decided: 1 of {len(names)} are kept." if len(result) == 1 else "")
    head = '<th scope="col">Box</th><th scope="col">Score</th><th scope="col">Suppressed by</th>'
    side = (
        _controls(_slider("threshold", "IoU threshold", texts, thresholds.index(float(threshold))))
        + _buttons({"previous": "Previous", "next": "Next"})
        + f'<p data-part="says">{html.escape(says)}</p>'
        + '<div class="cv-numbers" role="group" tabindex="0" aria-label="Boxes by score"><table><thead><tr>'
        + f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
    return Panel(
        "step_nms",
        image,
        data,
        (layer, tags, side),
        caption=caption,
        alt=alt,
        name=name,
        display=display,
        measure=lambda threshold: kept(iou_threshold=threshold),
        plain=[says],
    )


def merge_regions(
    image: np.ndarray,
    segments: np.ndarray,
    regions: Any,
    *,
    merges: int | None = None,
    caption: str,
    alt: str,
    name: str | None = None,
    display: np.ndarray | None = None,
) -> Panel:
    """Show the merges of selective search one after the other, as a slider and as an animation.

    Args:
        image, caption, alt, name, display: as in `drag_boxes`.
        segments: (H, W) int, the first regions, from 0. regions: what `propose.group` made of them.
        merges: how many are done at the start; by default so many that 15 regions are left.

    Returns:
        Panel; `measure(merges)` gives "labels", (H, W), the region of each pixel after so many merges; "box", (4,), of
        the last one; and "similarity", a float.
    """
    array, segments, pairs = pixels(image)[..., :3], np.asarray(segments), np.asarray(regions.pairs)
    count, (height, width) = int(segments.max()) + 1, array.shape[:2]
    if segments.shape != (height, width) or len(regions.sizes) != count + len(pairs) or not len(pairs):
        raise ValueError(
            f"merge_regions: segments has shape {segments.shape} and {count} regions, image "
            f"{height}×{width} pixels, regions {len(regions.sizes)} with {len(pairs)} merges; expected "
            "what propose.group gave for these segments"
        )
    merges = max(1, count - 15) if merges is None else merges
    if not 0 <= merges <= len(pairs):
        raise ValueError(f"merge_regions: merges is {merges!r}, expected 0 to {len(pairs)}")
    sizes = np.bincount(segments.ravel())
    means = np.stack([np.bincount(segments.ravel(), array[..., c].ravel()) / sizes for c in range(3)], axis=-1)
    colours = np.rint(means).astype(np.uint8)

    def measure(merges):
        owner = np.arange(count)
        for new, (a, b) in enumerate(pairs[:merges], count):
            owner[(owner == a) | (owner == b)] = new
        box, alike = (regions.boxes[count + merges - 1], float(regions.alike[merges - 1])) if merges else (None, None)
        return {"labels": owner[segments], "box": box, "similarity": alike}

    state = measure(merges)
    labels = state["labels"]
    shades = np.stack([np.bincount(labels.ravel(), colours[segments][..., c].ravel()) for c in range(3)], axis=-1)
    filled = (shades[labels] / np.bincount(labels.ravel())[labels][..., None]).astype(np.uint8)
    edge = np.zeros((height, width), bool)
    edge[:-1] |= labels[:-1] != labels[1:]
    edge[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    filled[edge] = 255
    layer = _still(filled) + (_rectangle(state["box"], "cv-found") if merges else "")
    views = ["Regions in their mean colour", "Outlines on the image"]
    data = {
        "size": [width, height],
        "shape": [width, height],
        "runs": _runs(segments),
        "pairs": pairs.tolist(),
        "colours": ["#" + bytes(colour).hex() for colour in colours],
        "alike": [round(float(value), 4) for value in regions.alike],
        "boxes": np.round(np.asarray(regions.boxes, float)[count:], 2).tolist(),
        "texts": {"view": views},
    }
    says = _merge_told(regions, pairs, count, merges)
    track = (
        f'<label><span>Merges</span><input type="range" min="0" max="{len(pairs)}" value="{merges}" '
        f'aria-valuetext="{merges} merges" autocomplete="off" data-part="merges"><span aria-hidden="true">{merges}'
        "</span></label>"
    )
    side = (
        _controls(track + _list("view", "Show", views))
        + _buttons({"previous": "Previous", "play": "Play", "next": "Next"})
        + f'<p data-part="says">{says}</p>'
        + '<p class="cv-help">Orange: the region that was made last. Blue: the box around it.</p>'
    )
    return Panel(
        "merge_regions",
        image,
        data,
        (layer, "", side),
        caption=caption,
        alt=alt,
        name=name,
        display=display,
        measure=measure,
        plain=[says],
    )


def _merge_told(regions, pairs, count, merges):
    if not merges:
        return f"{count} regions, before the first merge."
    (a, b), left = pairs[merges - 1], count - merges
    return (
        f"Merge {merges} of {len(pairs)}: regions of {regions.sizes[a]:.0f} and {regions.sizes[b]:.0f} pixels, "
        f"similarity {regions.alike[merges - 1]:.2f}, become one. {left} {'region is' if left == 1 else 'regions are'} "
        "left; the box around the new one is proposed."
    )


def place_anchors(
    image: np.ndarray,
    true_boxes: np.ndarray,
    *,
    strides: Sequence[int],
    sizes: Sequence[float],
    ratios: Sequence[float] = (0.5, 1, 2),
    scales: Sequence[float] = (1, 2 ** (1 / 3), 2 ** (2 / 3)),
    names: Sequence[str] | None = None,
    input_size: int | None = None,
    level: int = 0,
    positive: float = 0.5,
    negative: float = 0.4,
    caption: str,
    alt: str,
    name: str | None = None,
    display: np.ndarray | None = None,
) -> Panel:
    """Let the reader lay the anchors of a feature pyramid over an image, and see which match its true boxes.

    Args:
        image, caption, alt, name, display: as in `drag_boxes`.
        true_boxes: (T, 4) xyxy in pixels of `image`, at least one. names: T texts.
        strides, sizes, ratios, scales: as in `boxes.anchors`.
        input_size: side in pixels that the network resizes images to; by default anchors lie on `image` as it is.
        level: at the start, an index into `strides`.
        positive, negative: as in `retinanet.match`: from which IoU an anchor learns an object, below which background.

    Returns:
        Panel; `measure(level, row, column, ratio, scale)`, all of them indices, gives "anchor", (4,), and "IoU", (T,).
    """
    width, height = _size(image)
    true_boxes = np.asarray(true_boxes, np.float32)
    if true_boxes.ndim != 2 or true_boxes.shape[1:] != (4,) or not len(true_boxes):
        raise ValueError(f"place_anchors: true_boxes has shape {true_boxes.shape}, expected (T, 4) with T ≥ 1")
    names = [f"object {k + 1}" for k in range(len(true_boxes))] if names is None else [str(each) for each in names]
    if len(names) != len(true_boxes):
        raise ValueError(f"place_anchors: names has {len(names)} entries, expected {len(true_boxes)}, one a true box")
    if not 0 <= level < len(strides):
        raise ValueError(f"place_anchors: level is {level!r}, expected 0 to {len(strides) - 1}")
    zoom = np.float32([1, 1] if input_size is None else [input_size / width, input_size / height])
    size = [width, height] if input_size is None else [input_size, input_size]
    true = true_boxes * np.tile(zoom, 2)
    by_level = box_functions.anchors(size[::-1], strides, sizes, ratios, scales, by_level=True)

    def measure(level, row, column, ratio, scale):
        columns = -(-size[0] // strides[level])
        place = ((row * columns + column) * len(ratios) + ratio) * len(scales) + scale
        anchor = by_level[level][place]
        return {"anchor": anchor, "IoU": box_functions.iou(anchor[None], true)[0]}

    middle = np.array([(true[0, 1] + true[0, 3]) / 2, (true[0, 0] + true[0, 2]) / 2])
    last = [-(-length // strides[level]) - 1 for length in size[::-1]]
    cell = np.clip(middle // strides[level], 0, last).astype(int).tolist()
    shape = min(range(len(ratios)), key=lambda k: abs(np.log(ratios[k]))), 0  # the squarest, of the first scale
    texts = {
        "level": [f"stride {s}, size {a}" for s, a in zip(strides, sizes)],
        "ratio": [f"{r:.3g}" + (" (wide)" if r < 1 else " (tall)" if r > 1 else " (square)") for r in ratios],
        "scale": [f"{s:.3g}" for s in scales],
    }
    data = {
        "size": size,
        "true": np.round(true.astype(float), 3).tolist(),
        "names": names,
        "cell": cell,
        "levels": [{"stride": int(s), "size": float(a)} for s, a in zip(strides, sizes)],
        "ratios": [float(r) for r in ratios],
        "scales": [float(s) for s in scales],
        "positive": positive,
        "negative": negative,
        "texts": texts,
    }
    state = measure(level, *cell, *shape)
    ofs = [measure(level, *cell, r, s) for r in range(len(ratios)) for s in range(len(scales))]
    best_of_cell = np.max([each["IoU"] for each in ofs], axis=0)
    matching = box_functions.iou(by_level[level].reshape(-1, len(ratios), len(scales), 4)[:, shape[0], shape[1]], true)
    matching, cells = (matching.max(1) >= positive), len(matching)
    columns = last[1] + 1
    layer = "".join(_rectangle(each["anchor"], "cv-other", halo=False) for each in ofs)
    layer += "".join(_rectangle(box, "cv-true") for box in true)
    layer += _rectangle(state["anchor"], "cv-kept" if state["IoU"].max() >= positive else "cv-found")
    layer += "".join(
        f'<circle cx="{(k % columns + 0.5) * strides[level]:g}" cy="{(k // columns + 0.5) * strides[level]:g}" '
        f'r="{size[0] / 110:.3g}" class="cv-dot"/>'
        for k in np.flatnonzero(matching)
    )
    tags = "".join(_tag(text, box, size, below=True) for text, box in zip(names, true.tolist()))
    sides = state["anchor"][2:] - state["anchor"][:2]
    best = int(state["IoU"].argmax())
    iou = float(state["IoU"][best])
    verdict = (
        "it matches, and learns that object."
        if iou >= positive
        else "it learns background."
        if iou < negative
        else "neither object nor background, it is ignored."
    )
    says = (
        f"Row {cell[0]}, column {cell[1]}: the anchor is {sides[0]:.0f} × {sides[1]:.0f} pixels (width × height). Its "
        f"highest IoU is {iou:.2f}, with the {names[best]}: {verdict} Of the {cells:,} anchors of this shape on this "
        f"level, {matching.sum()} reach {positive:g} (dots)."
    )
    rows = [
        [text, (f"iou{k}", f"{state['IoU'][k]:.2f}"), (f"best{k}", f"{best_of_cell[k]:.2f}")]
        for k, text in enumerate(names)
    ]
    side = (
        _controls(
            _list("level", "Level", texts["level"], level)
            + _list("ratio", "Ratio of height to width", texts["ratio"], shape[0])
            + _list("scale", "Scale", texts["scale"], shape[1])
        )
        + f'<p data-part="says">{html.escape(says)}</p>'
        + _numbers(["True box", "IoU", "best of the cell"], rows)
        + _help(
            "Drag the dot, click on the image, or focus the dot and press arrow keys: the anchors are those of "
            "that cell. Blue: the chosen anchor, green where it matches. Orange: true boxes."
        )
    )
    return Panel(
        "place_anchors",
        image,
        data,
        (layer, tags, side),
        caption=caption,
        alt=alt,
        name=name,
        display=display,
        measure=measure,
        scripts=["overlap"],
        plain=[says],
    )


def paint_labels(
    image: np.ndarray,
    true: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str],
    *,
    colours: Sequence[str] | None = None,
    ignore: int | None = None,
    paint: int | None = None,
    caption: str,
    alt: str,
    name: str | None = None,
    display: np.ndarray | None = None,
) -> Panel:
    """Let the reader paint a label map over an image, and watch pixel accuracy, IoU and Dice.

    Args:
        image, caption, alt, name, display: as in `drag_boxes`; alt says what the prediction shows.
        true, predicted: (H, W) int, the true label map and the one to start from.
        class_names: C texts, at most 24, by label. colours: C of "#rrggbb"; by default colour-blind-safe ones.
        ignore: label of void pixels in `true`, which don't count.
        paint: class that the brush has at the start; by default the commonest that isn't class 0.

    Returns:
        Panel; `measure(label_map)` gives what `metrics.segmentation_scores` does for a painted map.
    """
    width, height = _size(image)
    true, predicted, classes = np.asarray(true), np.asarray(predicted), len(class_names)
    for key, given in (("true", true), ("predicted", predicted)):
        if given.shape != (height, width):
            raise ValueError(f"paint_labels: {key} has shape {given.shape}, expected {(height, width)}, as the image")
    if not 2 <= classes <= MAX_CLASSES:
        raise ValueError(f"paint_labels: class_names has {classes} entries, expected 2 to {MAX_CLASSES}")
    colours = [COLOURS[k % len(COLOURS)] for k in range(classes)] if colours is None else list(colours)
    if len(colours) != classes or not all(re.fullmatch("#[0-9a-fA-F]{6}", str(colour)) for colour in colours):
        raise ValueError(f"paint_labels: colours is {colours}, expected {classes} texts such as '#0072B2'")

    def measure(label_map):
        return metrics.segmentation_scores(true, label_map, classes, ignore)

    state = measure(predicted)  # which also checks the labels
    if paint is None:
        counts = state["confusion"].sum(1)[1:]
        paint = int(counts.argmax()) + 1
    if not 0 <= paint < classes:
        raise ValueError(f"paint_labels: paint is {paint!r}, expected a class from 0 to {classes - 1}")
    views, brushes = ["Classes", "Errors (orange)"], [1, 3, 5, 9, 15, 25]
    scale = max(1, round(width / 160))  # brushes grow with the image
    brushes = [scale * each for each in brushes]
    data = {
        "size": [width, height],
        "shape": [width, height],
        "true": _runs(true),
        "predicted": _runs(predicted),
        "names": [str(each) for each in class_names],
        "colours": colours,
        "ignore": -1 if ignore is None else ignore,
        "brushes": brushes,
        "texts": {"brush": [f"{each} px" for each in brushes], "view": views},
    }
    rgb = np.array([[*bytes.fromhex(colour[1:])] for colour in colours], np.uint8)
    layer = _still(np.dstack([rgb[predicted], np.full((height, width), 190, np.uint8)]))
    layer += f'<path d="{_borders(true)}" class="cv-halo"/><path d="{_borders(true)}" class="cv-truth-line"/>'
    told = lambda value: "–" if np.isnan(value) else f"{value:.3f}"  # noqa: E731
    keys = {"Pixel accuracy": "accuracy", "Mean IoU": "miou", "Mean Dice": "mdice"}
    tiles = {
        text: (part, told(state[text.replace("Mean", "mean").replace("Pixel", "pixel")])) for text, part in keys.items()
    }
    rows = "".join(
        f'<tr><th scope="row"><label><input type="radio" name="BRUSH" value="{k}" autocomplete="off"'
        f'{" checked" if k == paint else ""} data-live hidden><span class="cv-swatch" style="background:{colours[k]}">'
        f"</span>{html.escape(text)}</label></th>"
        f'<td data-part="iou{k}">{told(state["IoU"][k])}</td><td data-part="dice{k}">{told(state["Dice"][k])}</td></tr>'
        for k, text in enumerate(data["names"])
    ).replace("BRUSH", identifier("brush", name, caption, alt))
    head = '<th scope="col">Class</th><th scope="col">IoU</th><th scope="col">Dice</th>'
    side = (
        _tiles(tiles)
        + _controls(_slider("brush", "Brush", data["texts"]["brush"], 2) + _list("view", "Show", views))
        + _buttons({"undo": "Undo", "reset": "Reset", "fill": "Fill all"})
        + '<div class="cv-numbers" role="group" tabindex="0" aria-label="Classes and their scores"><table><thead><tr>'
        + f"{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        + _help(
            "Paint with a pointer. By keyboard: Tab to the label map, arrow keys move the brush (with Shift by 8), "
            "Space paints, Enter lowers or raises the brush. Lines: the true outlines."
        )
    )
    numbers = ", ".join(f"{key} {state[key]:.3f}" for key in ("pixel accuracy", "mean IoU", "mean Dice"))
    return Panel(
        "paint_labels",
        image,
        data,
        (layer, "", side),
        caption=caption,
        alt=alt,
        name=name,
        display=display,
        measure=measure,
        plain=[f"prediction: {numbers}"],
    )


def drag_occluder(
    image: np.ndarray,
    scores: Any,
    whole: Any,
    size: Any,
    stride: Any,
    *,
    fill: Any = (128, 128, 128),
    start: tuple[int, int] | None = None,
    caption: str,
    alt: str,
    name: str | None = None,
    display: np.ndarray | None = None,
) -> Panel:
    """Let the reader drag an occluder over an image, and read the score that the network then gives.

    Args:
        image, caption, alt, name, display: as in `drag_boxes`.
        scores: {class name: (rows, columns)}: the score with the occluder's upper left corner at each row · stride and
            column · stride. All classes have one shape.
        whole: {class name: score} of the image as it is.
        size: of the occluder in pixels, and stride: from one position to the next; (height, width), or one for both.
        fill: (red, green, blue), 0–255, of the occluder. start: its (row, column) in the grid; by default where the
            first class's score is lowest.

    Returns:
        Panel; `measure(row, column)` gives {class name: score}.
    """
    width, height = _size(image)
    grids = {str(key): np.asarray(grid, np.float64) for key, grid in dict(scores).items()}
    shape = next(iter(grids.values())).shape if grids else ()
    if len(shape) != 2 or any(grid.shape != shape or not np.isfinite(grid).all() for grid in grids.values()):
        raise ValueError(
            f"drag_occluder: scores has the shapes {[grid.shape for grid in grids.values()]}, expected "
            "{class name: (rows, columns)}, finite and of one shape"
        )
    if {*grids} != {str(key) for key in whole}:
        raise ValueError(f"drag_occluder: whole has the classes {[*whole]}, expected those of scores, {[*grids]}")
    (tall, wide), (down, right) = (np.broadcast_to(np.asarray(each, float), 2).tolist() for each in (size, stride))
    ends = (shape[0] - 1) * down + tall, (shape[1] - 1) * right + wide
    if min(tall, wide, down, right) <= 0 or ends[0] > height or ends[1] > width:
        raise ValueError(
            f"drag_occluder: size={size!r} and stride={stride!r} with {shape[0]}×{shape[1]} positions "
            f"reach {ends[1]:g}×{ends[0]:g} pixels, expected to stay within {width}×{height}"
        )
    names, arrays = list(grids), np.stack(list(grids.values()))
    row, column = np.unravel_index(arrays[0].argmin(), shape) if start is None else start
    if not (0 <= row < shape[0] and 0 <= column < shape[1]):
        raise ValueError(f"drag_occluder: start is {start!r}, expected a (row, column) within {shape}")
    wholes = [float({str(key): value for key, value in whole.items()}[key]) for key in names]
    from .show import heat

    top = float(max(arrays.max(), *wholes))
    at = [int(row), int(column)]
    box = [at[1] * right, at[0] * down, at[1] * right + wide, at[0] * down + tall]
    colours = ["#" + bytes(colour).hex() for colour in heat(np.arange(256)[None])[0]]
    data = {
        "size": [width, height],
        "scores": np.round(arrays, 5).tolist(),
        "whole": [round(each, 5) for each in wholes],
        "names": names,
        "occluder": [wide, tall],
        "stride": [right, down],
        "at": at,
        "top": top or 1.0,
        "fill": "#" + bytes(int(value) for value in fill).hex(),
        "colours": colours,
        "texts": {"class": names},
    }
    layer = _rectangle(box, "cv-occluder", halo=False, style=f"fill:{data['fill']}")
    score = float(arrays[0][at[0], at[1]])
    minus = lambda value: f"{value:.3f}".replace("-", "−")  # noqa: E731
    tiles = {
        "Occluded": ("score", minus(score)),
        "Whole image": ("whole", minus(wholes[0])),
        "Change": ("change", minus(score - wholes[0])),
    }
    shares = [100 * min(1.0, max(0.0, value / data["top"])) for value in (score, wholes[0])]
    first = f"<p>Score of <b>{html.escape(names[0])}</b></p>"
    choice = f"<noscript>{first}</noscript>" + _controls(_list("class", "Score of", names)) if len(names) > 1 else first
    side = (
        choice
        + _tiles(tiles)
        + f'<div class="cv-meter" aria-hidden="true"><span data-part="bar" style="width:{shares[0]:.2f}%"></span>'
        + f'<span data-part="mark" style="left:{shares[1]:.2f}%"></span></div>'
        + '<div class="cv-buttons" data-live hidden><button type="button" data-part="heat" aria-pressed="false">'
        + "Heat map</button></div>"
        + '<p class="cv-help" data-part="legend" hidden>Each cell has the colour of the score with the occluder '
        + "centred on it: dark is lowest, yellow highest.</p>"
        + _help("Drag the occluder, or focus it and press arrow keys.")
    )
    return Panel(
        "drag_occluder",
        image,
        data,
        (layer, "", side),
        caption=caption,
        alt=alt,
        name=name,
        display=display,
        measure=lambda row, column: {key: float(grid[row, column]) for key, grid in grids.items()},
        plain=[f"{names[0]}: {score:.3f} with the occluder, {wholes[0]:.3f} without"],
    )


# Scripts and styles: of the files in controls/, what a page needs, without comments and indentation.


def script(control: str, *more: str, own: str) -> str:
    """Give the JavaScript of a control as one function that starts it in the figure whose id is `own`."""
    source = "\n".join(_lines(f"{file}.js") for file in ("panel", *more, control))
    # The figure is the one around the script where it runs, as an output may be shown twice in a notebook.
    figure = f'(document.currentScript&&document.currentScript.closest("figure"))||document.getElementById("{own}")'
    return f'(function(){{"use strict";\n{source}\nstart(panelOf({figure}))}})()'


def style() -> str:
    """Give the style sheet of the controls."""
    return re.sub(r"\s*\n\s*", " ", re.sub(r"/\*.*?\*/", "", _read("panel.css"), flags=re.S)).strip()


def _read(file):
    return files.record(FOLDER / file).read_text(encoding="utf-8")


def _lines(file):
    """Give a script without indentation, and without its comments, which stand on lines or ends of lines of theirs."""
    lines = (re.sub(r"(^|\s)// .*$", "", line).strip() for line in _read(file).splitlines())
    return "\n".join(line for line in lines if line)


# Parts of the page.


def _size(image):
    height, width = pixels(image).shape[:2]
    return width, height


def _shown_width(width):
    """CSS pixels of the stage: small images are enlarged, up to a size at which a finger hits what it means."""
    return 480 if width <= 480 else min(width, 560)


def _picture(image, display, alt):
    from PIL import Image

    array = pixels(image if display is None else display)[..., :3]
    if array.shape[1] > WIDTH:
        size = WIDTH, round(array.shape[0] * WIDTH / array.shape[1])
        array = np.asarray(Image.fromarray(array).resize(size, Image.Resampling.BOX))
    return img(array, alt, fill=True)


def _still(array):
    """Make an image of the layer, which the script replaces."""
    tag = img(array, "still", lossless=True)
    source = re.search('src="([^"]+)"', tag)[1]
    return f'<image href="{source}" width="100%" height="100%" style="image-rendering:pixelated"/>'


def _rectangle(box, look, halo=True, style=""):
    x, y, right, bottom = (float(value) for value in box)
    at = f'x="{x:.6g}" y="{y:.6g}" width="{right - x:.6g}" height="{bottom - y:.6g}"'
    style = f' style="{style}"' if style else ""
    return (f'<rect {at} class="cv-halo"/>' if halo else "") + f'<rect {at} class="{look}"{style}/>'


def _tag(text, box, size, below=False):
    x, y = (min(max(0.0, float(box[k])), size[k % 2]) for k in (0, 3 if below else 1))
    place = f"left:{100 * x / size[0]:.4g}%;top:{100 * y / size[1]:.4g}%"
    look = "cv-tag cv-below" if below else "cv-tag"
    return f'<span class="{look}" aria-hidden="true" style="{place}">{html.escape(str(text))}</span>'


def _tiles(values):
    items = (f'<div><dt>{text}</dt><dd data-part="{part}">{value}</dd></div>' for text, (part, value) in values.items())
    return f'<dl class="cv-tiles" style="--columns:{2 if len(values) == 4 else len(values)}">{"".join(items)}</dl>'


def _numbers(columns, rows, caption=""):
    """Make a table; the first cell of a row is a text, each other one (name of the part, text)."""
    head = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in columns)
    body = "".join(
        f'<tr><th scope="row">{html.escape(first)}</th>'
        + "".join(f'<td data-part="{part}">{text}</td>' for part, text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    caption = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<div class="cv-numbers"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _controls(inside):
    return f'<div class="cv-controls" data-live hidden>{inside}</div>'


def _slider(part, label, texts, first):
    now = html.escape(texts[first])
    state = f'max="{len(texts) - 1}" value="{first}" aria-valuetext="{now}" autocomplete="off"'
    return (
        f'<label><span>{label}</span><input type="range" min="0" {state} data-part="{part}" '
        f'style="--steps:{len(texts) - 1}"><span aria-hidden="true">{now}</span></label>'
    )


def _list(part, label, texts, first=0):
    options = "".join(
        f'<option value="{k}"{" selected" if k == first else ""}>{html.escape(text)}</option>'
        for k, text in enumerate(texts)
    )
    return f'<label><span>{label}</span><select autocomplete="off" data-part="{part}">{options}</select></label>'


def _buttons(texts):
    buttons = "".join(f'<button type="button" data-part="{part}">{text}</button>' for part, text in texts.items())
    return f'<div class="cv-buttons" data-live hidden>{buttons}</div>'


def _help(text):
    return f'<p class="cv-help" data-part="help" data-live hidden>{html.escape(text)}</p>'


def _runs(labels):
    """Code a label map by its runs, row by row: [label, length, label, length, …]."""
    flat = np.asarray(labels).ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    lengths = np.diff(np.append(starts, len(flat)))
    return np.stack([flat[starts], lengths], axis=-1).ravel().astype(int).tolist()


def _borders(labels):
    """Give the edges between pixels of different labels as an SVG path."""
    labels = np.asarray(labels)
    down, right = np.nonzero(labels[:-1] != labels[1:]), np.nonzero(labels[:, :-1] != labels[:, 1:])
    return "".join([*(f"M{x} {y + 1}h1" for y, x in zip(*down)), *(f"M{x + 1} {y}v1" for y, x in zip(*right))])
