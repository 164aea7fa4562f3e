"""Sphinx extension: the appendix "Results", from experiments/results/*.json when the pages are built.

```{results} name``` puts an entry of `ENTRIES` into a page: sentences, tables and charts, and below them when, on what
machine and by which command it was measured. No number is typed: a sentence takes its numbers from the results, and
stands beside the conditions under which it is true. One that no longer is becomes a warning, which fails `make test`.
"""

import json
from pathlib import Path

import numpy as np
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from cvlab import run, show, stamps

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"
logger = logging.getLogger(__name__)


class Results(SphinxDirective):
    required_arguments = 1

    def run(self):
        name = self.arguments[0]
        sources, draw = ENTRIES[name]
        if missing := [source for source in sources if not (RESULTS / f"{source}.json").exists()]:
            return self.parse(f"Not measured yet: `experiments/results/{missing[0]}.json` is missing.")
        for path in (__file__, *(str(RESULTS / f"{source}.json") for source in sources)):
            self.env.note_dependency(path)
        pieces = []
        for piece in draw(*map(read, sources)):
            if isinstance(piece, Sentence):
                if not piece.holds:
                    logger.warning("results: %r no longer holds: %s", name, piece.text, location=self.get_location())
                pieces += self.parse(piece.text)
            else:
                pieces.append(nodes.raw("", piece.html, format="html"))
        return pieces + self.parse(provenance(sources))

    def parse(self, text):
        holder = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source=__file__), 0, holder)
        return holder.children


class Sentence:
    """A paragraph in MyST that is true under some conditions."""

    def __init__(self, text, *conditions):
        self.text, self.holds = text, all(map(bool, conditions))


def setup(app):
    app.add_directive("results", Results)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def read(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def provenance(sources):
    """Say for each file of results when, where and how it was measured."""
    lines = []
    for name in sources:
        result = read(name)
        where = result.get("machine") or (result if "cpu" in result else {})
        rows = result.get("rows", [{}])
        where = where or rows[-1].get("machine") or result.get("runtimes", {}).get("machine", {})
        date = where.get("date") or str(rows[-1].get("date", ""))[:10]
        parts = [f"`experiments/results/{name}.json`"]
        parts += [f"measured on {date}"] if date else []
        parts += [f"{where['cpu']}, {where['cores']} cores"] if "cpu" in where else []
        parts += [f"`{result['command']}`"] if "command" in result else []
        commit = where.get("commit") or result.get("commit")
        parts += [f"commit `{commit[:7]}`"] if commit else []
        lines.append(" · ".join(parts))
    if not lines:
        return ""
    return ":::{div} cv-provenance\n" + "\\\n".join(lines) + "\n:::"


def values(rows, key, **settings):
    """Collect one value of the rows that have these settings."""
    return np.array([row[key] for row in rows if settings.items() <= row.items()], "float64")


def spread(numbers, digits=2):
    """Write a mean, and in brackets the range."""
    mean, low, high = (f"{f(numbers):.{digits}f}" for f in (np.mean, np.min, np.max))
    return f"{mean} ({low}–{high})" if len(numbers) > 1 else mean


def percent(number, digits=0):
    return f"{100 * number:.{digits}f}%"


def apart(above, below):
    """Tell whether the ranges of two sets of runs do not overlap."""
    return np.min(above) > np.max(below)


def overlap(a, b):
    return not apart(a, b) and not apart(b, a)


# Week 1


def transfer(result):
    rows = result["rows"]
    networks = {"Lite0": "efficientnet_lite0", "ResNet-20": "resnet20"}
    modes = {"fine-tuned": "fine_tune", "frozen": "frozen", "from scratch": "scratch"}
    sizes, seeds = sorted({row["per_class"] for row in rows} - {None}), sorted({row["seed"] for row in rows})

    def runs(network, mode, size):
        return values(rows, "accuracy", network=networks[network], mode=modes[mode], per_class=size)

    pairs = [(network, mode) for network in networks for mode in modes]
    curves = {
        f"{network}, {mode}": np.stack([runs(network, mode, n) for n in sizes], 1)
        for network, mode in pairs
        if all(len(runs(network, mode, n)) == len(seeds) for n in sizes)
    }
    best, scratch = (runs(*pair, sizes[-1]) for pair in (pairs[0], ("ResNet-20", "from scratch")))
    frozen = runs("ResNet-20", "frozen", sizes[-1])
    few, most = runs(*pairs[0], sizes[0]), runs(*pairs[0], sizes[-1])
    yield Sentence(
        f"With {sizes[-1]} images per class, the fine-tuned EfficientNet-Lite0 classifies {percent(best.mean())} of "
        "the "
        f"test images correctly. ResNet-20, pretrained on CIFAR-10 {{cite}}`krizhevsky2009` and kept frozen, reaches "
        f"{percent(frozen.mean())}, and from scratch {percent(scratch.mean())}.",
        apart(best, frozen),
        apart(most, few),
    )
    yield show.curves(
        sizes,
        curves,
        xlabel="training images per class",
        ylabel="test accuracy",
        log_x=True,
        name="results-transfer",
        caption=f"Toys at 32×32 pixels: frozen, fine-tuned and from scratch; mean and range of {len(seeds)} seeds.",
        alt="; ".join(f"{name}: from {run.mean(0)[0]:.2f} to {run.mean(0)[-1]:.2f}" for name, run in curves.items()),
    )
    yield show.table(
        [
            {"network": f"{network}, {mode}"}
            | {
                str(n or "all"): spread(runs(network, mode, n)) if len(runs(network, mode, n)) else ""
                for n in (*sizes, None)
            }
            for network, mode in pairs
        ],
        name="results-transfer-table",
        caption="Test accuracy by the number of training images per class: mean and range over seeds.",
    )


def upsampling(cifar, toys):
    lines = [
        {
            "network": {
                "efficientnet_lite0": "Lite0, frozen",
                "resnet20": "ResNet-20, trained on CIFAR-10",
            }[row["network"]],
            "images": "CIFAR-10, test",
            "input": f"{row['input_size']}×{row['input_size']}",
            "images per class": row["per_class"],
            "accuracy": f"{row['accuracy']:.3f}",
        }
        for row in cifar["rows"]
    ]
    for pixels, size in sorted({(row["pixels"], row["input_size"]) for row in toys["rows"]}):
        runs = values(toys["rows"], "accuracy", pixels=pixels, input_size=size)
        lines.append(
            {
                "network": "Lite0, frozen",
                "images": f"toys of {pixels}×{pixels}, validation",
                "input": f"{size}×{size}",
                "images per class": toys["rows"][0]["per_class"],
                "accuracy": spread(runs, 3),
            }
        )
    lite = {row["input_size"]: row["accuracy"] for row in cifar["rows"] if row["network"] == "efficientnet_lite0"}
    small, large = min(lite), max(lite)
    yield Sentence(
        f"A network made for large images needs small ones upsampled: of CIFAR-10's test images, the frozen "
        f"EfficientNet-Lite0 classifies {percent(lite[small])} correctly at {small}×{small} and "
        f"{percent(lite[large])} at "
        f"{large}×{large}. {COURSE['cifar10']}",
        lite[large] > lite[small] + 0.1,
    )
    yield show.table(
        lines,
        name="results-upsampling",
        caption="Accuracy by the size that images are resized to; Lite0 is EfficientNet-Lite0.",
    )


def practice(result):
    recipes = {}
    for row in result["rows"]:
        recipes.setdefault(row["recipe"], []).append(row["accuracy"])
    ranges = list(recipes.values())
    yield Sentence(
        f"Of {len(recipes)} recipes for fine-tuning, none is ahead of all others: their ranges overlap.",
        max(map(min, ranges)) <= min(map(max, ranges)),
    )
    yield show.table(
        [{"recipe": recipe, "test accuracy": spread(runs)} for recipe, runs in recipes.items()],
        name="results-practice",
        caption=f"Fine-tuning ResNet-20 on {result['rows'][0]['per_class']} images per class: mean and range over "
        "seeds.",
    )


def localize(result):
    chosen = [row for row in result["rows"] if row["split"] == ("val" if row["data"] == "raccoon_small" else "test")]
    names = {"objects": "toys", "raccoon_small": "raccoons"}
    losses = {"l1": "L1", "iou": "1 − IoU", "giou": "1 − GIoU", "diou": "1 − DIoU", "ciou": "1 − CIoU"}
    groups = sorted({(row["data"], row["head"], row["loss"]) for row in chosen})
    lines, by_loss = [], []
    for data, head, loss in groups:
        settings = {"data": data, "head": head, "loss": loss}
        strict = values(chosen, "> .75", **settings)
        by_loss += [strict] if (data, head) == ("objects", "votes") else []
        lines.append(
            {
                "images": names[data],
                "box head": head,
                "loss": losses[loss],
                "mean IoU": spread(values(chosen, "IoU", **settings), 3),
                "above 0.5": spread(values(chosen, "> .5", **settings), 3),
                "above 0.75": spread(strict, 3),
            }
        )
    tested = {names[data]: int(values(chosen, "tested", data=data)[0]) for data in names}
    yield Sentence(
        f"On one network, the {len(by_loss)} box losses cannot be told apart: the ranges of the boxes above an "
        "{term}`IoU` of 0.75 overlap.",
        max(map(min, by_loss)) <= min(map(max, by_loss)),
    )
    yield show.table(
        lines,
        name="results-localize",
        caption=f"Boxes for {tested['toys']} test images of toys and {tested['raccoons']} photographs of raccoons: "
        "mean "
        "and range over seeds.",
    )


# Week 2


def propose(result):
    rows = [row for row in result["rows"] if row["kind"] == "search"]
    methods = {"selective search, ours": "ours", "OpenCV, fast": "OpenCV fast", "OpenCV, quality": "OpenCV quality"}
    ours, fast = (sum(row[key]["recall"] * row["objects"] for row in rows) for key in ("ours", "OpenCV fast"))
    seconds = [row["ours"]["seconds"] / row["OpenCV quality"]["seconds"] for row in rows]
    yield Sentence(
        "The book's selective search {cite}`uijlings2013` covers more objects than OpenCV's fast mode, in more time; "
        "it "
        f"takes {min(seconds):.2f} to {max(seconds):.2f} times as long as OpenCV's quality mode.",
        ours > fast,
        all(row["ours"]["seconds"] > row["OpenCV fast"]["seconds"] for row in rows),
    )
    yield show.table(
        [
            {
                "images": row["set"],
                "method": name,
                "proposals per image": f"{row[key]['proposals']:.0f}",
                "recall": f"{row[key]['recall']:.3f}",
                "seconds per image": f"{row[key]['seconds']:.2f}",
            }
            for row in rows
            for name, key in methods.items()
        ],
        name="results-propose",
        caption="Objects covered with an IoU of at least 0.5.",
    )


def two_stage(result):
    rows = [row for row in result["rows"] if row["kind"] == "test"]
    seconds = next(row for row in result["rows"] if row["kind"] == "seconds")["seconds an image"]
    names = list(dict.fromkeys(row["detector"] for row in rows))
    runs = {name: values(rows, "AP", detector=name) for name in names}
    titles = {"Fast": "Fast R-CNN", "Faster": "Faster R-CNN"}
    drawing, ax = show.axes(6.4, 3.2)
    for colour, (name, taken) in zip(show.PALETTE, seconds.items()):
        ax.plot([taken, taken], [runs[name].min(), runs[name].max()], color=colour)
        ax.plot(taken, runs[name].mean(), "o", color=colour, markersize=8)
        left = taken > 0.5
        ax.annotate(
            titles.get(name, name),
            (taken, runs[name].mean()),
            (-9 if left else 9, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            ha="right" if left else "left",
        )
    ticks = [0.05, 0.1, 0.2, 0.5, 1]
    ax.set(xscale="log", xlim=(0.04, 2), ylim=(0, 0.45), xlabel="seconds per image", ylabel="AP")
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    yield Sentence(
        f"From R-CNN {{cite}}`girshick2014` to Fast {{cite}}`girshick2015` and Faster R-CNN {{cite}}`ren2017`, the "
        "time "
        f"per image falls from {seconds['R-CNN']:.2f} to {seconds['Fast']:.2f} to {seconds['Faster']:.2f} s, and AP "
        "does "
        f"not: {runs['R-CNN'].mean():.2f}, {runs['Fast'].mean():.2f}, {runs['Faster'].mean():.2f}.",
        seconds["R-CNN"] > seconds["Fast"] > seconds["Faster"],
        runs["Faster"].mean() >= runs["R-CNN"].mean() - 0.01,
    )
    yield show.figure(
        drawing,
        name="results-detectors",
        caption="Detectors on one frozen backbone: AP on test scenes against the time for one image; mean and range "
        "over "
        "seeds.",
        alt="; ".join(
            f"{titles.get(name, name)}: {s:.2f} s, AP {runs[name].mean():.2f}" for name, s in seconds.items()
        ),
    )
    yield show.table(
        [
            {
                "detector": titles.get(name, name),
                "AP": spread(runs[name]),
                "AP50": spread(values(rows, "AP50", detector=name)),
                "seconds per image": f"{seconds[name]:.3f}" if name in seconds else "",
                "seconds to train": spread(values(rows, "seconds", detector=name), 0),
            }
            for name in names
        ],
        name="results-detectors-table",
        caption="The same detectors: mean and range over seeds.",
    )


def focal(short, long):
    rows = [row | {"data": "scenes", "trained": "at 128 pixels"} for row in short["rows"] if row["split"] == "test"]
    rows += [row | {"trained": "longer"} for row in long["rows"] if row["split"] == "test"]
    what = {"few": "few, small objects", "raccoon": "photographs of raccoons"}
    groups = dict.fromkeys(
        (row["trained"], row["data"], row["loss"], row["prior"], row["levels"], row["steps"]) for row in rows
    )
    lines, kept = [], {}
    for group in groups:
        settings = dict(zip(("trained", "data", "loss", "prior", "levels", "steps"), group))
        kept[group] = values(rows, "AP", **settings)
        lines.append(
            {
                "images": what.get(settings["data"], settings["data"]),
                "class loss": settings["loss"],
                "prior": f"{settings['prior']:g}",
                "levels": settings["levels"],
                "steps": settings["steps"],
                "seeds": len(kept[group]),
                "AP": spread(kept[group], 3),
                "AP50": spread(values(rows, "AP50", **settings), 3),
            }
        )
    yield Sentence(
        "The paper {cite}`lin2017focal` reports that focal loss raises AP from 31.1 to 34.0 on COCO, where a hundred "
        "thousand anchors compete. " + " ".join(compare_losses(kept, what)),
    )
    yield show.table(
        lines, name="results-focal", caption="Focal loss and cross-entropy on test images: mean and range over seeds."
    )


def compare_losses(kept, what):
    """Say of each set of runs that differ in their loss alone which one is ahead, if either is."""
    for (trained, data, loss, prior, levels, steps), focal_runs in kept.items():
        entropy = kept.get((trained, data, "cross-entropy", prior, levels, steps))
        if loss != "focal" or entropy is None:
            continue
        verdict = "and the ranges overlap"
        if not overlap(focal_runs, entropy):
            verdict = f"and {'focal loss' if apart(focal_runs, entropy) else 'cross-entropy'} is ahead with every seed"
        yield (
            f"On our {what.get(data, data)}, {steps} steps: {focal_runs.mean():.2f} with focal loss, "
            f"{entropy.mean():.2f} "
            f"with cross-entropy, {verdict}."
        )


def built(result):
    rows, both = result["rows"], ("built", "cvlab")
    runs = {who: np.array([row[who]["AP"] for row in rows]) for who in both}
    yield Sentence(
        "The RetinaNet that the lesson builds in view and the one of `cvlab`, from the same first weights: the first "
        "losses "
        f"are the same, and after {rows[0]['steps']} steps the ranges of AP overlap.",
        all(abs(row["built"]["first loss"] - row["cvlab"]["first loss"]) < 1e-3 for row in rows),
        overlap(runs["built"], runs["cvlab"]),
    )
    yield show.table(
        [
            {"RetinaNet": {"built": "built in the lesson", "cvlab": "cvlab"}[who]}
            | {key: spread([row[who][key] for row in rows], 3) for key in ("AP", "AP50", "first loss", "last loss")}
            for who in both
        ],
        name="results-built",
        caption=f"On {rows[0]['images']} test scenes: mean and range over {len(rows)} seeds.",
    )


def at_inference(result):
    rows = result["rows"]
    tested = [row for row in rows if row["split"] == "test"]
    plain = next(row for row in tested if not row["mirrored"])
    best = max(tested, key=lambda row: row["AP50"])
    passes = len(best["sides"]) * (1 + best["mirrored"])
    yield Sentence(
        "The embedded detector, asked more than once about each image: in mirror image, and at several sizes, with one "
        f"non-maximum suppression over all answers. {passes} passes instead of one raise AP50 on the test scenes from "
        f"{plain['AP50']:.3f} to {best['AP50']:.3f}. Sizes were chosen on the validation scenes; one detector.",
        best["AP50"] > plain["AP50"],
        passes > 1,
    )
    yield show.table(
        [
            {
                "scenes": row["split"],
                "pixels across": ", ".join(map(str, row["sides"])),
                "mirrored, too": "yes" if row["mirrored"] else "no",
                "AP": f"{row['AP']:.3f}",
                "AP50": f"{row['AP50']:.3f}",
            }
            for row in rows
        ],
        name="results-at-inference",
        caption="The same weights, with one or several passes for an image.",
    )


def fine_tuning(result):
    rows, lines = result["rows"], []
    for data, start, without, trained in dict.fromkeys(
        (row["data"], row["start"], row["without"], row["trained"]) for row in rows
    ):
        settings = {"data": data, "start": start, "without": without, "trained": trained}
        chosen = [row for row in rows if settings.items() <= row.items()]
        old = [row["old AP50"] for row in chosen if row.get("old AP50") is not None]
        lines.append(
            {
                "data": data,
                "starts from": start,
                "trained": trained,
                "background images": without,
                "seeds": len(chosen),
                "AP50": spread(values(chosen, "AP50")),
                "AP50, old classes": spread(old) if old else "",
            }
        )
    last, all_of_it = (
        [
            row["old AP50"]
            for row in rows
            if row["data"] == "duck" and row["start"] == "toys" and row["without"] and row["trained"] == part
        ]
        for part in ("last layer", "everything")
    )
    yield Sentence(
        f"A detector of ducks from five images: with the last layer trained alone, the old classes keep an AP50 of "
        f"{np.mean(last):.2f}; with everything trained they fall to {np.mean(all_of_it):.2f}.",
        apart(last, all_of_it),
    )
    yield show.table(lines, name="results-fine-tuning", caption="New classes and old ones: mean and range over seeds.")


# Week 3


def segment(result):
    scores = ("mean IoU", "mean Dice", "frequency-weighted IoU", "pixel accuracy")
    camvid = next(row for row in result["rows"] if row["data"] == "camvid")
    worst = min(camvid["IoU"], key=camvid["IoU"].get)
    yield Sentence(
        f"On CamVid {{cite}}`brostow2009`, FCN-8s on EfficientNet-Lite0 reaches a mean IoU of "
        f"{camvid['mean IoU']:.3f} on "
        f"the {camvid['tested']} validation images, on which its schedule was chosen; {worst}s come last, at "
        f"{camvid['IoU'][worst]:.2f}. On the *test* images, which are others, {{cite:t}}`jegou2017` quote 0.570 for "
        "FCN-8s and report 0.669 for FC-DenseNet103.",
        camvid["split"] == "val",
    )
    yield show.table(
        [
            {"images": row["data"], "split": row["split"], "tested": row["tested"]}
            | {score: row[score] for score in scores}
            | {"minutes to train": f"{row['seconds'] / 60:.0f}", "seeds": 1}
            for row in result["rows"]
        ],
        name="results-segment",
        caption="FCN-8s on EfficientNet-Lite0, fine-tuned on two CPU cores.",
    )


def strides(result):
    rows = [row for row in result["rows"] if row["backbone"] == "efficientnet_lite0"]
    rows.sort(key=lambda row: row["side"])
    yield Sentence(
        "FCN-16s is ahead of FCN-32s at every size, with every seed. On PASCAL VOC, where objects are larger, the "
        "paper "
        "has 59.4%, 62.4% and 62.7% {cite}`long2015`.",
        all(apart(row["mean IoU"]["16"], row["mean IoU"]["32"]) for row in rows),
    )
    yield show.table(
        [
            {"images": f"{row['side']}×{row['side']}"}
            | {f"FCN-{stride}s": spread(row["mean IoU"][stride]) for stride in ("32", "16", "8")}
            | {"best at stride 32": f"{row['bound']['32']:.2f}"}
            for row in rows
        ],
        name="results-strides",
        caption="Mean IoU on test scenes by the size of the same images: mean and range over seeds.",
    )


def unet(result):
    by_steps = {}
    for row in result["rows"]:
        by_steps.setdefault(row["steps"], {})[row["network"]] = row["mean IoU"]
    sentences = []
    for steps, runs in by_steps.items():
        if len(runs) < 2:
            continue
        fcn, unet_runs = runs["FCN-8s"], runs["U-Net"]
        ahead = "the ranges overlap"
        if not overlap(fcn, unet_runs):
            ahead = f"{'FCN-8s' if apart(fcn, unet_runs) else 'U-Net'} is ahead with every seed"
        sentences.append(f"after {steps} steps, {ahead} ({np.mean(fcn):.2f} and {np.mean(unet_runs):.2f})")
    yield Sentence(f"FCN-8s and U-Net {{cite}}`ronneberger2015` on one frozen encoder: {'; '.join(sentences)}.")
    yield show.table(
        [
            {
                "decoder": row["network"],
                "steps": row["steps"],
                "trainable weights": f"{row['weights']:,}",
                "mean IoU": spread(row["mean IoU"], 3),
            }
            for row in result["rows"]
        ],
        name="results-unet",
        caption="Mean IoU on test scenes: mean and range over seeds.",
    )


def soft_dice(result):
    rows = result["rows"]
    runs = {loss: values(rows, "mean IoU", loss=loss) for loss in dict.fromkeys(row["loss"] for row in rows)}
    plain, both, alone = (runs[loss] for loss in ("cross-entropy", "both", "soft Dice"))
    yield Sentence(
        f"Soft Dice {{cite}}`milletari2016`, added to cross-entropy, raises the mean IoU a little ({plain.mean():.3f} "
        "to "
        f"{both.mean():.3f}); alone it lowers it ({alone.mean():.3f}).",
        apart(both, plain),
        apart(plain, alone),
    )
    yield show.table(
        [
            {
                "loss": loss,
                "mean IoU": spread(scores, 3),
                "worst class": spread([min(row["IoU"].values()) for row in rows if row["loss"] == loss], 3),
                "pixel accuracy": spread(values(rows, "pixel accuracy", loss=loss), 3),
            }
            for loss, scores in runs.items()
        ],
        name="results-dice",
        caption="Losses for segmentation on test scenes: mean and range over seeds.",
    )


def checkerboards(result):
    rows = result["rows"]
    bilinear = next(row for row in rows if (row["start"], row["kernel"]) == ("bilinear", 4))
    random = next(row for row in rows if (row["start"], row["kernel"]) == ("random", 4))
    yield Sentence(
        "A transposed convolution that begins as bilinear interpolation ends with less of a checkerboard than one "
        "that "
        f"begins at random: {np.mean(bilinear['pattern, after']):.1f} against {np.mean(random['pattern, after']):.1f} "
        "grey "
        "levels. On why it arises, see {cite:t}`odena2016`.",
        apart(random["pattern, after"], bilinear["pattern, after"]),
    )
    yield show.table(
        [
            {"start": row["start"], "kernel": row["kernel"], "seeds": row["seeds"]}
            | {key: spread(row[key], 1) for key in ("RMSE, after", "pattern, before", "pattern, after")}
            for row in rows
        ],
        name="results-checkerboards",
        caption="Error on unseen images, and pattern on a flat image, in grey levels: mean and range over seeds.",
    )


# Week 4


def eyes(result):
    tested = [row | {"trained on": run["trained on"]} for run in result["rows"] for row in run["tested"]]
    names = {"train": "before", "mended": "after"}

    def runs(trained, split, count, key):
        return values(tested, key, split=split, eyes=count, **{"trained on": trained})

    blind = {trained: runs(trained, "mended_test", 0, "accuracy") for trained in names}
    yield Sentence(
        f"A classifier that knows cats from dogs by their eyes alone fails where none is visible "
        f"({percent(blind['train'].mean())} correct); trained on mended data it does not "
        f"({percent(blind['mended'].mean())}).",
        apart(blind["mended"], blind["train"]),
    )
    yield show.table(
        [
            {"test images": split.replace("_", " "), "eyes visible": count}
            | {
                f"{text}, {name}": spread(runs(trained, split, count, key))
                for text, key in (("accuracy", "accuracy"), ("CAM on an eye", "cam"))
                for trained, name in names.items()
            }
            for split in dict.fromkeys(row["split"] for row in tested)
            for count in (2, 1, 0)
        ],
        name="results-eyes",
        caption="Accuracy, and share of CAM's maxima on an eye, before and after the data was mended: mean and range "
        "over "
        "seeds.",
    )


def pavement(result):
    rows = result["rows"]
    keys = {"accuracy": "accuracy", "SmoothGrad on the car": "energy", "saliency on the car": "saliency's energy"}
    keys["car's share of the image"] = "area"
    turned = {when: values(rows, "accuracy", data=when, split="turned") for when in ("before", "after")}
    yield Sentence(
        f"Cars without pavement: {percent(turned['before'].mean())} are recognized before the data is mended, "
        f"{percent(turned['after'].mean())} after it.",
        apart(turned["after"], turned["before"]),
    )
    yield show.table(
        [
            {"data": when, "images": split}
            | {text: spread(values(rows, key, data=when, split=split)) for text, key in keys.items()}
            for when in ("before", "after")
            for split in ("test", "turned")
        ],
        name="results-pavement",
        caption="Accuracy on cars, and the share of a map's energy that lies on the car: mean and range over seeds.",
    )


def judge(result):
    runs = {run["question"]: run for run in result["rows"]}
    maps = {question: {row["map"]: row for row in run["maps"]} for question, run in runs.items()}
    yield Sentence(
        "Does a map lie on what the network is known to look at? Random maps and plain edges are the controls, and all "
        "methods in the table put more of their energy there than edges do.",
        all(
            row["energy less edges'"][1] > 0
            for rows in maps.values()
            for name, row in rows.items()
            if name not in ("random", "edges")
        ),
    )
    yield show.table(
        [
            {"map": name}
            | {
                f"{question}: {text}": interval(maps[question][name][key])
                for question in maps
                for text, key in (("maximum", "peak"), ("energy", "energy"))
            }
            for name in next(iter(maps.values()))
        ],
        name="results-judge",
        caption="Maximum on the cause, and share of the energy on it, for "
        + " and ".join(f"{run['images']} images of {question}" for question, run in runs.items())
        + ": mean and 95% interval.",
    )


def interval(numbers):
    return "{:.2f} ({:.2f}–{:.2f})".format(*numbers)


def randomisation(result):
    rows = [row for row in result["rows"] if row["signs"] == "signed"]
    of = {row["method"]: row["random down to"] for row in rows}
    guided = of["guided backpropagation"]["classes"]
    yield Sentence(
        f"Sanity check of {{cite:t}}`adebayo2018`: with a random last layer, maps should change. Saliency's and "
        "Grad-CAM's "
        f"do; guided backpropagation's hardly does (rank correlation {guided[0]:.2f}).",
        *(of[method]["classes"][1] < 0 < of[method]["classes"][2] for method in ("saliency", "Grad-CAM")),
        guided[1] > 0.9,
    )
    yield show.table(
        [
            {"method": name} | {f"random down to {layer}": interval(v) for layer, v in layers.items()}
            for name, layers in of.items()
        ],
        name="results-randomisation",
        caption=f"Rank correlation with the trained network's maps, signed, {rows[0]['images']} images and "
        f"{rows[0]['draws']} draws of random weights: mean and 95% interval.",
    )


def zfnet(result):
    rows = result["rows"]
    names = {"AlexNet": "alexnet", "ZFNet": "zfnet"}
    keys = {"test accuracy": "test", "low band": "low", "middle band": "mid", "high band": "high"}
    keys |= {"folded by the stride": "folded", "images whose class changes with the shift": "flips"}
    folded = {name: values(rows, "folded", network=key) for name, key in names.items()}
    accuracy = {name: values(rows, "test", network=key) for name, key in names.items()}
    yield Sentence(
        "Smaller filters and a smaller stride fold less of the signal "
        f"({percent(folded['AlexNet'].mean(), 1)} of the power against {percent(folded['ZFNet'].mean(), 1)}). On "
        "ImageNet "
        "they lowered the top-1 error from 40.5% to 38.4% {cite}`zeiler2014`; on our toys the accuracies overlap.",
        apart(folded["AlexNet"], folded["ZFNet"]),
        overlap(*accuracy.values()),
    )
    yield show.table(
        [
            {"measured": text}
            | {name: spread(values(rows, key, network=network), 3) for name, network in names.items()}
            for text, key in keys.items()
        ],
        name="results-zfnet",
        caption="Both networks by one recipe: mean and range over seeds.",
    )


def shifts(result):
    names = {"alexnet": "AlexNet", "zfnet": "ZFNet"}
    rows = [row | each for row in result["rows"] for each in row["shifts"]]
    by_one = {name: [row["maps"] for row in rows if (row["network"], row["shift"]) == (name, 1)] for name in names}
    yield Sentence(
        "When an image moves by one pixel, AlexNet's first maps change by more than a shift explains, and ZFNet's by "
        "less "
        "than half of that; a blur before sampling removes most of it {cite}`zhang2019`.",
        min(low for _, low, _ in by_one["alexnet"]) > 2 * max(high for *_, high in by_one["zfnet"]),
        all(row["blurred"][0] <= row["maps"][0] / 2 for row in rows),
    )
    yield show.table(
        [
            {"network": names[row["network"]], "seed": row["seed"], "shift, pixels": row["shift"]}
            | {
                text: "{:.3f} ({:.3f}–{:.3f})".format(*row[key])
                for text, key in (("first maps", "maps"), ("after a blur", "blurred"), ("class changes", "flips"))
            }
            for row in rows
        ],
        name="results-shifts",
        caption="Change of the first layer's maps beyond the shift itself, as a share of their deviation, and images "
        "whose "
        f"class changes; {rows[0]['images']} images, mean and 95% interval.",
    )


# The book itself


def playground(result):
    yield Sentence(
        "The playground's networks run in the reader's browser. A visit fetches a network when it is first asked for."
    )
    yield show.table(
        [{"file": name, "MB": f"{size:.1f}"} for name, size in result["sizes (MB)"].items()],
        name="results-playground",
        caption="Files of the playground.",
    )
    yield show.table(
        [
            {"runtime": name} | {key: f"{value:.3g}" for key, value in row.items()}
            for name, row in result["runtimes"]["rows"].items()
            if isinstance(row, dict)
        ],
        name="results-runtimes",
        caption="EfficientNet-Lite0's forward pass in two runtimes, side by side in headless Chromium, one thread.",
    )
    if "times" in result:
        yield show.table(
            [
                {"network and question": name, "median ms": f"{row['median_ms']:.0f}"}
                for name, row in result["times"]["rows"].items()
            ],
            name="results-playground-times",
            caption="One question about one image, when the network has been loaded, in headless Chromium, one thread.",
        )


def lessons():
    """Show what each lesson took when its committed outputs were made, from the stamps."""
    stamped = {name: stamps.read(run.read_notebook(name)) for name in run.chapters()}
    told = {name: stamp for name, stamp in stamped.items() if stamp}
    yield show.table(
        [
            {
                "lesson": name,
                "seconds": f"{stamp['seconds']:.0f}",
                "CPU seconds": f"{stamp['cpu_seconds']:.0f}",
                "executed on": stamp["date"][:10],
            }
            for name, stamp in told.items()
        ],
        name="results-lessons",
        caption="What a lesson's cells took on two cores of "
        + " and ".join(sorted({stamp["machine"]["processor"] for stamp in told.values()}))
        + ", when the outputs in this book were made; other work ran beside some of them.",
    )


def memory(result):
    bars, rows = result["bars"], result["rows"]
    lessons = [row for row in rows if row["kind"] == "lesson"]
    if lessons:
        largest = max(lessons, key=lambda row: row["peak_gb"])
        yield Sentence(
            f"Of {len(lessons)} lessons, no kernel holds more than {largest['peak_gb']:.1f} GB at a time "
            f"({largest['lesson']}), with the quick profile.",
            largest["peak_gb"] <= bars["lesson_gb"],
        )
        yield show.table(
            [{"lesson": row["lesson"], "GB": f"{row['peak_gb']:.2f}"} for row in lessons],
            name="results-memory",
            caption="The most memory that a lesson's kernel holds at a time, quick profile.",
        )
    for row in rows:
        if row["kind"] == "streaming":
            yield Sentence(
                f"Fine-tuning ResNet-20 on {row['images']:,} images takes {row['peak_above_model_gb']:.2f} GB above "
                "the model "
                f"and its training step; the images themselves have {row['image_gb']:.2f} GB.",
                row["peak_above_model_gb"] <= bars["streaming_gb"],
            )
        if row["kind"] == "caching":
            times, off = row["times_faster"], row["largest_difference"]
            ends = f" ({min(times):.1f}–{max(times):.1f} in {len(times)} rounds)" if len(times) > 1 else " (one round)"
            yield Sentence(
                f"A last layer on frozen features, {row['epochs']} epochs of {row['images']} images at "
                f"{row['side']}×{row['side']}: with features that are computed once, training is "
                f"{np.median(times):.1f} "
                f"times faster than through the network in each epoch{ends}, and no probability differs by more than "
                f"{off:.0e}.",
                np.median(times) >= bars["caching_times"],
                off <= bars["caching_difference"],
            )


def load_quick(result):
    assumed, row = result["assumed"], one(result, "quick")
    enough = next(each for each in row["rows"] if each["slots"] == row["slots_needed"])
    memory_needed = "" if row["memory_gb"] is None else f" and {row['memory_gb']} GB of memory"
    yield Sentence(
        f"{assumed['students']:,} students run each of week 2's lessons {assumed['runs of a lesson per student']} "
        "times, "
        f"within {assumed['days until the deadline']} days, half of it on the last. These are {row['runs']:,} runs, or "
        f"{row['slot_hours']} hours on two cores. {row['slots_needed']} slots of two cores{memory_needed} are enough: "
        f"95% of the runs begin within {enough['wait_p95_minutes']:.0f} minutes. With half as many, the last day "
        "breaks "
        "down, though the week as a whole would fit.",
        enough["wait_p95_minutes"] <= assumed["wait that 95% of runs should stay below, minutes"],
        row["rows"][0]["busy"] < 1 and row["rows"][0]["wait_p95_minutes"] > 10 * enough["wait_p95_minutes"],
    )
    yield show.table(
        [waiting(each) for each in row["rows"]],
        name="load-quick",
        caption="Runs of week 2's lessons in one queue, quick profile: how long they wait for a slot of two cores.",
    )


def load_long(result):
    row = one(result, "long")
    low, high = row["minutes"]
    yield Sentence(
        f"Suppose that each student trains once as long as the book's longest trainings, which took {low} to {high} "
        "minutes "
        "on two cores. No GPU was measured: the table shows what follows if one is so many times faster.",
    )
    yield show.table(
        [
            {"times faster than two cores": each["times"], "hours": each["slot_hours"]} | waiting(each)
            for each in row["rows"]
        ],
        name="load-long",
        caption="One long training for each student: GPUs (or slots of two cores, at 1) that are enough for 95% of "
        "the runs to "
        "begin within ten minutes.",
    )


def load_readers(result):
    assumed, row = result["assumed"], one(result, "readers")
    low, mean, high = row["page_kilobytes"]
    yield Sentence(
        f"{assumed['readers a day']:,} readers a day who open {assumed['pages a reader opens']} pages each transfer "
        f"{row['gb_a_day']:.0f} GB a day: a page's first view has {low} to {high} kB, {mean} on average (a stock "
        "Jupyter "
        f"Book page has {row['stock_page_kilobytes']}). The busiest second asks for "
        f"{row['pages_in_the_busiest_second']} pages "
        f"and {row['busiest_second_megabit']} Mbit. One small server of static files can send that.",
        row["busiest_second_megabit"] < 1000,
    )
    yield Sentence(
        f"What breaks first is the free host: GitHub Pages allows "
        f"{assumed['traffic that GitHub Pages allows, GB a month']} GB a month, which is "
        f"{row['readers_a_day_that_pages_allows']:,} such readers a day. Beyond, the same folder of files goes behind "
        "a "
        "content delivery network; the names of images change with their content, so they can be cached for ever.",
        row["readers_a_day_that_pages_allows"] < assumed["readers a day"],
    )


def load_downloads(result):
    assumed, row = result["assumed"], one(result, "downloads")
    yield Sentence(
        f"A student on Colab fetches the toybox and weights that a lesson asks for, at most {row['most_megabytes']} "
        "MB for all "
        f"of them, once for each new machine: {row['gb']} GB for {assumed['students']:,} students. A copy of the "
        "files in a "
        "folder that `CVLAB_DATA` names, on a disk that the cluster shares, makes it one download.",
    )


def one(result, kind):
    return next(row for row in result["rows"] if row["kind"] == kind)


def waiting(row):
    return {
        "slots": row["slots"],
        "median wait, minutes": f"{row['wait_median_minutes']:.1f}",
        "95% wait less, minutes": f"{row['wait_p95_minutes']:.0f}",
        "busy": percent(row["busy"]),
    }


def races(result):
    rows = [row for row in result["rows"] if "missing" not in row and "without" not in row["ours"]]
    barred = [row for row in rows if row["bar"] is not None]
    held = sum(row["holds"] == "yes" for row in barred)
    share = "" if result["share"] == 1 else f" It was run in {percent(result['share'])} of its time, as a trial."
    yield Sentence(
        "`make races` times the book's functions and their peers' in turns, on one machine. A ratio below 1 means "
        "that ours "
        f"is faster; a bar holds where the whole 95% interval is at or below it, as it is for {held} of "
        f"{len(barred)}.{share}",
    )
    if not rows:
        yield Sentence("No race has ended yet.")
        return
    yield show.table(
        [
            {
                "measured": row["what"],
                "ours": row["ours"],
                "peer": row["peer"],
                "ratio": f"{row['ratio']:.2f}"
                + (f" ({row['low']:.2f}–{row['high']:.2f})" if row["rounds"] > 2 else ""),
                "rounds": row["rounds"],
                "bar": "" if row["bar"] is None else f"{row['bar']:g}: {row['holds']}",
            }
            for row in rows
        ],
        name="results-races",
        caption="Our time over the peer's: ratio of the medians and its 95% interval over rounds.",
    )
    if missing := [row for row in result["rows"] if "missing" in row]:
        yield Sentence("Not measured: " + "; ".join(f"{row['what']} ({row['missing']})" for row in missing) + ".")


def seconds(result):
    yield show.table(
        [
            {
                "lesson": row["lesson"],
                "CPU seconds": f"{row['cpu_seconds']:.0f}",
                "seconds": f"{row['seconds']:.0f}",
                "CPU seconds, before": f"{row['before']:.0f}",
            }
            for row in result["rows"]
        ],
        name="results-seconds",
        caption="What it takes to execute a lesson with the quick profile, now and before the lessons were made "
        "faster.",
    )


def lighthouse(result):
    forms = dict.fromkeys(row["form"] for row in result["rows"])
    pages = dict.fromkeys(row["page"] for row in result["rows"])
    found = {(row["page"], row["form"]): row for row in result["rows"]}
    own = [row for row in result["rows"] if row["page"] != "stock Jupyter Book"]
    yield Sentence(
        f"Lighthouse {result['lighthouse']} gives the book's pages at least "
        f"{min(row['accessibility'] for row in own)} for "
        f"accessibility and {min(row['performance'] for row in own)} for performance, on a simulated phone and on a "
        "desktop computer.",
    )
    yield show.table(
        [
            {"page": page}
            | {
                f"{text}, {form}": found[page, form][key] if (page, form) in found else ""
                for form in forms
                for text, key in (
                    ("performance", "performance"),
                    ("accessibility", "accessibility"),
                    ("kB", "kilobytes"),
                )
            }
            for page in pages
        ],
        name="results-lighthouse",
        caption="Median performance of five runs, accessibility, and what is transferred before the reader scrolls.",
    )


# What cannot be measured here and has another source: how the course's own labs fare.
COURSE = {
    "cifar10": "The course's lab, which fine-tunes a ResNet-50 at 224×224 on all of CIFAR-10 on a GPU, reports "
    "0.952–0.955 "
    "on its validation images."
}
# name: (files of experiments/results, the function that draws them)
ENTRIES = {
    "transfer": (("transfer",), transfer),
    "upsampling": (("upsampled_cifar", "input_size"), upsampling),
    "practice": (("practice",), practice),
    "localize": (("localize",), localize),
    "propose": (("propose",), propose),
    "two_stage": (("two_stage",), two_stage),
    "focal": (("focal", "focal_long"), focal),
    "built": (("built",), built),
    "at_inference": (("at_inference",), at_inference),
    "fine_tuning": (("fine_tuning",), fine_tuning),
    "segment": (("segment",), segment),
    "strides": (("strides",), strides),
    "unet": (("unet",), unet),
    "soft_dice": (("soft_dice",), soft_dice),
    "checkerboards": (("checkerboards",), checkerboards),
    "eyes": (("eyes",), eyes),
    "pavement": (("pavement",), pavement),
    "judge": (("judge",), judge),
    "randomisation": (("randomisation",), randomisation),
    "zfnet": (("zfnet",), zfnet),
    "shifts": (("shifts",), shifts),
    "playground": (("playground",), playground),
    "lessons": ((), lessons),
    "races": (("races",), races),
    "memory": (("memory",), memory),
    "load_quick": (("load",), load_quick),
    "load_long": (("load",), load_long),
    "load_readers": (("load",), load_readers),
    "load_downloads": (("load",), load_downloads),
    "seconds": (("seconds",), seconds),
    "lighthouse": (("lighthouse",), lighthouse),
}
