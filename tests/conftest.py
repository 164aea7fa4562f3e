"""What all tests share: the environment of the book's kernels, how nbval compares, and one headless browser."""

import functools
import os
import sys
from pathlib import Path

import pytest
from outputs import settle

from cvlab.run import KERNEL_ENVIRONMENT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "book"))

from browser import chromium

os.environ.update(KERNEL_ENVIRONMENT)

QUIET = (  # and every other host out of reach
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


# Fixtures that take long to make: under pytest-xdist, one worker runs all tests that ask for one of these.
COSTLY = {"lite0", "published", "trained"}


def pytest_addoption(parser):
    parser.addoption("--weekly", action="store_true", help="also run what takes long (make test-all)")


def pytest_configure(config):
    # The workers share the cores: more threads than these would only wait. Lessons run as they were executed.
    if "PYTEST_XDIST_WORKER" in os.environ and not config.getoption("nbval", default=False):
        os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", OMP_NUM_THREADS="1")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads which test belongs to which group
def pytest_collection_modifyitems(config, items):
    """Leave out what is weekly; let nbval pass over stderr, which no committed output has, and over small changes."""
    if not config.getoption("weekly"):
        long = [item for item in items if item.get_closest_marker("weekly")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
    for item in items:
        for costly in COSTLY.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.xdist_group(costly))
        if hasattr(item, "compare_outputs"):
            item.compare_outputs = functools.partial(compare_outputs, item, item.compare_outputs)
        if hasattr(item.parent, "skip_compare") and "stderr" not in item.parent.skip_compare:
            item.parent.skip_compare += ("stderr",)


def compare_outputs(item, compare, new, committed):
    return compare(settle(new, committed, item.sanitize), committed)


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium; one for all tests, as Playwright can't be started twice at a time."""
    executable = chromium()
    if executable is None:
        missing = "no Chromium here: install it, or name it in the environment variable CHROMIUM"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        sandbox = () if os.geteuid() else ("--no-sandbox",)
        instance = playwright.chromium.launch(executable_path=executable, args=[*QUIET, *sandbox])
        yield instance
        instance.close()


@pytest.fixture(scope="module")
def small_backbone():
    """Three convolutions with batch normalization, feature maps of stride 2, 4 and 8: quick to train."""
    import keras

    from cvlab import backend

    backend.set_seed(5)
    pixels = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 128, offset=-1)(pixels)
    for filters in (8, 16, 16):
        x = keras.layers.Conv2D(filters, 3, 2, "same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    return keras.Model(pixels, x, name="small")
