"""Checkpoints of a detector, part by part: choose what is trained, save weights, and restore those that fit.

A part is a layer of the detector, such as its backbone or its box head. Lessons reach these functions through
`retinanet`.
"""

import dataclasses
import fnmatch
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import keras
from keras import layers, ops

from cvlab import data, files, zoo
from cvlab.engine import halves

if TYPE_CHECKING:
    from cvlab.retinanet import RetinaNetConfig

PARTS = ("backbone", "fpn", "box_head", "class_tower", "class_logits")


def weights(model: "keras.Model") -> dict:
    """Return the variables of a RetinaNet by name, which begins with the part: {"class_tower/class_0/kernel": …}."""
    return {f"{part}/{v.path}": v for part in PARTS for v in model.get_layer(part).weights}


def trainable(model: "keras.Model", like: str | Sequence[str] | None = None) -> dict:
    """List the trainable variables; with `like`, choose them first.

    Args:
        model: from `build`.
        like: one pattern or several, such as "class_*" or "box_head/*"; variables whose name (as in `weights`) fits
            none of them are frozen. None leaves the choice unchanged.

    Returns:
        dict of the trainable variables by name. Batch normalization is never among them, since a few small batches
        would spoil its statistics.

    Raises:
        ValueError: for a pattern that fits no variable.
    """
    named = weights(model)
    if like is not None:
        patterns = [like] if isinstance(like, str) else list(like)
        for pattern in patterns:
            if not fnmatch.filter(named, pattern):
                raise ValueError(
                    f"trainable: like={pattern!r} fits no variable; their names begin with "
                    f"{', '.join(f'{part}/' for part in PARTS)}"
                )
        frozen = [layer.variables for layer in zoo.all_layers(model) if not layer.trainable]
        frozen_ids = {id(variable) for variables in frozen for variable in variables}
        for name, variable in named.items():
            fits = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
            variable.trainable = fits and id(variable) not in frozen_ids
        model.compiled = False  # a compiled step trains the variables that were trainable at the time
        halves.forget_training(model)
    chosen = {id(variable) for variable in model.trainable_variables}
    return {name: variable for name, variable in named.items() if id(variable) in chosen}


def save(model: "keras.Model", path: str | Path | None) -> None:
    """Write a checkpoint, atomically: an HDF5 file with an array for each name in `weights`, kernels as float16.

    Raises:
        ValueError: for a path that does not end in .weights.h5.
    """
    import h5py

    if not str(path).endswith(".weights.h5"):
        raise ValueError(f"retinanet.save: path={path} does not end in .weights.h5")

    def write(part):
        with h5py.File(part, "w") as file:
            for name, variable in weights(model).items():
                array = ops.convert_to_numpy(variable)
                file.create_dataset(name, data=array.astype("float16") if array.ndim > 1 else array)

    write_whole(path, write)


@dataclasses.dataclass
class Restored:
    """The result of `restore`, with the names of variables as in `weights`.

    Attributes:
        model: the restored model.
        loaded: names of the variables that were loaded.
        skipped: names in the checkpoint that belong to parts that were not requested.
        misfits: {name: (shape in the checkpoint, shape in the model)}; a shape is None if that side lacks the name.
    """

    model: keras.Model
    loaded: list
    skipped: list
    misfits: dict

    def __str__(self):
        def by_part(names):
            counts = {part: sum(name.startswith(f"{part}/") for name in names) for part in PARTS}
            return ", ".join(f"{part} ({count})" for part, count in counts.items() if count) or "nothing"

        groups = {"loaded": self.loaded, "skipped": self.skipped, "did not fit": self.misfits}
        lines = [f"{title}: {by_part(names)}" for title, names in groups.items()]
        for name, (stored, expected) in self.misfits.items():
            lines.append(f"  {name}: {stored or 'not'} in the checkpoint, {expected or 'not'} in the model")
        return "\n".join(lines)

    __repr__ = __str__


def restore(checkpoint: str | Path, parts: Sequence[str] = PARTS, model: "keras.Model | None" = None) -> Restored:
    """Load parts of a checkpoint into a model, and report what was loaded, what was skipped and what did not fit.

    Variables that are not loaded keep their values.

    Args:
        checkpoint: path of a file that `save` wrote, or the name of one of the book's, such as "retinanet_toybox".
        parts: some of PARTS.
        model: from `build`; None builds the model of the configuration that lies beside the checkpoint, as .yml.

    Returns:
        Restored, with the model.

    Raises:
        ValueError: for an unknown part.
        DataError: for a file that is not a checkpoint of a RetinaNet.
        DataUnavailable: for a file that does not exist.
    """
    parts = [parts] if isinstance(parts, str) else list(parts)
    if unknown := [part for part in parts if part not in PARTS]:
        raise ValueError(f"restore: parts has {unknown[0]!r}, expected some of {', '.join(PARTS)}")
    path = Path(checkpoint) if str(checkpoint).endswith(".weights.h5") else data.weights(str(checkpoint))
    if not path.exists():
        raise files.DataUnavailable(f"restore: {path} does not exist; `save` writes such a file")
    if model is None:
        from cvlab.retinanet import build

        model = build(configuration(checkpoint), weights=None)
    arrays, variables, restored = _read_checkpoint(path), weights(model), Restored(model, [], [], {})
    for name in [*arrays, *(name for name in variables if name not in arrays)]:
        stored, expected = (tuple(side[name].shape) if name in side else None for side in (arrays, variables))
        if name.split("/")[0] not in parts:
            restored.skipped += [name] if stored is not None else []
        elif stored == expected:
            variables[name].assign(arrays[name].astype("float32"))
            restored.loaded.append(name)
        else:
            restored.misfits[name] = stored, expected
    for layer in zoo.all_layers(model.get_layer("backbone")) if "backbone" in parts else ():
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()  # it computes with what it derives from its weights, not with the weights
    return restored


def _read_checkpoint(path):
    """Read the arrays of a checkpoint: {name: array}."""
    import h5py

    try:
        with h5py.File(path) as file:
            names = []
            file.visit(names.append)
            arrays = {name: file[name][()] for name in names if isinstance(file[name], h5py.Dataset)}
    except OSError as error:
        raise files.DataError(f"restore: {path} is no checkpoint ({error})") from error
    if not any(name.split("/")[0] in PARTS for name in arrays):
        raise files.DataError(f"restore: {path} holds no weights of a RetinaNet; `retinanet.save` writes them")
    return arrays


def configuration(checkpoint: str | Path) -> "RetinaNetConfig":
    """Read the configuration that lies beside a checkpoint (a path, or the name of one of the book's), as .yml."""
    from cvlab.retinanet import RetinaNetConfig

    name = str(checkpoint)
    if name.endswith(".weights.h5"):
        return RetinaNetConfig.load(name.removesuffix(".weights.h5") + ".yml")
    return RetinaNetConfig.load(files.whole(f"weights/{name}.yml", f"configuration of {name}"))


def write_whole(path: str | Path, write: Callable) -> None:
    """Let `write` fill a temporary file beside `path`, and rename it to `path` when it is complete."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
