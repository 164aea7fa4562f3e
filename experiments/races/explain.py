"""cvlab.explain beside its peers: `python -m experiments.races.explain`, from the project's root, on a quiet machine.

Needs `pip install --no-deps xplique tf-keras-vis` beside the book's requirements. Every contestant explains the same
logits, of ImageNet networks with random weights; takes NumPy arrays and gives NumPy arrays.
"""

import argparse
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from tf_keras_vis import gradcam, saliency
from tf_keras_vis.utils.scores import CategoricalScore
from xplique import attributions

from cvlab import explain

from .. import _timing

PICTURES, SIDE, SAMPLES = 16, 224, 16
MODELS = {"MobileNetV2": keras.applications.MobileNetV2, "ResNet50": keras.applications.ResNet50}
BARS = {  # how long cvlab may take, as a share of each peer's time
    "saliency": {"hand-written tf.function": 0.9, "xplique": 1.0, "tf-keras-vis": 0.5},
    "grad_cam": {"bare forward pass": 1.1, "xplique": 1.0},
    "smooth_grad": {"xplique": 0.75},
}


def contestants_of(model, method):
    random = np.random.default_rng(0)
    images = random.uniform(-1, 1, (PICTURES, SIDE, SIDE, 3)).astype(np.float32)
    classes = random.integers(0, 1000, PICTURES)
    targets, scores = np.eye(1000, dtype=np.float32)[classes], CategoricalScore(classes.tolist())

    @tf.function
    def gradient(x, targets):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(x)
            score = tf.reduce_sum(model(x, training=False) * targets)
        return tape.gradient(score, x)

    @tf.function
    def hand_written(x, targets):
        return tf.reduce_sum(tf.abs(gradient(x, targets)), axis=-1)

    forward = tf.function(lambda x: model(x, training=False))
    by_keras_vis = {"model_modifier": None, "clone": False}
    if method == "saliency":
        reference = gradient(tf.constant(images), tf.constant(targets)).numpy()
        off = np.linalg.norm(explain.saliency(model, images, classes, raw=True) - reference) / np.linalg.norm(reference)
        assert off < 0.01, f"the gradients are {off:.3f} of their norm apart"  # a ReLU at 0 may fall to either side
        peer, vis = attributions.Saliency(model, batch_size=PICTURES), saliency.Saliency(model, **by_keras_vis)
        return {
            "cvlab": lambda: explain.saliency(model, images, classes),
            "hand-written tf.function": lambda: hand_written(tf.constant(images), tf.constant(targets)).numpy(),
            "xplique": lambda: peer.explain(images, targets).numpy(),
            "tf-keras-vis": lambda: np.asarray(vis(scores, images)),
        }
    if method == "grad_cam":
        own = keras.models.clone_model(model)  # xplique changes the layer that it watches
        own.set_weights(model.get_weights())
        peer = attributions.GradCAM(own, batch_size=PICTURES, conv_layer=model.layers[-3].name)
        vis = gradcam.Gradcam(model, **by_keras_vis)
        return {
            "cvlab": lambda: explain.grad_cam(model, images, classes),
            "bare forward pass": lambda: forward(tf.constant(images)).numpy(),
            "xplique": lambda: peer.explain(images, targets).numpy(),
            "tf-keras-vis": lambda: np.asarray(vis(scores, images)),
        }
    peer = attributions.SmoothGrad(model, batch_size=PICTURES, nb_samples=SAMPLES, noise=0.15 * np.ptp(images))
    return {
        "cvlab": lambda: explain.smooth_grad(model, images, classes, SAMPLES),
        "xplique": lambda: peer.explain(images, targets).numpy(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed calls of each contestant")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--methods", nargs="+", default=list(BARS), choices=BARS)
    args = parser.parse_args()
    path = _timing.RESULTS / "explain.json"
    known = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
    for name in args.models:
        keras.utils.set_random_seed(0)
        model = MODELS[name](weights=None, classifier_activation=None)
        for method in args.methods:
            described = _timing.machine("numpy", "keras", "tensorflow", "tensorflow-cpu", "xplique", "tf-keras-vis")
            times = _timing.side_by_side(contestants_of(model, method), args.rounds, warm_up=1)
            first = next(iter(BARS[method]))
            _timing.table(f"{method}, {name}, {PICTURES} pictures of {SIDE}×{SIDE}", times, first)
            ratios = {peer: round(times["cvlab"]["median_ms"] / times[peer]["median_ms"], 3) for peer in BARS[method]}
            row = {"model": name, "method": method, "rounds": args.rounds, "ratios": ratios, "times": times}
            known = [old for old in known if (old["model"], old["method"]) != (name, method)]
            known.append(row | {"machine": described})
            _timing.write(
                "explain", {"pictures": PICTURES, "side": SIDE, "samples": SAMPLES, "bars": BARS, "rows": known}
            )


if __name__ == "__main__":
    main()
