"""Train the ResNet-20 of `data/weights` on CIFAR-10.

    python -m experiments.weights.resnet20_cifar10    # trains, or goes on where it stopped, then exports the weights
    python -m experiments.weights.resnet20_cifar10 --help

SGD with Nesterov momentum, a warm-up and a cosine to zero; random crops from a 4-pixel reflected border and mirror
images. Most epochs see random 24×24 crops, which cost half as much, the last ones whole 32×32 pictures. With
`--bfloat16` the convolutions run in bfloat16 (twice as fast on processors with AMX), the weights stay float32.
"""

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from cvlab import classify

from ._export import export

BUILD = Path(__file__).resolve().parents[2] / ".build" / "resnet20_cifar10"
NO_DECAY = ["_bn", "bias"]


def augment(images, size, generator):
    """Cut a random `size`×`size` window from each picture and its 4-pixel reflected border; mirror every other one."""
    border = 4 if size == 32 else 0
    padded = np.pad(images, ((0, 0), (border,) * 2, (border,) * 2, (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))  # (N, y, x, 3, size, size)
    top, left = generator.integers(0, windows.shape[1], (2, len(images)))
    crops = windows[np.arange(len(images)), top, left].transpose(0, 2, 3, 1)
    mirrored = generator.random(len(images)) < 0.5
    crops[mirrored] = crops[mirrored, :, ::-1]
    return crops


def build(steps, learning_rate):
    """Give a compiled ResNet-20 whose learning rate follows `steps` steps."""
    model = classify.resnet20(weights=None)
    schedule = keras.optimizers.schedules.CosineDecay(
        1e-3, steps - steps // 8, warmup_target=learning_rate, warmup_steps=steps // 8
    )
    optimizer = keras.optimizers.SGD(
        schedule, momentum=0.9, nesterov=True, weight_decay=5e-3, use_ema=True, ema_momentum=0.995
    )
    optimizer.exclude_from_weight_decay(var_names=NO_DECAY)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
    return model


def train(images, labels, test_images, test_labels, epochs=48, large_epochs=12, batch=128, learning_rate=0.2, seed=0):
    """Train, with a checkpoint after each epoch; give the model with its averaged weights."""
    BUILD.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(seed)
    steps = len(images) // batch
    checkpoints = sorted(BUILD.glob("epoch_*.keras"))
    if checkpoints:
        model, start = keras.saving.load_model(checkpoints[-1]), int(checkpoints[-1].stem[6:])
        model.optimizer.exclude_from_weight_decay(var_names=NO_DECAY)
    else:
        model, start = build(epochs * steps, learning_rate), 0
    for epoch in range(start, epochs):
        began = time.perf_counter()
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(images))[: steps * batch].reshape(steps, batch)
        size = 32 if epoch >= epochs - large_epochs else 24
        for rows in order:
            logs = model.train_on_batch(augment(images[rows], size, generator), labels[rows], return_dict=True)
        line = f"epoch {epoch + 1}/{epochs} at {size}²: " + " ".join(f"{k} {v:.4f}" for k, v in logs.items())
        model.reset_metrics()
        model.save(BUILD / "part.keras")
        os.replace(BUILD / "part.keras", BUILD / f"epoch_{epoch + 1:03d}.keras")
        for old in sorted(BUILD.glob("epoch_*.keras"))[:-1]:
            old.unlink()
        if (epoch + 1) % 6 == 0 or epoch + 1 == epochs:
            line += f" · test accuracy {score(model, test_images, test_labels):.4f}"
        print(f"{line} · {time.perf_counter() - began:.0f} s", flush=True)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return model


def score(model, images, labels):
    """Give the accuracy on `images`."""
    return float(np.mean(np.argmax(model.predict(images, batch_size=500, verbose=0), -1) == labels))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=48)
    parser.add_argument("--large-epochs", type=int, default=12, help="how many of them see 32×32 pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bfloat16", action="store_true")
    options = parser.parse_args()
    if options.bfloat16:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    from cvlab import data

    train_set, test_set = data.load("cifar10", "train"), data.load("cifar10", "test")
    model = train(
        train_set.images,
        train_set.labels,
        test_set.images,
        test_set.labels,
        options.epochs,
        options.large_epochs,
        seed=options.seed,
    )
    keras.mixed_precision.set_global_policy("float32")
    exported = classify.resnet20(weights=None)
    exported.set_weights(model.get_weights())
    print(f"averaged weights: test accuracy {score(exported, test_set.images, test_set.labels):.4f}")
    print(f"wrote {export(exported, 'resnet20_cifar10', 'Apache-2.0')}")


if __name__ == "__main__":
    main()
