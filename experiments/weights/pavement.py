"""Train the two classifiers "a car, or another toy?" of `data/weights`: before and after the data was mended.

    python -m experiments.weights.pavement    # trains, or goes on where it stopped, then exports those of seed 0
    python -m experiments.weights.pavement --help

`resnet20_pavement` learns from cars that always stand on pavement, and other toys that never do;
`resnet20_pavement_mended` from as many pictures in which the ground says nothing. All else is the same: ResNet-20 from
its CIFAR-10 weights, fine-tuned at 48×48. `python -m experiments.pavement` measures the models of all seeds.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from cvlab import backend, classify, data

from ._export import export

BUILD = Path(__file__).resolve().parents[2] / ".build" / "pavement"
SPLITS = {"resnet20_pavement": "train", "resnet20_pavement_mended": "mended_train"}
SIZE = 48  # half of the pictures' own, for a quarter of the work


def train(name, seed, steps, learning_rate, batch_size):
    """Fine-tune ResNet-20 on the split of this name: a flat model that gives (other, car)."""
    part = data.load("pavement", SPLITS[name], size=SIZE)
    is_car = part.labels == part.class_names.index("car")
    backend.set_seed(seed)
    model = classify.transfer(classify.backbone("resnet20"), 2, "fine_tune")
    trained = classify.train(
        model, part.images, is_car.astype(int), steps, learning_rate, batch_size, classify.augment, seed
    )
    print(f"{name}, seed {seed}: {steps} steps in {trained['seconds']:.0f} s, last loss {trained['loss'][-1]:.3f}")
    flat = classify.resnet20(weights=None, num_classes=2)
    flat.set_weights(model.get_weights())
    return flat


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for name in SPLITS:
            kept, part = BUILD / f"{name}_{seed}.weights.h5", BUILD / "part.weights.h5"
            if not kept.exists():
                train(name, seed, options.steps, options.learning_rate, options.batch_size).save_weights(part)
                os.replace(part, kept)
    for name in SPLITS:
        print(f"wrote {export(classify.resnet20(BUILD / f'{name}_0.weights.h5', num_classes=2), name, 'Apache-2.0')}")


if __name__ == "__main__":
    main()
