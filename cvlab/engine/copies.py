"""Copies of a backbone, whatever its layers: built again, checked, and cut at the feature maps of some strides."""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers


def all_layers(model: "keras.Model") -> list:
    """List the layers within a model (or a layer), nested ones included, each once and parents before children."""
    listed, waiting = {id(model): model}, [model]
    while waiting:
        holder = waiting.pop(0)
        # A custom layer keeps its sublayers as attributes, or in lists and dicts among them.
        attributes = holder.layers if isinstance(holder, keras.Model) else [v for _, v in sorted(vars(holder).items())]
        nested = [each for each in keras.tree.flatten(attributes) if isinstance(each, keras.Layer)]
        nested = [layer for layer in nested if id(layer) not in listed]
        listed.update((id(layer), layer) for layer in nested)
        waiting = nested + waiting
    return list(listed.values())[1:]


def clone(backbone: "keras.Model", with_weights: bool) -> "keras.Model":
    """Build a model again from its configuration, with the state of its preprocessing, and with its weights or without.

    Raises:
        ValueError: as `zoo.copy_body`, for custom layers.
    """
    body = keras.models.clone_model(backbone, clone_function=_copy_layer, recursive=True)
    if with_weights:
        body.set_weights(backbone.get_weights())
    _copy_preprocessing(backbone, body)
    if with_weights:
        _check_copy(backbone, body)
    return body


def _copy_layer(layer):
    """Rebuild a layer from its configuration, as Keras does, without weights yet."""
    if isinstance(layer, layers.Lambda):  # has no weights, and a configuration that Keras refuses to read
        return layer
    try:
        return type(layer).from_config(layer.get_config())
    except Exception as error:
        raise ValueError(
            f"copy_body: layer {layer.name!r}, a {type(layer).__name__}, can't be built again from its "
            "configuration; give it a get_config that names all arguments of its __init__, and let "
            "that take name, dtype and trainable as well (**options). "
            f"Keras says: {error}"
        ) from error


def _copy_preprocessing(backbone, body):
    """Copy the state of preprocessing layers, which they keep outside their weights."""
    for source, copy in zip(all_layers(backbone), all_layers(body), strict=True):
        if isinstance(source, layers.Normalization):
            copy.set_weights(source.get_weights())
            copy.mean, copy.variance = source.mean, source.variance
        elif isinstance(source, layers.Discretization):
            copy.bin_boundaries = source.bin_boundaries
        elif hasattr(source, "get_vocabulary"):
            copy.set_vocabulary(source.get_vocabulary())


def _check_copy(backbone, body):
    """Check on random pixels that a copy with custom layers computes what the backbone computes."""
    custom = [layer for layer in all_layers(backbone) if not type(layer).__module__.startswith("keras.")]
    if not custom:
        return
    shape = [side or 256 for side in backbone.inputs[0].shape[1:]]
    pixels = np.random.default_rng(0).uniform(0, 255, (1, *shape)).astype(np.float32)
    first, again, copied = (_float_maps(model, pixels) for model in (backbone, backbone, body))
    scale = np.abs(first).max()
    if np.abs(first - again).max() <= 1e-4 * scale < np.abs(first - copied).max():
        names = ", ".join(f"{layer.name!r} ({type(layer).__name__})" for layer in custom)
        raise ValueError(
            f"copy_body: the copy of {backbone.name} gives other maps than the original. One of its "
            f"layers {names} holds a state that is neither among its weights nor in its get_config; make "
            "it a weight (add_weight), or let get_config and __init__ carry it"
        )


def _float_maps(model, pixels):
    return keras.ops.convert_to_numpy(keras.ops.cast(model(pixels, training=False), "float32"))


def with_strides(body: "keras.Model", strides: Sequence[int], name: str) -> "keras.Model":
    """Give the model whose outputs are the last feature map of each stride; its name is `name`.

    Raises:
        ValueError: for a stride that no map has.
    """
    maps, backbone_name = [], body.name

    def call_and_record(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        maps.extend(tensor for tensor in keras.tree.flatten(outputs) if len(tensor.shape) == 4)
        return outputs

    # The same layers are called once more: for a layer that is called twice, `layer.output` is the first output only.
    body = keras.models.clone_model(
        keras.Model(body.inputs[0], body.outputs[0]), clone_function=lambda layer: layer, call_function=call_and_record
    )
    maps = [body.inputs[0], *maps]
    sizes = [shape[1:3] for shape in keras.Model(body.inputs[0], maps).compute_output_shape((1, 256, 256, 3))]
    last = {256 // size[0]: map_ for size, map_ in zip(sizes, maps) if size[0] and 256 % size[0] == 0}
    if missing := [stride for stride in strides if stride not in last]:
        nested = [layer.name for layer in body.layers if hasattr(layer, "layers")]
        hint = f"; the maps within {', '.join(nested)} can't be reached: give that model itself" if nested else ""
        raise ValueError(
            f"copy_body: {backbone_name} has no feature map of stride {missing[0]}; it has "
            f"{', '.join(map(str, sorted(last)))}{hint}"
        )
    return keras.Model(body.inputs[0], [last[stride] for stride in strides], name=name)
