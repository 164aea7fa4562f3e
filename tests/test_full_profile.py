"""The profile `full`, executed to its end: each lesson with its own datasets, networks and sizes, and few steps.

What takes long is reduced in one table; all else is as in chapters/profiles/full.yml. The datasets are cut from those
in CVLAB_DATA, so that it takes minutes and not days; without them, the lessons that need one are skipped.
"""

import os
import re
import zipfile
from pathlib import Path

import pytest

from cvlab import run

pytestmark = [pytest.mark.house, pytest.mark.weekly]
# Of each parameter that sets how long a lesson takes: its value here. Everywhere, and in one lesson alone.
REDUCED = {
    "background_images": 6,
    "batch_size": 4,
    "cars": 6,
    "fine_tune_steps": 2,
    "input_sizes": [32, 64],
    "judged": 4,
    "limit": 24,
    "limits": [12, 8],
    "mended_steps": 2,
    "old_limit": 8,
    "pairs": 2,
    "pictures_per_class": [2, 4],
    "proposals_per_image": 60,
    "samples": 2,
    "seeds": 2,
    "steps": 2,
    "tested": 8,
}
IN_LESSON = {"week3/upsampling": {"limit": 40, "tested": 10}}
KEPT = {
    "raccoon": (range(1, 31), range(161, 173)),
    "cifar10": 12,
    "camvid": 10,
}  # numbers; images per class; of a split
LESSONS_ON_JAX = ("week1/localization", "week3/evaluation")
RESNET50 = Path.home() / ".keras" / "models"


def reduced(name):
    """Give the full profile's parameters of a lesson, with what takes long reduced."""
    parameters = run.settings(name, "full")
    for key, value in {**REDUCED, **IN_LESSON.get(name, {})}.items():
        if isinstance(parameters.get(key), dict):
            parameters[key] = dict.fromkeys(parameters[key], value)
        elif key in parameters:
            parameters[key] = value
    if not list(RESNET50.glob("resnet50*notop*")):  # 98 MB, which this machine may be unable to fetch
        parameters = {key: "efficientnet_lite0" if value == "resnet50" else value for key, value in parameters.items()}
    return parameters


def wanted(dataset, member, counts):
    """Tell whether a file of an archive belongs to the cut."""
    if dataset == "raccoon":
        number = re.search(r"raccoon-(\d+)\.", member)
        return number is None or any(int(number[1]) in numbers for numbers in KEPT["raccoon"])
    group = member.rpartition("/")[0]
    counts[group] = counts.get(group, 0) + 1
    return not group or counts[group] <= KEPT[dataset]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Cut the datasets: the first images of each class or split, with all that belongs to them."""
    whole, folder = os.environ.get("CVLAB_DATA"), tmp_path_factory.mktemp("data")
    for dataset in KEPT:
        source = Path(whole or "", f"{dataset}.zip")
        if not whole or not source.exists():
            continue
        counts = {}
        with zipfile.ZipFile(source) as archive, zipfile.ZipFile(folder / source.name, "w") as cut:
            for member in sorted(archive.namelist()):
                if not member.endswith("/") and wanted(dataset, member, counts):
                    cut.writestr(member, archive.read(member))
    return folder


def execute(name, backend, datasets, tmp_path, monkeypatch):
    parameters = reduced(name)
    if (dataset := parameters.get("dataset")) in KEPT and not (datasets / f"{dataset}.zip").exists():
        pytest.skip(f"{dataset}.zip is not in CVLAB_DATA")
    if backend == "jax":
        pytest.importorskip("jax")
    monkeypatch.setenv("CVLAB_DATA", str(datasets))
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setenv("CVLAB_CHECKS", "report")
    monkeypatch.setenv("PYTHONPATH", str(run.book_root()))
    try:
        told = run.execute(name, tmp_path / "done.ipynb", parameters)
    except run.ChapterFailed as error:
        pytest.fail(f"{error}\n{error.traceback[-3000:]}")
    assert told["seconds"] > 0


@pytest.mark.parametrize("name", run.chapters())
def test_the_full_profile_runs_to_its_end(name, datasets, tmp_path, monkeypatch):
    execute(name, "tensorflow", datasets, tmp_path, monkeypatch)


@pytest.mark.parametrize("name", LESSONS_ON_JAX)
def test_the_full_profile_runs_to_its_end_on_jax(name, datasets, tmp_path, monkeypatch):
    execute(name, "jax", datasets, tmp_path, monkeypatch)


def test_every_parameter_of_the_full_profile_is_executed():
    """What is reduced keeps its kind, and nothing of the profile is left out."""
    for name in run.chapters():
        full, less = run.settings(name, "full"), reduced(name)
        assert set(full) == set(less), name
        assert all(type(full[key]) is type(less[key]) for key in full), name
