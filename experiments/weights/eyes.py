"""Train the two classifiers of `eyes` in `data/weights`: one that knows cat and dog by the eyes alone, one mended.

    python -m experiments.weights.eyes    # trains both, tests them, and exports their weights
    python -m experiments.weights.eyes --help

The training is that of `experiments/eyes.py`, which measures it for several seeds: the last stage of CIFAR-10's
ResNet-20 and a new classifier learn, on `train`, or on `train` and `mended_train`.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from cvlab import classify

from .. import eyes
from ._export import export

NAMES = {"train": "resnet20_eyes", "mended": "resnet20_eyes_mended"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    parts = {split: eyes.load(split) for split in {*sum(eyes.TRAINED_ON.values(), ()), *eyes.TESTED_ON}}
    for trained_on, name in NAMES.items():
        run = {"trained on": trained_on, "steps": eyes.STEPS[trained_on], "seed": options.seed}
        model, _ = eyes.train(run, parts)
        whole = classify.resnet20(weights=None, num_classes=2)
        whole.set_weights(model.get_weights())
        path = export(whole, name, "Apache-2.0")
        exported = classify.resnet20(weights=path, num_classes=2)
        print(f"wrote {path}")
        for row in (row for split in eyes.TESTED_ON for row in eyes.test(exported, parts[split], options.seed)):
            print(f"  {row}")


if __name__ == "__main__":
    main()
