"""What a network gave for an image before: the same weights and the same image give the same maps again.

Lessons look at the same images many times through a body that does not learn. Each image is kept by itself, so that a
part of a dataset is known where the whole was seen.
"""

import collections
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

LIMIT = 600_000_000  # bytes in all; what was used longest ago goes first


class Memory:
    """Arrays by key, up to a number of bytes."""

    def __init__(self, limit=LIMIT):
        self.limit, self.size, self.kept = limit, 0, collections.OrderedDict()

    def get(self, key):
        """Give what is kept under a key, None where nothing is."""
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key, arrays):
        """Keep a list of arrays, and let go of what was used longest ago where there is no more room."""
        size = sum(array.nbytes for array in arrays)
        if size > self.limit or key in self.kept:
            return
        self.kept[key] = [array.copy() for array in arrays]  # not a view that holds a whole batch
        self.size += size
        while self.size > self.limit:
            _, gone = self.kept.popitem(last=False)
            self.size -= sum(array.nbytes for array in gone)


memory = Memory()


def model_key(model: "keras.Model") -> Any:
    """Give a digest of all that decides what a built model gives: its structure and its weights.

    Names don't count, since Keras numbers them anew for each model that is built, nor does what may be trained. None
    for a model whose configuration does not say all: one that is no graph of layers, or holds a bare function, a
    vocabulary or a layer of the reader's own.
    """
    import keras

    from cvlab import zoo

    if not type(model).__module__.startswith("keras."):
        return None
    try:
        structure = json.dumps(model.get_config(), sort_keys=True, default=repr)
    except NotImplementedError:  # a layer of the reader's own that can't be written down
        return None
    if " at 0x" in structure or '"Lambda"' in structure:
        return None
    layers = list(zoo.all_layers(model))
    ours = ("keras.", "cvlab.")
    if any(hasattr(layer, "get_vocabulary") or not type(layer).__module__.startswith(ours) for layer in layers):
        return None
    names = dict.fromkeys([model.name, *re.findall(r'"name": "([^"]*)"', structure)])
    for number, name in enumerate(names):
        structure = structure.replace(f'"{name}"', f'"#{number}"')
    structure = re.sub(r'"trainable": (true|false)', "", structure)
    digest = hashlib.blake2b(structure.encode(), digest_size=16)
    normalizations = [layer for layer in layers if isinstance(layer, keras.layers.Normalization)]
    adapted = [keras.ops.convert_to_numpy(part) for layer in normalizations for part in (layer.mean, layer.variance)]
    for array in [*model.get_weights(), *adapted]:
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()


def image_keys(images: np.ndarray) -> list[str]:
    """Give a digest of each image of (N, H, W, C), of its values, shape and dtype."""
    kind = f"{images.shape[1:]} {images.dtype} "
    return [kind + hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).hexdigest() for image in images]
