"""The same code on the other backends: the tests of what runs on Keras again, in a process with KERAS_BACKEND set."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.house
ROOT = Path(__file__).parents[1]
# Most of JAX's time here goes into compiling what runs once; so, it takes two thirds of it.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def interpreter_with(backend):
    """Give the Python that has a backend; PyTorch may have an environment of its own, as it fills some gigabytes."""
    if backend == "torch":
        named, own = os.environ.get("CVLAB_TORCH_PYTHON"), ROOT / ".venv-torch" / "bin" / "python"
        if named or own.exists():
            return named or str(own)
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed" + ("; `make torch` installs it" if backend == "torch" else ""))
    return sys.executable


def run_unit_tests(backend, chosen):
    """Run the tests of the modules that use Keras, those that a marker expression chooses, on a backend."""
    python = interpreter_with(backend)
    modules = [path.stem for path in (ROOT / "cvlab").rglob("*.py") if "keras" in path.read_text(encoding="utf-8")]
    files = [path for name in sorted(modules) if (path := ROOT / "tests" / f"test_{name}.py").exists()]
    assert len(files) >= 3
    done = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, *files],
        env={**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": QUICKLY_COMPILED},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


def test_the_contract_of_the_backends_holds_on_jax():
    run_unit_tests("jax", "contract")


@pytest.mark.weekly
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_all_unit_tests_pass_on(backend):
    run_unit_tests(backend, "not house")


@pytest.mark.weekly
@pytest.mark.parametrize("lesson", ["week1/localization", "week2/proposals", "week3/upsampling", "week4/cam"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_lesson_of_each_week_runs_on(backend, lesson, tmp_path):
    python = interpreter_with(backend)
    environment = {**os.environ, "KERAS_BACKEND": backend, "CVLAB_CHECKS": "report", "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "cvlab", "run", lesson, "--output", tmp_path / "done.ipynb"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
