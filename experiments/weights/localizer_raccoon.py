"""Train the two heads of `data/weights` that find a raccoon in a photograph.

    python -m experiments.weights.localizer_raccoon    # a minute on two CPU cores; writes the weights and the manifest

One of the trainings of `experiments.localize`, that with seed 0: a frozen EfficientNet-Lite0 at 224×224 pixels, the
`votes` head, and the photographs that come with the book. The backbone's weights lie beside, so the heads alone are
kept.
"""

from cvlab import classify, localize
from experiments.localize import SIDES, plan, test, train

from . import _export

DATA = "raccoon_small"


def main():
    run = next(run for run in plan(1) if run["data"] == DATA)
    parts = {split: localize.load(DATA, split, size=SIDES[DATA]) for split in ("train", run["split"])}
    backbone, cached = classify.efficientnet_lite0(include_top=False), {}
    model, seconds = train(run, backbone, parts["train"], cached)
    maps = localize.maps(model, parts[run["split"]].images)
    print(f"{seconds:.0f} seconds; {run['split']}: {test(model, parts[run['split']], maps)}")
    new = localize.regressor(backbone, None, "frozen", run["input_size"], head=run["head"])
    new.get_layer("heads").set_weights(model.get_layer("heads").get_weights())  # and not the optimizer's state
    path = _export.export(new.get_layer("heads"), "localizer_raccoon", "Apache-2.0")
    model.get_layer("heads").load_weights(path)
    print(f"{path}: {path.stat().st_size:,} bytes; read again: {test(model, parts[run['split']], maps)}")


if __name__ == "__main__":
    main()
