"""R-CNN and Fast R-CNN: detectors that score proposals, from crops of the image or of its feature map.

R-CNN runs a network on every proposal. Fast R-CNN runs it once on the image and crops the feature map (see `roi`).
`faster_rcnn` makes the proposals from that map as well.

Source: Girshick et al., CVPR 2014; Girshick, Fast R-CNN, ICCV 2015.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from cvlab import boxes, classify, learn
from cvlab.roi import roi_align, roi_pool  # noqa: F401 (`fast_rcnn` takes either)

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # of the offsets, so that they are of about the size 1


def check_image(function: str, image: Any) -> np.ndarray:
    """Give one image as an array, or say, in the name of a function, that it is none."""
    image = np.asarray(image)
    if image.dtype not in (np.uint8, np.float32) or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            f"{function}: image is {image.dtype} of shape {image.shape}, expected one image, uint8 or float32, shape "
            "(H, W, 3)"
        )
    return image


def warp(image: np.ndarray, proposals: np.ndarray, size: int = 96, context: float | None = None) -> np.ndarray:
    """Crop boxes from an image and warp each to a square, whatever its shape, with a margin of what is around it.

    Args:
        image: (H, W, 3) uint8 or float32.
        proposals: (N, 4) xyxy in pixels, none without area; they may reach beyond the image.
        size: side of the squares in pixels. context: of it, the margin on each side; by default 16 of 227, as R-CNN's.

    Returns:
        (N, size, size, 3), of the image's dtype; outside the image is its mean colour.

    Source: Girshick et al., Rich feature hierarchies, CVPR 2014, appendix A.
    """
    import cv2

    image, regions = check_image("warp", image), boxes.convert(proposals, "xyxy", "xyxy").reshape(-1, 4)
    context = round(size * 16 / 227) if context is None else context
    if not 0 <= 2 * context < size:
        raise ValueError(f"warp: context={context!r} with size={size!r}, expected 0 or more, and less than half of it")
    if (empty := (regions[:, :2] >= regions[:, 2:]).any(1)).any():
        raise ValueError(f"warp: proposals[{empty.argmax()}] = {regions[empty][0].tolist()} has no area")
    crops, outside = np.empty((len(regions), size, size, 3), image.dtype), image.mean((0, 1)).tolist()
    for crop, corner, sides in zip(crops, regions[:, :2], regions[:, 2:] - regions[:, :2], strict=True):
        scale = (size - 2 * context) / sides
        shift = context - corner * scale + (scale - 1) / 2  # OpenCV counts from the middle of the first pixel
        cv2.warpAffine(image, np.column_stack([np.diag(scale), shift]), (size, size), crop, borderValue=outside)
    return crops


def rcnn(
    backbone: "keras.Model", num_classes: int | None, mode: str = "frozen", input_size: int | None = 96
) -> "keras.Model":
    """Build R-CNN's network, from warped crops to a score for each class and to how the box should move.

    Each class has a score of its own, linear in the pooled features and with a sigmoid, so that a crop of background is
    a low score for all of them, and no class itself. The offsets are the same whichever the class. (The paper trains
    support vector machines, and offsets for each class, apart from the network.)

    Args:
        backbone: keras.Model from pixels to feature maps.
        num_classes: int. mode: of the backbone, as in `classify.transfer`. input_size: side of the crops in pixels.

    Returns:
        keras.Model from crops (N, input_size, input_size, 3), 0–255, to {"class": (N, num_classes), 0…1; "box": (N, 4),
        for `boxes.decode` with the proposals and VARIANCES}.

    Source: Girshick et al., Rich feature hierarchies for accurate object detection, CVPR 2014.
    """
    body, crops = classify.copy_body(backbone, mode), keras.Input((input_size, input_size, 3), name="crops")
    features = keras.Input(body(crops).shape[1:])
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False)(features)
    rare = keras.initializers.Constant(-2.0)  # most crops show none of most classes
    named = layers.Dense(num_classes, "sigmoid", bias_initializer=rare, name="class")
    moved = layers.Flatten()(layers.Conv2D(64, 1, activation="relu")(x))
    outputs = {
        "class": named(layers.GlobalAveragePooling2D()(x)),
        "box": layers.Dense(4, kernel_initializer="zeros", name="box")(moved),
    }
    heads = keras.Model(features, outputs, name="heads")
    return keras.Model(crops, heads(body(crops)), name=f"rcnn_{mode}")


def examples(
    proposals: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    num_classes: int | None,
    per_image: int = 64,
    share: float = 1 / 3,
    positive: float = 0.5,
    negative: float = 0.3,
    seed: int = 0,
) -> tuple:
    """Choose in each image what R-CNN learns from, among proposals and true boxes.

    Args:
        proposals, true_boxes: for each image (n, 4) and (T, 4) xyxy in pixels. labels: (T,) int, from 0.
        positive: a box shows the object with which its IoU is greatest, and at least this. negative: below it, a box
            shows background; what lies between is left out.
        per_image: so many at most. share: of them with objects, at most.

    Returns:
        list of (n, 4) boxes an image; and for all of them, in this order, {"class": (N, num_classes) float32, 1 for
        what is shown; "box": (N, 5) float32, offsets to the object as from `boxes.encode`, then 1 where they count}.

    Raises:
        ValueError: for another number of images, or labels outside the classes.
    """
    if not len(proposals) == len(true_boxes) == len(labels) > 0:
        raise ValueError(
            f"examples: {len(proposals)} proposals, {len(true_boxes)} true_boxes, {len(labels)} labels; "
            "expected as many of each, an entry an image"
        )
    generator, chosen, classes, offsets = np.random.default_rng(seed), [], [], []
    for proposed, true, names in zip(proposals, true_boxes, labels, strict=True):
        true, names = np.asarray(true, np.float32).reshape(-1, 4), np.asarray(names, int)
        if names.shape != (len(true),) or ((names < 0) | (names >= num_classes)).any():
            raise ValueError(
                f"examples: labels {names.tolist()} for {len(true)} boxes, expected one a box, from 0 to "
                f"{num_classes - 1}"
            )
        candidates = np.concatenate([true, proposed])
        overlap = boxes.iou(candidates, true) if len(true) else np.zeros((len(candidates), 1))
        with_object = generator.permutation(np.flatnonzero(overlap.max(1) >= positive))[: round(share * per_image)]
        background = generator.permutation(np.flatnonzero(overlap.max(1) < negative))[: per_image - len(with_object)]
        objects = overlap[with_object].argmax(1)
        chosen.append(candidates[np.concatenate([with_object, background])])
        classes.append(np.zeros((len(chosen[-1]), num_classes), np.float32))
        offsets.append(np.zeros((len(chosen[-1]), 5), np.float32))
        if len(with_object):
            classes[-1][np.arange(len(with_object)), names[objects]] = 1
            offsets[-1][: len(with_object), :4] = boxes.encode(true[objects], candidates[with_object], VARIANCES)
            offsets[-1][: len(with_object), 4] = 1
    return chosen, {"class": np.concatenate(classes), "box": np.concatenate(offsets)}


def crop_features(
    model: "keras.Model", images: np.ndarray, proposals: Sequence[np.ndarray], progress: bool = False
) -> list[np.ndarray]:
    """Run all proposals of all images through an R-CNN's backbone, which is where its time goes.

    Returns: an array (n, h, w, C) float16 an image, for `train_rcnn` and `detect` to take as `cached`.
    """
    counts, regions = [len(proposed) for proposed in proposals], np.concatenate(proposals)
    image_index, features = np.repeat(np.arange(len(images)), counts), []
    for start in range(0, len(regions), 8192):
        part = slice(start, start + 8192)
        crops = _crops(images, image_index[part], regions[part], model.input.shape[1])
        features.append(learn.features(model.layers[1], crops, progress=progress).astype(np.float16))
    return np.split(np.concatenate(features), np.cumsum(counts)[:-1])


def _crops(images, image_index, regions, size):
    return np.concatenate([warp(images[i], box[None], size) for i, box in zip(image_index, regions, strict=True)])


def train_rcnn(
    model: "keras.Model",
    images: np.ndarray,
    chosen: Sequence[np.ndarray],
    targets: dict,
    steps: int = 300,
    learning_rate: float = 1e-2,
    batch_size: int = 128,
    seed: int = 0,
    progress: bool = False,
    cached: Any = None,
) -> dict:
    """Train an R-CNN with Adam and a cosine's learning rates; with a frozen backbone, on features computed once.

    The loss is the binary cross-entropy of the classes plus the smooth L1 loss of those offsets that count.

    Args:
        model: from `rcnn`. images: N images. chosen, targets: from `examples`.
        cached: for a frozen backbone, what `crop_features` gave for `chosen`.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".
    """
    began, counts = time.perf_counter(), [len(proposed) for proposed in chosen]
    if sum(counts) != len(targets["box"]) or len(images) != len(counts):
        raise ValueError(
            f"train_rcnn: {len(images)} images, and {sum(counts)} boxes in {len(counts)} images with "
            f"{len(targets['box'])} targets; `examples` gives what fits"
        )
    image_index, regions = np.repeat(np.arange(len(images)), counts), np.concatenate(chosen)
    backbone_learns = model.layers[1].trainable
    if backbone_learns:
        trained = model

        def draw(rows, generator):
            crops = _crops(images, image_index[rows], regions[rows], model.input.shape[1])
            return crops, {name: values[rows] for name, values in targets.items()}

    else:
        maps = crop_features(model, images, chosen, progress) if cached is None else cached
        trained, draw = model.layers[2], learn.batches(np.concatenate(maps), targets)
    losses = {"class": "binary_crossentropy", "box": offset_loss}
    history = learn.optimize(trained, losses, draw, len(regions), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def offset_loss(targets: Any, offsets: Any) -> Any:
    """Average the smooth L1 loss of the boxes that count, once Keras has taken the mean over all boxes.

    Args:
        targets: (..., 5), four offsets, then 1 where they count, as from `examples`. offsets: (..., 4), predicted.

    Returns:
        (N,) tensor, N the number of all boxes; 0 for those that don't count.
    """
    loss = ops.reshape(learn.smooth_l1(targets, offsets), (-1,))
    return learn.per_positive(loss, targets[..., 4])


def detect(
    model: "keras.Model",
    images: np.ndarray,
    proposals: Sequence[np.ndarray],
    score: float = 0.05,
    iou: float = 0.3,
    max_boxes: int = 100,
    regress: bool = True,
    cached: Sequence | None = None,
) -> list[dict]:
    """Detect objects by R-CNN: score each proposal for each class, move its box, suppress what overlaps a better one.

    Args:
        model: from `rcnn`. images: N images. proposals: for each (n, 4) xyxy in pixels.
        score: least score. iou: of two boxes of one class that overlap more, the one with the lower score goes.
        max_boxes: at most so many an image. regress: whether boxes move. cached: what `crop_features` gave.

    Returns:
        list of dict, one an image: "boxes" (D, 4) float32 xyxy within it, "labels" (D,), "scores" (D,), falling.
    """
    detections = []
    cached = crop_features(model, images, proposals) if cached is None else cached
    for image, proposed, maps in zip(images, proposals, cached, strict=True):
        outputs = {key: ops.convert_to_numpy(value) for key, value in model.layers[2](maps, training=False).items()}
        size, offsets = image.shape[1::-1], outputs["box"] if regress else None
        detections.append(_select(proposed, outputs["class"], offsets, size, score, iou, max_boxes))
    return detections


def fast_rcnn(
    map_shape: Sequence[int],
    num_classes: int,
    stride: float,
    size: int = 7,
    pooling: Callable = roi_align,
    channels: int = 128,
    width: int = 256,
) -> "keras.Model":
    """Build what follows the backbone in Fast R-CNN: pool each proposal's features, score its classes, move its box.

    As in `rcnn`, each class has a sigmoid of its own, background is a low score for all, and offsets don't depend on
    the class. (The paper has a softmax with a class for background, and offsets for each class.)

    Args:
        map_shape: (h, w, C) of the backbone's feature map. num_classes: int.
        stride: pixels of the image that a cell of the map stands for.
        size: cells a side of a pooled region. pooling: `roi_align`, or `roi_pool`.
        channels: that the map is reduced to before pooling. width: of the dense layer that all outputs share.

    Returns:
        keras.Model from {"map": (N, h, w, C), "boxes": (N, R, 4) xyxy in pixels} to {"class": (N, R, num_classes), 0…1;
        "box": (N, R, 4) offsets for `boxes.decode` with the proposals and VARIANCES}.

    Source: Girshick, Fast R-CNN, ICCV 2015.
    """
    feature_map, proposals = keras.Input(map_shape, name="map"), keras.Input((None, 4), name="boxes")
    x = layers.BatchNormalization(momentum=0.9, center=False, scale=False)(feature_map)
    x = layers.Conv2D(channels, 1, activation="relu", kernel_initializer="he_normal")(x)
    x = layers.Reshape((-1, size * size * channels))(pooling(x, proposals / stride, size))
    x = layers.Dense(width, "relu", kernel_initializer="he_normal")(x)
    rare = keras.initializers.Constant(-2.0)  # most proposals show none of most classes
    outputs = {
        "class": layers.Dense(num_classes, "sigmoid", bias_initializer=rare, name="class")(x),
        "box": layers.Dense(4, kernel_initializer="zeros", name="box")(x),
    }
    return keras.Model({"map": feature_map, "boxes": proposals}, outputs, name="fast_rcnn")


def train_fast_rcnn(
    model: "keras.Model",
    maps: np.ndarray,
    proposals: Sequence[np.ndarray],
    true_boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    steps: int = 300,
    learning_rate: float = 1e-3,
    batch_size: int = 4,
    per_image: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> dict:
    """Train a Fast R-CNN on feature maps: in each step some proposals of a few images, drawn anew by `examples`.

    The loss is R-CNN's: binary cross-entropy, summed over the classes, plus smooth L1 of the offsets that count.

    Args:
        model: from `fast_rcnn`. maps: (N, h, w, C) float32, of all images.
        proposals, true_boxes, labels: as in `examples`. per_image: proposals of each image in a step.
        steps, learning_rate, batch_size, seed, progress: as in `classify.train`.

    Returns:
        dict: "loss", a list of the loss of each step, and "seconds".
    """
    began, num_classes = time.perf_counter(), model.output["class"].shape[-1]
    if not len(maps) == len(proposals) == len(true_boxes):
        raise ValueError(
            f"train_fast_rcnn: {len(maps)} maps, {len(proposals)} proposals, {len(true_boxes)} true_boxes; expected as "
            "many of each, an entry an image"
        )

    def draw(rows, generator):
        inputs, wanted = [], {"class": [], "box": []}
        for row in rows:
            given = [proposals[row]], [true_boxes[row]], [labels[row]]
            (chosen,), targets = examples(*given, num_classes, per_image, seed=int(generator.integers(2**31)))
            index = np.resize(np.arange(len(chosen)), per_image)  # where there are fewer, some come twice
            inputs.append(chosen[index])
            for name, values in targets.items():
                wanted[name].append(values[index])
        return {"map": maps[rows], "boxes": np.stack(inputs)}, {name: np.stack(v) for name, v in wanted.items()}

    losses = {"class": _class_loss, "box": offset_loss}
    history = learn.optimize(model, losses, draw, len(maps), steps, learning_rate, batch_size, seed, progress)
    return {"loss": history, "seconds": time.perf_counter() - began}


def _class_loss(wanted, scores):
    return ops.mean(ops.sum(ops.binary_crossentropy(wanted, scores), axis=-1), axis=-1)


def detect_fast_rcnn(
    model: "keras.Model",
    maps: np.ndarray,
    proposals: Sequence[np.ndarray],
    image_size: int,
    score: float = 0.05,
    iou: float = 0.3,
    max_boxes: int = 100,
) -> list[dict]:
    """Detect objects by Fast R-CNN, from feature maps and proposals.

    Args:
        model: from `fast_rcnn`. maps: (N, h, w, C). proposals: for each image (n, 4) xyxy in pixels.
        image_size: side of the images in pixels. score, iou, max_boxes: as in `detect`.

    Returns:
        list of dict, one an image, as `detect`.
    """
    detections = []
    for feature_map, proposed in zip(maps, proposals, strict=True):
        padded = np.resize(np.arange(len(proposed)), -(-len(proposed) // 64) * 64)  # few shapes, so few graphs
        outputs = model.predict_on_batch({"map": feature_map[None], "boxes": proposed[padded][None]})
        scores, offsets = (np.asarray(outputs[key])[0, : len(proposed)] for key in ("class", "box"))
        detections.append(_select(proposed, scores, offsets, (image_size, image_size), score, iou, max_boxes))
    return detections


def _select(proposals, scores, offsets, size, score, iou, max_boxes):
    """Turn the scores and offsets of an image's proposals into detections; `offsets` may be None: no box moves."""
    rows, labels = np.nonzero(scores >= score)
    moved = np.asarray(proposals, np.float32) if offsets is None else boxes.decode(offsets, proposals, VARIANCES)
    moved, sure = np.clip(moved, 0, np.float32([*size, *size]))[rows], scores[rows, labels]
    kept = boxes.nms(moved, sure, iou, max_boxes, labels)
    return {"boxes": moved[kept], "labels": labels[kept], "scores": sure[kept]}
