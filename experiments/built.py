"""Measure how the detector that the lesson on RetinaNet builds in view compares with `cvlab`'s, over several seeds.

    python -m experiments.built    # six minutes on two CPU cores; goes on where it stopped; writes results/built.json

The lesson's own cells are executed, with the parameters of its parameters cell: they build, train and decode. From the
same first weights, `retinanet.train` takes as many steps of the same size, on the same images in the same order, and
`retinanet.detect` decodes. Both are scored on the same 100 test images. What is left between them is rounding, which
hundreds of steps amplify: on scenes, a difference in AP50 of 0.01 is one object in a hundred.
"""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from cvlab import backend, data, retinanet

from ._timing import machine, resume, write

NOTEBOOK = Path(__file__).parents[1] / "chapters" / "week2" / "retinanet.ipynb"
BEFORE_TRAINING = (  # ids of cells: parameters, imports and data; anchors, targets, network, losses
    *("8e57fd63", "fa338cd8", "740fa38d", "ret_layout", "294942af", "49db8f58", "667bd2da", "ret_fpn", "ret_head"),
    *("120f58cc-1", "120f58cc", "4306047e", "ret_boxloss", "ret_losses", "ret_compile"),
)
COPY = "f0905684_2"  # makes `model`, cvlab's RetinaNet with the same weights, from `config`
TRAINING = "ret_train"
DECODING = ("99e2c216", "99e2c216_2")
SEED = "default_rng(0)"  # of the order of the images, in TRAINING
FIRST_SEED = "set_seed(0)"  # of the first weights, in the cell of the imports


def cells():
    """Read the lesson's code: {id: source} of the cells that are executed."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    sources = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    wanted = (*BEFORE_TRAINING, COPY, TRAINING, *DECODING)
    if missing := [name for name in wanted if name not in sources]:
        raise SystemExit(f"{NOTEBOOK.name} has no cell {missing[0]!r}; its new id belongs into {Path(__file__).name}")
    return {name: sources[name] for name in wanted}


def plan(seeds, sources):
    """List what is measured, a dict for each seed; another code in the lesson is another measurement."""
    code = hashlib.sha256("\n".join(sources.values()).encode()).hexdigest()[:12]
    return [{"seed": seed, "code": code} for seed in range(seeds)]


def measure(seed, sources):
    """Train both detectors from the same first weights, and score them on the lesson's test images."""
    lesson = {}

    def execute(name, *replaced):
        source = sources[name]
        if replaced and replaced[0] not in source:
            raise SystemExit(f"{NOTEBOOK.name}, cell {name}: expected {replaced[0]} in it, to use another seed")
        exec(compile(source.replace(*replaced) if replaced else source, f"cell {name}", "exec"), lesson)

    for name in BEFORE_TRAINING:
        if name == "fa338cd8":
            execute(name, FIRST_SEED, f"set_seed({seed})")
        else:
            execute(name)
    side, test, train = lesson["side"], lesson["test"], lesson["train"]
    lesson["network"], lesson["inputs"] = lesson["retina_net"], lesson["train_maps"]
    lesson["config"] = retinanet.RetinaNetConfig(
        train.class_names,
        input_size=side,
        strides=lesson["strides"],
        anchor_sizes=lesson["anchor_sizes"],
        channels=lesson["channels"],
        depth=1,
    )
    execute(COPY)
