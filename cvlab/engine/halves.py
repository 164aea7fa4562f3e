"""A RetinaNet in two halves: what training doesn't change is computed once, and its outputs are kept.

Each half is built, and so compiled, once per model.
"""

import weakref
from typing import TYPE_CHECKING

import keras
from keras import layers

if TYPE_CHECKING:
    from collections.abc import Callable

_halves: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # of each model, by the function that cut it


def at_levels(model: "keras.Model") -> tuple:
    """Cut a RetinaNet at the levels of its pyramid: (model from levels to outputs, model from pixels to levels)."""
    return _once(model, _cut_at_levels)


def at_last_layer(model: "keras.Model") -> tuple:
    """Cut what follows the levels before the class head's last layer.

    Returns:
        (model from the class towers' maps and all offsets to outputs, model from levels to these).
    """
    return _once(model, _cut_at_last_layer)


def forget_training(model: "keras.Model") -> None:
    """Have the halves compiled anew: a compiled training step trains what was trainable then."""
    for upper, _ in _halves.get(model, {}).values():
        upper.compiled = False


def _once(model: "keras.Model", cut: "Callable"):
    halves = _halves.setdefault(model, {})
    if cut not in halves:
        halves[cut] = cut(model)
    return halves[cut]


def _cut_at_levels(model):
    from cvlab.retinanet import PARTS, head_outputs

    config = model.config
    pixels = keras.Input((config.input_size,) * 2 + (3,))
    levels = keras.tree.flatten(model.get_layer("fpn")(keras.tree.flatten(model.get_layer("backbone")(pixels))))
    inputs = [keras.Input(level.shape[1:]) for level in levels]
    heads = [model.get_layer(part) for part in PARTS[2:]]
    return keras.Model(inputs, head_outputs(config, inputs, *heads)), keras.Model(pixels, levels)


def _cut_at_last_layer(model):
    from cvlab.retinanet import PARTS, in_anchor_order

    box_head, class_tower, class_logits = (model.get_layer(part) for part in PARTS[2:])
    levels = [keras.Input(level.shape[1:]) for level in at_levels(model)[1].outputs]
    offsets = in_anchor_order([box_head(level) for level in levels], 4, "box")
    towers = [class_tower(level) for level in levels]
    tower_inputs, offset_input = [keras.Input(each.shape[1:]) for each in towers], keras.Input(offsets.shape[1:])
    logits = in_anchor_order([class_logits(each) for each in tower_inputs], len(model.config.class_names), "class")
    outputs = {"class": logits, "box": layers.Identity(name="box")(offset_input)}
    return keras.Model([*tower_inputs, offset_input], outputs), keras.Model(levels, [*towers, offsets])
