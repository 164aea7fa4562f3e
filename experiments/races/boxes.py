"""cvlab.boxes beside its peers: `python -m experiments.races.boxes`, from the project's root, on a quiet machine.

All of them take NumPy arrays and give NumPy arrays: what it costs to move them in and out counts.
"""

import argparse
import os
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import cv2
import keras
import numpy as np
import tensorflow as tf

from cvlab import boxes
from cvlab.engine import pairs

from .. import _timing

THRESHOLD = 0.5


def scattered(count, seed, sides, extent=1000):
    """Draw boxes anywhere in a square picture, their sides log-uniform between two numbers of pixels."""
    random = np.random.default_rng(seed)
    corner = random.uniform(0, extent, (count, 2))
    size = np.exp(random.uniform(*np.log(sides), (count, 2)))
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32)


def around_objects(count, seed, objects=100):
    """Draw boxes as a detector finds them: many around each of a few objects."""
    random = np.random.default_rng(seed)
    true = scattered(objects, seed, (30, 300))[random.integers(0, objects, count)]
    moved = true + random.normal(0, 0.1, (count, 4)) * np.tile(true[:, 2:] - true[:, :2], 2)
    return np.concatenate([np.minimum(moved[:, :2], moved[:, 2:]), np.maximum(moved[:, :2], moved[:, 2:])], 1).astype(
        "f4"
    )


def side_by_side_grid(count):
    columns = int(np.ceil(np.sqrt(count)))
    corner = 8 * np.stack(np.divmod(np.arange(count), columns), axis=1)
    return np.concatenate([corner, corner + 7], axis=1).astype(np.float32)


def broadcast_iou(a, b):
    """Compare all pairs as a NumPy textbook does: whole arrays at every step."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = (high - low).clip(0).prod(axis=-1)
    areas = [(x[:, 2:] - x[:, :2]).prod(axis=-1) for x in (a, b)]
    return shared / (areas[0][:, None] + areas[1] - shared)


def bench_iou(n, m, rounds):
    a, b = scattered(n, 0, (10, 300)), scattered(m, 1, (10, 300))
    in_graph = tf.function(lambda x, y: keras.utils.bounding_boxes.compute_iou(x, y, "xyxy"))

    def on_numpy():
        with mock.patch.object(pairs, "_compiled", lambda measure: None):
            return boxes.iou(a, b)

    contestants = {
        "cvlab": lambda: boxes.iou(a, b),
        "cvlab without Keras": on_numpy,
        "keras compute_iou": lambda: np.asarray(keras.utils.bounding_boxes.compute_iou(a, b, "xyxy")),
        "keras compute_iou in tf.function": lambda: np.asarray(in_graph(a, b)),
    }
    if n * m < 10**7:  # beyond, it takes seconds and gigabytes
        contestants["numpy broadcasting"] = lambda: broadcast_iou(a, b)
    expected = contestants["keras compute_iou"]()
    for name, contestant in contestants.items():
        np.testing.assert_allclose(contestant(), expected, atol=1e-5, err_msg=name)
    title = f"IoU, {n:,} × {m:,} boxes"
    return title, _timing.side_by_side(contestants, rounds), "keras compute_iou"


def bench_nms(what, found, rounds, limit=None):
    scores = np.random.default_rng(2).permutation(len(found)).astype(np.float32) + 1
    most = limit or len(found)
    corners_and_sizes = boxes.convert(found, "xyxy", "xywh").tolist()  # as OpenCV wants them, made beforehand
    listed = scores.tolist()
    contestants = {
        "cvlab": lambda: boxes.nms(found, scores, THRESHOLD, limit),
        "tf.image.non_max_suppression": lambda: tf.image.non_max_suppression(found, scores, most, THRESHOLD).numpy(),
        "opencv NMSBoxes": lambda: cv2.dnn.NMSBoxes(corners_and_sizes, listed, 0.0, THRESHOLD)[:most],
    }
    kept = contestants["cvlab"]()
    np.testing.assert_array_equal(kept, contestants["tf.image.non_max_suppression"]())
    title = f"NMS, {len(found):,} boxes {what}, {len(kept):,} kept"
    return title, _timing.side_by_side(contestants, rounds), "tf.image.non_max_suppression"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed calls of each contestant (at least 7)")
    rounds = max(7, parser.parse_args().rounds)
    described = _timing.machine("numpy", "keras", "tensorflow", "tensorflow-cpu", "opencv-python-headless")
    grid, anywhere, crowded = side_by_side_grid(20_000), scattered(20_000, 0, (8, 200)), around_objects(20_000, 0)
    measured = []
    for bench in (
        lambda: bench_iou(2000, 2000, rounds),
        lambda: bench_iou(20_000, 2000, rounds),
        lambda: bench_iou(8525, 10, rounds),
        lambda: bench_nms("side by side", grid[:2000], rounds),
        lambda: bench_nms("side by side", grid, rounds),
        lambda: bench_nms("of all sizes", anywhere, rounds),
        lambda: bench_nms("around 100 objects", crowded, rounds),
        lambda: bench_nms("of all sizes, the first 100", anywhere, rounds, limit=100),
        lambda: bench_nms("of one place", np.tile(anywhere[:1], (20_000, 1)), rounds),
    ):
        title, times, reference = bench()
        _timing.table(title, times, reference)
        ratio = times["cvlab"]["median_ms"] / times[reference]["median_ms"]
        measured.append({"what": title, "peer": reference, "ratio": round(ratio, 3), "times": times})
    _timing.write("boxes", {"machine": described, "rounds": rounds, "measured": measured})


if __name__ == "__main__":
    main()
