"""Measure how the detector that the lesson on RetinaNet builds in view compares with `cvlab`'s, over several seeds.

    python -m experiments.built    # ten minutes on two CPU cores; goes on where it stopped; writes results/built.json

The lesson's own cells are executed, with the parameters of its parameters cell: they build, train and decode. From the
same first weights, `retinanet.train` takes the same number of steps with the same learning rates, on the same images in
the same order, and `retinanet.detect` decodes. Both are scored on the lesson's test images. Only rounding differs, but
over hundreds of steps it grows until the two detectors are as different as those of two seeds.
"""

import argparse
import hashlib
import json
from pathlib import Path

from cvlab import data, retinanet

from ._timing import resume, write_rows

NOTEBOOK = Path(__file__).parents[1] / "chapters" / "week2" / "retinanet.ipynb"
# Ids of the lesson's cells
PARAMETERS, IMPORTS = "8e57fd63", "fa338cd8"
PARTS = ("740fa38d", "ret_layout", "294942af", "49db8f58", "667bd2da", "ret_fpn", "ret_head", "120f58cc-1", "120f58cc")
COPY = "f0905684_2"  # builds cvlab's RetinaNet with the weights of the one built in view
LOSSES, COMPILE, TRAIN = ("4306047e", "ret_boxloss", "ret_losses"), "ret_compile", "ret_train"
DECODE = ("99e2c216", "99e2c216_2")
ALL = (PARAMETERS, IMPORTS, *PARTS, COPY, *LOSSES, COMPILE, TRAIN, *DECODE)
SEEDED = {IMPORTS: "set_seed(0)", TRAIN: "default_rng(0)"}  # of the first weights, of the order of the images


def read_cells():
    """Read the lesson's cells: {id: source}."""
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    sources = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    for name in ALL:
        if name not in sources or SEEDED.get(name, "") not in sources[name]:
            raise SystemExit(
                f"{NOTEBOOK}: expected a cell {name!r}" + (f" with {SEEDED[name]}" if name in SEEDED else "")
            )
    return {name: sources[name] for name in ALL}


def plan(seeds, cells):
    """List what is measured, a dict for each seed; when the lesson's code changes, all are measured again."""
    code = hashlib.sha256("\n".join(cells.values()).encode()).hexdigest()[:12]
    return [{"seed": seed, "code": code} for seed in range(seeds)]


def measure(seed, cells):
    """Train both detectors from the same first weights, and score them on the lesson's test images."""
    lesson = {}

    def execute(*names):
        for name in names:
            seeded = SEEDED.get(name, "")
            source = cells[name].replace(seeded, seeded.replace("0", str(seed))) if seeded else cells[name]
            exec(compile(source, f"<cell {name}>", "exec"), lesson)

    execute(PARAMETERS, IMPORTS, *PARTS)
    train, test = lesson["train"], lesson["test"]
    settings = {name: lesson[name] for name in ("strides", "anchor_sizes", "channels")}
    lesson["config"] = retinanet.RetinaNetConfig(train.class_names, input_size=lesson["side"], depth=1, **settings)
    lesson["network"], lesson["inputs"] = lesson["retina_net"], lesson["train_maps"]
    execute(COPY, *LOSSES, COMPILE, TRAIN, *DECODE)
    model, options = lesson["model"], {name: lesson[name] for name in ("steps", "learning_rate", "batch_size")}
    history = retinanet.train(model, train.images, train.boxes, train.labels, seed=seed, **options)
    found = {"built": lesson["detect"](test.images), "cvlab": retinanet.detect(model, test.images)}
    losses = {"built": lesson["losses"], "cvlab": history["loss"]}
    row = {"images": len(test), "steps": options["steps"]}
    for name, detections in found.items():
        scores = retinanet.scores(detections, test.boxes, test.labels, test.class_names, **test.ignored())
        row[name] = {key: round(scores[key], 4) for key in ("AP", "AP50")}
        row[name] |= {"first loss": round(losses[name][0], 5), "last loss": round(losses[name][-1], 5)}
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=int, help="measure at most so many seeds now")
    options = parser.parse_args()
    cells, sha256 = read_cells(), data.manifest()["toybox/scenes.zip"]["sha256"]
    rows, todo = resume("built", plan(options.seeds, cells), sha256)
    for run in todo[: options.limit]:
        rows.append(run | measure(run["seed"], cells))
        print(json.dumps(rows[-1]), flush=True)
        write_rows("built", rows, sha256, data="scenes")


if __name__ == "__main__":
    main()
