"""Train the RetinaNet of `data/weights` on the nine base classes of the toybox's `scenes`, which show no duck.

    python recipes/retinanet_toybox.py            # trains, or goes on after the last whole round, then exports
    python recipes/retinanet_toybox.py --help

EfficientNet-Lite0's ImageNet weights at the start. In the first round the backbone rests, so that heads that know
nothing yet don't spoil it; then everything learns but batch normalization, in rounds of Adam whose learning rate falls
from the round's own to zero; the last sees pictures that are nearly as they are. Each round ends with a checkpoint and
its AP on `val`; `test` is looked at once.
"""

import argparse
import functools
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from _export import enter

from cvlab import backend, data, retinanet

NAME = "retinanet_toybox"
BUILD = Path(__file__).resolve().parents[1] / ".build" / NAME
STRONG, MILD = {}, {"zoom": (0.85, 1.2), "shift": 0.08, "colour": 0.1}
ROUNDS = (  # steps of 8 pictures, learning rate, changes of the pictures
    (300, 1e-3, STRONG),
    (2000, 6e-4, STRONG),
    (2000, 5e-4, STRONG),
    (2000, 4e-4, MILD),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input-size", type=int, default=192)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, val, test = (data.load("scenes", split) for split in ("train", "val", "test"))
    side = options.input_size
    config = retinanet.RetinaNetConfig(
        train.class_names, input_size=side, anchor_sizes=tuple(side * part // 8 for part in (1, 2, 4))
    )
    BUILD.mkdir(parents=True, exist_ok=True)
    backend.set_seed(options.seed)
    model = retinanet.build(config)
    for number, (steps, learning_rate, changes) in enumerate(ROUNDS):
        checkpoint = BUILD / f"round_{number}.weights.h5"
        if checkpoint.exists():
            retinanet.restore(checkpoint, model=model)
            continue
        began = time.perf_counter()
        retinanet.trainable(model, "*" if number else ["fpn/*", "box_head/*", "class_*"])
        losses = retinanet.train(model, train.images, train.boxes, train.labels, steps, learning_rate,
                                 augment=functools.partial(retinanet.augment, **changes),
                                 progress=sys.stderr.isatty(), seed=1000 * options.seed + number)["loss"]  # fmt: skip
        scored = score(model, val)
        retinanet.save(model, checkpoint)
        print(f"round {number}: loss {sum(losses[-50:]) / 50:.3f}, val {scored}, {time.perf_counter() - began:.0f} s",
              flush=True)  # fmt: skip
    target = data.EMBEDDED / "weights" / f"{NAME}.weights.h5"
    retinanet.save(model, target)
    config.save(target.with_name(f"{NAME}.yml"))
    for file in (target, target.with_name(f"{NAME}.yml")):
        enter(file, "Apache-2.0")
    print(f"test {score(model, test)}")


def score(model, part):
    found = retinanet.detect(model, part.images)
    scored = retinanet.scores(found, part.boxes, part.labels, part.class_names)
    return json.dumps({key: round(scored[key], 4) for key in ("AP", "AP50", "AP75")})


if __name__ == "__main__":
    main()
