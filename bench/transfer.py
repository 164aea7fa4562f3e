"""Measure the lesson on transfer learning in full: two networks, three modes, four sizes of training set, three seeds.

    python bench/transfer.py        # an hour on two CPU cores; goes on where it stopped; writes results/transfer.json

Not a race but a measurement: `chapters/week1/transfer_learning` shows what it writes.
"""

import argparse
import json

from _timing import machine, write_json

from cvlab import classify, data

NETWORKS = {  # input size, steps of training where the whole network learns, by pictures a class
    "resnet20": (None, {5: 100, 20: 200, 100: 400, None: 800}),
    "efficientnet_lite0": (96, {5: 60, 20: 100, 100: 200, None: 400}),
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
    for seed in range(options.seeds):
        for network, (input_size, steps) in NETWORKS.items():
            backbone = getattr(classify, network)(include_top=False)
            for per_class in steps:
                for mode in ("frozen", "fine_tune", "scratch"):
                    if (network, mode, per_class, seed) in done:
                        continue
                    taken = FROZEN_STEPS if mode == "frozen" else steps[per_class]
                    row = classify.trial(backbone, train, test, mode, per_class, taken, input_size, seed)
                    rows.append({"network": network, "input_size": input_size, "steps": taken} | row)
                    write_json("transfer", {"data": "objects at 32×32", "machine": machine(), "rows": rows})
                    print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
