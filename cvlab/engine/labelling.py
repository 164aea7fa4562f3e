"""Label maps from an FCN, by its opened network with folded batch normalization, compiled once per model."""

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

from . import networks

if TYPE_CHECKING:
    import keras

_labellers: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # the model with label maps as outputs, by FCN


def label_maps(model: "keras.Model", images: np.ndarray, batch_size: int) -> Any:
    """Compute the most probable class of each pixel: (N, H, W, 3) → (N, H, W), as `segment.predict` says.

    Raises:
        ValueError: for scores that are not finite; it names the first layer to blame.
    """
    import keras

    if model not in _labellers:
        upsample = model.get_layer("enlarge")
        classes = type(upsample)(upsample.factor, classes=True)
        _labellers[model] = keras.Model(model.input, classes([upsample.input[0], model.input]))
    network = networks.laid_open(_labellers[model], "segment.predict")
    plan = network.plan(folds=True)

    def forward(x):
        values = plan.run({0: ops.cast(x, "float32")})
        scores = ops.cast(values[network.last.parents[0]], "float32")  # of cells, before they are upsampled
        return values[network.output], ops.sum(scores, axis=(1, 2, 3))

    labels, totals = plan.batched("predict", forward, batch_size, images)
    if not np.isfinite(totals).all():
        network.blame("segment.predict", "scores", totals)
    return labels
