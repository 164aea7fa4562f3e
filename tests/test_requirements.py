import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from cvlab import requirements


@pytest.fixture
def machine(monkeypatch):
    """A machine with the packages of a dict, name → version; gives the dict and the commands that were run."""
    here, commands = {}, []

    def version(name):
        if name in here:
            return here[name]
        raise metadata.PackageNotFoundError(name)

    monkeypatch.delenv("KERAS_BACKEND", raising=False)  # TensorFlow's, whatever backend these tests run on
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(subprocess, "run", lambda words, check: commands.append(words))
    return here, commands


def asks_for(monkeypatch, *lines):
    monkeypatch.setattr(metadata, "requires", lambda name: list(lines))


def test_what_is_missing_is_installed_and_keras_numpy_and_tensorflow_are_held(machine, monkeypatch):
    here, commands = machine
    here.update({"keras": "3.13.2", "numpy": "2.1.3", "tensorflow": "2.20.0", "pillow": "11.0"})
    asks_for(monkeypatch, "keras>=3.10", "pycocotools>=2.0.8", "pillow>=10", "tensorflow>=2.18; extra == 'cpu'")
    requirements.prepare()
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    held = ["keras==3.13.2", "numpy==2.1.3", "tensorflow==2.20.0"]
    assert commands == [[*pip, "pycocotools>=2.0.8", *held]]


def test_what_is_too_old_is_named_with_its_version_and_what_would_do(machine, monkeypatch):
    here, commands = machine
    here.update({"keras": "3.4.1", "matplotlib": "3.5"})
    asks_for(monkeypatch, "keras<4,>=3.10", "matplotlib>=3.8")
    with pytest.raises(ImportError) as caught:
        requirements.prepare()
    said = str(caught.value)
    assert said.count("\n") == 0 and commands == []
    assert "keras 3.4.1, matplotlib 3.5" in said
    assert '%pip install "keras<4,>=3.10" "matplotlib>=3.8"' in said and "restart the kernel" in said


def test_the_chosen_backend_has_to_be_there_and_new_enough(machine, monkeypatch):
    here, commands = machine
    asks_for(
        monkeypatch,
        "tensorflow-cpu>=2.18; extra == 'cpu'",
        "tensorflow>=2.18; extra == 'gpu'",
        "jax>=0.4.35; extra == 'jax'",
        "torch>=2.4; extra == 'torch'",
    )
    here["tensorflow-cpu"] = "2.17.0"
    with pytest.raises(ImportError, match="does not run with tensorflow 2.17.0"):
        requirements.prepare()
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    requirements.prepare()
    assert commands[-1][5:] == ["jax>=0.4.35", "tensorflow-cpu==2.17.0"]
    here["jax"] = "0.5"
    requirements.prepare()
    assert len(commands) == 1


def test_opencv_counts_by_whatever_name_it_was_installed(machine, monkeypatch):
    here, commands = machine
    asks_for(monkeypatch, "opencv-python-headless>=4.9")
    here["opencv-contrib-python"] = "5.0"
    requirements.prepare()
    assert commands == []


def test_a_package_that_was_not_installed_asks_for_nothing(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    requirements.prepare()


def test_this_environment_meets_what_the_package_asks_for():
    needed = requirements.needed()
    assert {"keras", "numpy", "ipywidgets"} <= {requirement.name for requirement in needed}
    assert all(isinstance(requirement, Requirement) for requirement in needed)
    assert requirements.compare(needed) == ([], [])
