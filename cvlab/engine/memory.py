"""A cache of network outputs, by network and image: the same weights and the same image give the same feature maps.

Lessons run the same images through a frozen body many times. Each image is cached separately, so that the outputs for
part of a dataset are available once the whole was computed.
"""

import collections
import hashlib
import json
import re
from typing import Any

import keras
import numpy as np

from .copies import all_layers

LIMIT = 600_000_000  # bytes in total; the least recently used outputs are dropped first


class Memory:
    """A cache of arrays by key, up to a number of bytes."""

    def __init__(self, limit=LIMIT):
        self.limit, self.size, self.kept = limit, 0, collections.OrderedDict()

    def get(self, key):
        """Return the arrays of a key, None if there are none."""
        if key in self.kept:
            self.kept.move_to_end(key)
        return self.kept.get(key)

    def put(self, key, arrays):
        """Store a list of arrays, and drop the least recently used ones beyond the limit."""
        size = sum(array.nbytes for array in arrays)
        if size > self.limit or key in self.kept:
            return
        self.kept[key] = [array.copy() for array in arrays]  # not views that keep a whole batch alive
        self.size += size
        while self.size > self.limit:
            _, dropped = self.kept.popitem(last=False)
            self.size -= sum(array.nbytes for array in dropped)


memory = Memory()


def model_key(model: "keras.Model") -> Any:
    """Compute a digest of everything that determines a model's outputs: its structure and its weights.

    Layer names are left out, since Keras numbers them anew for each model, and so are trainable flags. The result is
    None for a model whose configuration is not complete: one that is not a graph of layers, or contains a bare
    function, a vocabulary or a custom layer.
    """
    if not type(model).__module__.startswith("keras."):
        return None
    try:
        structure = json.dumps(model.get_config(), sort_keys=True, default=repr)
    except NotImplementedError:  # a custom layer without a configuration
        return None
    if " at 0x" in structure or '"Lambda"' in structure:
        return None
    layers = list(all_layers(model))
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
    """Compute a digest of each image of (N, H, W, C), from its values, shape and dtype."""
    kind = f"{images.shape[1:]} {images.dtype} "
    return [kind + hashlib.blake2b(np.ascontiguousarray(image), digest_size=16).hexdigest() for image in images]
