"""Time our RetinaNet beside keras-hub's: one training step, and decoding with suppression, on the same body and levels.

    pip install --no-deps keras-hub "kagglehub<0.4" regex tokenizers    # not among the project's requirements
    python -m experiments.races.retinanet    # eight minutes on two busy cores; writes results/retinanet.json

ResNet-18 from keras-hub, 256×256, levels P3 to P7, 256 channels, heads of four convolutions, 20 classes, batches of 4,
random weights, batch normalization learning in both. With `use_p5=True`, which is where P6 comes from the body's last
map, as in the paper and in ours, their network has the same layers, and as many parameters. A step is what each needs
from pictures and boxes to new weights: theirs matches anchors in the graph, ours in NumPy before it. Their step is the
compiled function alone, without `fit` around it; ours is `classify.optimize`, which also clears Adam's memory once in
STEPS steps. Their decoder is timed compiled, too, on the outputs of one and the same network.

Nearly all of a step is convolutions, two thirds of their products in the heads. Without `winograd`, on two busy cores,
matching took 0.3 % of it and both losses with their gradients 0.6 %, and what else is not forward or backward, Adam
among it, about 3 %. So little is to be won around them: with the four coarser levels on one canvas, the kernels of the
heads alone took 1 to 4 % less on one core, and with all five on one more. `convolution.winograd` needs fewer products
for the same sums. "direct" is ours without it; "small" is ours with the default heads of a configuration, of 96
channels and two convolutions, which is another network and no comparison with theirs.
"""

import functools
from unittest import mock

import keras
import numpy as np

from cvlab import backend, classify, retinanet
from cvlab.engine import convolution

from .._timing import machine, side_by_side, table, write
from ._peers import resnet18

SIDE, BATCH, CLASSES, STEPS = 256, 4, 20, 2


def theirs():
    """Build keras-hub's detector, compiled with the losses that it comes with."""
    import keras_hub

    body = keras_hub.models.RetinaNetBackbone(resnet18(SIDE), 3, 7, use_p5=True, image_shape=(SIDE, SIDE, 3))
    model = keras_hub.models.RetinaNetObjectDetector(body, CLASSES, bounding_box_format="xyxy")
    model.compile(keras.optimizers.Adam(1e-4), jit_compile=False)
    return model


def ours(**heads):
    """Build our detector on the same body, with heads like theirs."""
    names = tuple(f"class {i}" for i in range(CLASSES))
    config = retinanet.RetinaNetConfig(
        names, "resnet50", SIDE, (8, 16, 32, 64, 128), (32, 64, 128, 256, 512), **{"channels": 256, "depth": 4, **heads}
    )
    source = resnet18(SIDE)
    body = keras.Model(source.input, [source.pyramid_outputs[level] for level in ("P3", "P4", "P5")], name="backbone")
    return retinanet.build(config, body=body)


def batch(generator):
    """Draw pictures of noise and three boxes in each."""
    images = generator.uniform(0, 255, (BATCH, SIDE, SIDE, 3)).astype("float32")
    corner, size = generator.uniform(0, 150, (BATCH, 3, 2)), generator.uniform(30, 100, (BATCH, 3, 2))
    return images, np.float32(np.concatenate([corner, corner + size], -1)), generator.integers(0, CLASSES, (BATCH, 3))


def direct(maps, kernel):
    """Stand in for `convolution.winograd`: the backend's own convolution."""
    return keras.ops.conv(maps, kernel, padding="same")


def main():
    backend.set_seed(0)
    generator = np.random.default_rng(0)
    images, true_boxes, labels = batch(generator)
    target = {"boxes": true_boxes, "labels": labels.astype("float32")}
    reference = theirs()
    models = {"cvlab": ours(), "cvlab, direct": ours(), "cvlab, small": ours(channels=96, depth=2)}
    counts = {"keras-hub": reference.count_params()} | {name: model.count_params() for name, model in models.items()}
    print(counts)
    reference.make_train_function()
    stream = iter(repeat(images, target))

    def their_steps():
        for _ in range(STEPS):
            loss = float(keras.tree.flatten(reference.train_function(stream))[0])
        return loss

    losses, sizes, model = retinanet._losses(2.0, 0.25), [(SIDE, SIDE)] * BATCH, models["cvlab"]

    def draw(rows, generator):
        return images, retinanet.targets(model.config, true_boxes, labels, sizes)

    our_steps = {
        name: functools.partial(classify.optimize, net, losses, draw, BATCH, STEPS, 1e-4, BATCH)
        for name, net in models.items()
    }
    with mock.patch.object(convolution, "winograd", direct):
        our_steps["cvlab, direct"]()  # which compiles it
    steps = side_by_side({"keras-hub": their_steps, **our_steps}, rounds=5)
    steps = {name: {key: round(ms / STEPS, 3) for key, ms in times.items()} for name, times in steps.items()}
    table("a training step of 4 pictures", steps, "keras-hub")

    logits = generator.normal(-5, 1.5, (BATCH, len(model.config.anchors()), CLASSES)).astype("float32")
    offsets = generator.normal(0, 1, (*logits.shape[:2], 4)).astype("float32")
    anchors, scale = model.config.anchors(), np.float32(retinanet.VARIANCES)
    outputs = {
        "bbox_regression": keras.ops.convert_to_tensor(offsets * scale),
        "cls_logits": keras.ops.convert_to_tensor(logits),
    }
    decode = backend.jit(lambda out: reference.decode_predictions(out, images))

    def their_boxes():
        return keras.tree.map_structure(np.asarray, decode(outputs))

    def our_boxes():
        return [retinanet.suppress(z, d, anchors, candidates=1000) for z, d in zip(logits, offsets)]

    decoding = side_by_side({"keras-hub": their_boxes, "cvlab": our_boxes}, rounds=21)
    table("decoding and suppression of 4 pictures", decoding, "keras-hub")
    write(
        "retinanet",
        {
            "command": "python -m experiments.races.retinanet",
            "machine": machine("keras", "keras-hub", "tensorflow-cpu", "numpy"),
            "parameters": counts,
            "step": steps,
            "decoding": decoding,
        },
    )


def repeat(images, target):
    """Give Keras the same batch for ever."""
    while True:
        yield images, target


if __name__ == "__main__":
    main()
