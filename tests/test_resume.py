"""Trainings that were cut off: they go on where they were, and end as they would have without the cut."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import keras
import nbformat
import numpy as np
import pytest

from cvlab import backend, learn
from cvlab.engine import resume

IMAGES = np.random.default_rng(0).normal(size=(10, 6)).astype("float32")
TARGETS = IMAGES[:, :1] * 2


class Cut(Exception):
    """Stands for a kill in the middle of a training."""


def train(at=None, steps=12, learning_rate=0.05):
    """Train a small model with dropout, as a new process would; cut it off before step `at`."""
    resume.trainings = itertools.count(1)
    backend.set_seed(3)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dropout(0.4, seed=1)(keras.layers.Dense(8, "relu")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    drawn = learn.batches(IMAGES, TARGETS)
    counted = itertools.count()

    def draw(rows, generator):
        if next(counted) == at:
            raise Cut
        inputs, targets = drawn(rows, generator)
        return inputs + generator.normal(size=inputs.shape).astype("float32"), targets

    losses = learn.optimize(model, "mse", draw, len(IMAGES), steps, learning_rate, batch_size=4, seed=5)
    return losses, model.get_weights(), next(counted)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CVLAB_RESUME", str(tmp_path / "states"))
    monkeypatch.setenv("CVLAB_RESUME_EVERY", "0")
    return tmp_path / "states"


@pytest.mark.contract
def test_a_training_that_was_cut_off_ends_with_the_losses_and_weights_of_one_that_was_not(folder, monkeypatch, capsys):
    with monkeypatch.context() as without:
        without.delenv("CVLAB_RESUME")
        losses, weights, _ = train()
    with pytest.raises(Cut):
        train(at=7)
    resumed, resumed_weights, drawn = train()
    assert resumed == losses and drawn == 12 - 7
    assert all(np.array_equal(one, other) for one, other in zip(resumed_weights, weights, strict=True))
    assert "goes on after 7 of 12 steps" in capsys.readouterr().err


def test_another_training_does_not_start_from_its_state(folder):
    with pytest.raises(Cut):
        train(at=7)
    assert train(learning_rate=0.01)[2] == 12
    assert train(steps=9)[2] == 9


def test_without_a_folder_or_within_a_minute_nothing_is_written(folder, monkeypatch):
    monkeypatch.delenv("CVLAB_RESUME_EVERY")
    train()
    assert not folder.exists()


def test_a_full_disk_does_not_end_a_training(folder, monkeypatch, capsys):
    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume.np, "savez", full)
    losses, _, _ = train()
    assert len(losses) == 12 and os.listdir(folder) == []
    assert "can't be saved" in capsys.readouterr().err


LESSONS = {"week1/localization": ("steps", "60"), "week2/fine_tuning": ("steps", "{'last layer': 60, 'both heads': 6}")}


@pytest.mark.weekly
@pytest.mark.parametrize("name", LESSONS)
def test_a_lesson_that_was_killed_while_it_trained_goes_on_and_measures_the_same(name, tmp_path):
    def start(target):
        command = [sys.executable, "-m", "cvlab", "run", name, "-p", *LESSONS[name], "-o", str(target)]
        return subprocess.Popen(command, env={**os.environ, "CVLAB_RESUME_EVERY": "1"})

    whole, cut = tmp_path / "whole.ipynb", tmp_path / "cut.ipynb"
    assert start(whole).wait() in (0, 3)
    first = start(cut)
    while first.poll() is None and not list(tmp_path.glob("cut.resume/*/*.npz")):
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "it ended before a state was saved"
    time.sleep(3)  # its kernel notices within a second or two
    assert start(cut).wait() in (0, 3)
    outputs = [o for cell in nbformat.read(cut, as_version=4).cells for o in cell.get("outputs", ())]
    assert "the training goes on after" in "".join(o.get("text", "") for o in outputs)
    assert not (tmp_path / "cut.resume").exists()
    assert deterministic_claims(cut) == deterministic_claims(whole)


def deterministic_claims(notebook):
    """Give the name and value of each claim about losses and scores, not of those about seconds."""
    claims = json.loads(notebook.with_suffix(".metrics.json").read_text())["claims"]
    return [(c["name"], c["value"]) for c in claims if any(word in c["name"] for word in ("AP", "IoU", "loss"))]
