"""The same code on the other backends: this suite again, in a process of its own, with KERAS_BACKEND set."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.house


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_unit_tests_pass_on(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    tests = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not house", "--ignore", tests / "pages", tests],
        env={**os.environ, "KERAS_BACKEND": backend}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
