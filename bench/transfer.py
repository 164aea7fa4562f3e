"""Measure the lesson on transfer learning in full: two networks, three modes, four sizes of training set, three seeds.

    python -m bench.transfer       # an hour on two CPU cores; goes on where it stopped; writes results/transfer.json

Not a race but a measurement: `chapters/week1/transfer_learning` shows what it writes.
"""

import argparse
import json

from cvlab import classify, data

from ._timing import machine, write

NETWORKS = {  # input size, steps of training where the whole network learns, by pictures a class
    "efficientnet_lite0": (96, {5: 40, 20: 60, 100: 100, None: 200}),
    "resnet20": (None, {5: 60, 20: 100, 100: 200, None: 400}),
}
FROZEN_STEPS = 200


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
    for network, (input_size, steps) in NETWORKS.items():
        backbone = getattr(classify, network)(include_top=False)
        for per_class in steps:
            for mode in ("frozen", "fine_tune", "scratch"):
                seeds = [seed for seed in range(options.seeds) if (network, mode, per_class, seed) not in done]
                if not seeds:
                    continue
                taken = FROZEN_STEPS if mode == "frozen" else steps[per_class]
                new = classify.trial(backbone, train, test, mode, per_class, taken, input_size, seeds)
                rows += [{"network": network, "input_size": input_size, "steps": taken} | row for row in new]
                write("transfer", {"data": "objects at 32×32", "machine": machine("keras"), "rows": rows})
                print(json.dumps(rows[-len(new) :]), flush=True)


if __name__ == "__main__":
    main()
