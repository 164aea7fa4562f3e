"""Measure the lesson on transfer learning in full: two networks, three modes, four sizes of training set, three seeds.

    python -m bench.transfer       # an hour on two CPU cores; goes on where it stopped; writes results/transfer.json

Not a race but a measurement: `chapters/week1/transfer_learning` shows what it writes.
"""

import argparse
import json

from cvlab import classify, data

from ._timing import machine, write

PLAN = (  # network, mode, size that it sees, steps of training by pictures a class (None: all)
    ("efficientnet_lite0", "frozen", 96, {5: 200, 20: 200, 100: 200, None: 200}),
    ("efficientnet_lite0", "fine_tune", 96, {5: 40, 20: 60, 100: 80, None: 150}),
    ("resnet20", "scratch", None, {5: 120, 20: 160, 100: 240, None: 400}),
    ("resnet20", "frozen", None, {5: 200, 20: 200, 100: 200, None: 200}),
    ("resnet20", "fine_tune", None, {5: 60, 20: 80, 100: 120, None: 200}),
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    try:
        rows = data.results("transfer")["rows"]
    except data.DataUnavailable:
        rows = []
    done = {(r["network"], r["mode"], r["per_class"], r["seed"]) for r in rows}
    train, test = (data.load("objects", split, size=32) for split in ("train", "test"))
    for network, mode, input_size, plan in PLAN:
        backbone = getattr(classify, network)(include_top=False)
        for per_class, steps in plan.items():
            seeds = [seed for seed in range(options.seeds) if (network, mode, per_class, seed) not in done]
            if not seeds:
                continue
            new = classify.trial(backbone, train, test, mode, per_class, steps, input_size, seeds)
            rows += [{"network": network, "input_size": input_size, "steps": steps} | row for row in new]
            write("transfer", {"data": "objects at 32×32", "machine": machine("keras"), "rows": rows})
            print(json.dumps(new), flush=True)


if __name__ == "__main__":
    main()
