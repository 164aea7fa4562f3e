"""Compare the engine in the browser with Keras, on the same images: classes, maps, boxes."""

import cv2
import numpy as np

from cvlab import classify, data, explain, retinanet

SOURCES = {  # dataset and split of the images that each model gets
    "lite0": ("raccoon_small", "val"),
    "eyes": ("eyes", "test"),
    "eyes_mended": ("eyes", "mended_test"),
    "pavement": ("pavement", "test"),
    "pavement_mended": ("pavement", "turned"),
    "detector": ("scenes", "test"),
    "segmenter": ("scenes", "test"),
}
METHODS = ("cam", "grad_cam", "saliency")


def images_of(name, size, count):
    """Give images (N, H, W, 3) uint8 of the model's own size, so that no resizing comes between."""
    images = data.load(*SOURCES[name], limit=count).images
    return np.stack([cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA) for image in images])


def classifier(name):
    """Build the Keras model of a classifier of the playground."""
    if name == "lite0":
        return classify.efficientnet_lite0(), (224, 224)
    size = (96, 96) if name.startswith("eyes") else (48, 48)
    return classify.resnet20(data.weights(f"resnet20_{name}"), num_classes=2), size


def compare(engine, name, count=20):
    """Ask the engine and Keras about the same images.

    Args:
        engine: `drive.Engine`. name: of the model.

    Returns:
        dict: "images", how many; "same", for how many of them the top class, or all classes of the boxes, are the same;
        and by what is compared, a dict of the relative differences. An image's is the largest of a number, as a share
        of the largest that Keras gives; of masks, it is the share of pixels that differ. A gradient can differ in the
        pixels around a unit whose input is 0 but for rounding, which then passes on one side alone.
    """
    if name == "segmenter":
        return _compare_masks(engine, count)
    return _compare_boxes(engine, count) if name == "detector" else _compare_classes(engine, name, count)


def _compare_classes(engine, name, count):
    model, size = classifier(name)
    images, same, rows = images_of(name, size, count), 0, {key: [] for key in ("classes", *METHODS)}
    probabilities = explain.probabilities(model, images)
    predicted = probabilities.argmax(-1)
    maps = {method: getattr(explain, method)(model, images, predicted) for method in METHODS}
    for i, image in enumerate(images):
        classes = engine.ask("classify", image, model=name)["classes"]
        same += int(classes[0]["index"] == predicted[i])
        expected = probabilities[i][[each["index"] for each in classes]]
        rows["classes"].append(_relative([each["probability"] for each in classes], expected))
        for method in METHODS:
            answer = engine.ask("explain", image, model=name, method=method, target=int(predicted[i]))
            rows[method].append(_relative(answer["map"], maps[method][i]))
    return {"images": len(images), "same": same, **_summary(rows)}


def _compare_boxes(engine, count):
    model, threshold = retinanet.restore("retinanet_toybox").model, 0.3
    images = images_of("detector", (256, 256), count)
    same, boxes, rows = 0, 0, {"coordinates": [], "scores": []}
    for image, expected in zip(images, retinanet.detect(model, images, score=threshold, iou=0.5)):
        detected = engine.ask("detect", image, threshold=threshold, iou=0.5)["boxes"]
        same += int([each["index"] for each in detected] == expected["labels"].tolist())
        boxes += len(detected)
        if len(detected) == len(expected["labels"]) > 0:
            rows["coordinates"].append(_relative([each["box"] for each in detected], expected["boxes"]))
            rows["scores"].append(_relative([each["score"] for each in detected], expected["scores"]))
    return {"images": len(images), "same": same, "boxes": boxes, **_summary(rows)}


def _compare_masks(engine, count):
    from cvlab import segmenter

    model = segmenter.restore("segmenter_toybox")
    images = images_of("segmenter", (model.input_size,) * 2, count)
    masks = segmenter.predict(model, images)
    shares = [np.mean(engine.ask("segment", image)["labels"] != mask) for image, mask in zip(images, masks)]
    return {"images": len(images), "same": len(images), **_summary({"pixels": shares})}


def _relative(values, expected):
    return float(np.abs(np.asarray(values) - expected).max() / np.abs(expected).max())


def _summary(rows):
    """Give median and maximum over the images, and how many are within 1e-4."""
    return {
        what: {
            "median": float(f"{np.median(values):.1e}"),
            "max": float(f"{max(values):.1e}"),
            "within 1e-4": sum(value < 1e-4 for value in values),
            "of": len(values),
        }
        for what, values in rows.items()
    }
