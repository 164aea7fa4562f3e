"""Train the AlexNet and the ZFNet of `data/weights`, by one recipe: on photographs first, then on toys.

    python -m experiments.weights.zfnet    # trains, or goes on where it stopped, then exports the weights
    python -m experiments.weights.zfnet --help

Two stages of AdamW, each with a warm-up and a learning rate that falls along a cosine. The first stage names CIFAR-10's
pictures, enlarged to 64×64; from the toys alone networks without batch normalization learned little in the same time.
The second stage gets a new last layer and names toys at 96×96: the pictures of `objects` (train), and the toys of
`scenes` (train) that are wide enough, cut out with what surrounds them. Each time a picture is seen it is zoomed,
shifted, mirrored and tinted another way.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras
import numpy as np

from cvlab import backend, classify, data

from ._export import export

BUILD = Path(__file__).resolve().parents[2] / ".build" / "zfnet"
NETWORKS = {"alexnet": classify.alexnet, "zfnet": classify.zfnet}
STAGES = (  # data, side, steps, pictures a step, learning rate
    ("cifar10", 64, 1000, 128, 1.5e-3),
    ("toys", 96, 600, 64, 1e-3),
)
ROUND, DECAY = 50, 0.05
WIDE = 28  # pixels: toys of `scenes` whose box is smaller are left out


def views(name):
    """List what is learned from: (picture, x and y of the middle, side of the square to see, label)."""
    if name == "cifar10":
        part = data.load("cifar10", "train")
        return [(image, 16, 16, 32, label) for image, label in zip(part.images, part.labels)]
    objects, scenes = data.load("objects", "train"), data.load("scenes", "train")
    every = [(image, 48, 48, 96, label) for image, label in zip(objects.images, objects.labels)]
    for image, boxes, labels in zip(scenes.images, scenes.boxes, scenes.labels):
        for (x0, y0, x1, y1), label in zip(boxes, labels):
            if (side := max(x1 - x0, y1 - y0)) >= WIDE:
                every.append((image, (x0 + x1) / 2, (y0 + y1) / 2, 1.5 * side, label))
    return every


def change(view, side, generator):
    """Draw one way to see a view → (side, side, 3) uint8."""
    image, x, y, square, _ = view
    square = square * np.exp(generator.uniform(-0.3, 0.15))
    x, y = (centre + generator.uniform(-0.1, 0.1) * square for centre in (x, y))
    scale, mirror = side / square, generator.choice((-1, 1))
    turn = np.float32([[mirror * scale, 0, side / 2 - mirror * scale * x], [0, scale, side / 2 - scale * y]])
    seen = cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    gain = np.exp(generator.normal(0, 0.15) + generator.normal(0, 0.08, 3))
    return np.clip(seen * gain + generator.normal(0, 8), 0, 255).astype(np.uint8)


def compiled(name, num_classes, steps, learning_rate, body=None):
    """Build a network for so many steps, with the convolutions of another one where it is given."""
    model = NETWORKS[name](weights=None, num_classes=num_classes)
    if body is not None:
        model.set_weights(body.get_weights()[:-2] + model.get_weights()[-2:])
    schedule = keras.optimizers.schedules.CosineDecay(
        learning_rate / 10, steps - steps // 12, warmup_target=learning_rate, warmup_steps=steps // 12
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=DECAY, global_clipnorm=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def train(name, seed=0):
    """Train a network through both stages, with a checkpoint after each round of steps; give it."""
    folder = BUILD / f"{name}_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    backend.set_seed(seed)
    model, stage, start = None, 0, 0
    if checkpoints := sorted(folder.glob("*.keras")):
        model, (stage, start) = keras.saving.load_model(checkpoints[-1]), map(int, checkpoints[-1].stem.split("_"))
        model.optimizer.exclude_from_weight_decay(var_names=["bias"])
    for number, (source, side, steps, batch, learning_rate) in list(enumerate(STAGES))[stage:]:
        begin = start if number == stage else 0
        every = views(source) if begin < steps else None
        if begin == 0:
            model = compiled(name, 1 + int(max(view[-1] for view in every)), steps, learning_rate, model)
        for step in range(begin, steps, ROUND):
            began, generator = time.perf_counter(), np.random.default_rng([seed, number, step])
            for rows in generator.choice(len(every), (ROUND, batch), replace=False):
                seen = np.stack([change(every[row], side, generator) for row in rows])
                logs = model.train_on_batch(seen, np.array([every[row][-1] for row in rows]), return_dict=True)
            model.reset_metrics()
            model.save(folder / "part.keras")
            os.replace(folder / "part.keras", folder / f"{number}_{step + ROUND:05d}.keras")
            for old in sorted(folder.glob("*.keras"))[:-1]:
                old.unlink()
            print(
                f"{name}, seed {seed}, {source}, step {step + ROUND}/{steps}: "
                + " ".join(f"{k} {v:.3f}" for k, v in logs.items())
                + f", {time.perf_counter() - began:.0f} s",
                flush=True,
            )
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=list(NETWORKS), help="this one alone")
    parser.add_argument("--seeds", type=int, default=1, help="so many are trained, from 0; that of seed 0 is exported")
    options = parser.parse_args()
    val, test = data.load("objects", "val"), data.load("objects", "test")
    for seed in range(options.seeds):
        for name in [options.network] if options.network else NETWORKS:
            model = train(name, seed)
            scores = [f"{part.split} {classify.accuracy(model, part.images, part.labels):.3f}" for part in (val, test)]
            print(f"{name}, seed {seed}: accuracy {', '.join(scores)}")
            if seed == 0:
                bare = NETWORKS[name](weights=None)  # without the optimizer's state
                bare.set_weights(model.get_weights())
                print(f"wrote {export(bare, f'{name}_toybox', 'Apache-2.0')}")


if __name__ == "__main__":
    main()
