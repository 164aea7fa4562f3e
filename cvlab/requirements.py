"""What the lessons need on the machine they run on: what is missing is installed, what is too old is named."""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any

# One module, several distributions that carry it.
ALSO_KNOWN_AS = {
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "tensorflow": ("tensorflow-cpu", "tf-nightly"),
}
# Colab, and whoever else set up the kernel, chose these together: they stay as they are.
KEPT = ("keras", "numpy", "tensorflow", "tensorflow-cpu", "jax", "jaxlib", "torch")


def prepare() -> None:
    """Install the packages that `cvlab` needs and that are missing, and leave all others as they are.

    Raises:
        ImportError: where a package is older than the lessons need, or newer than they know: one line with its
            version, the range, and the command that would mend it.
        subprocess.CalledProcessError: where pip could not install what is missing.
    """
    missing, unfit = compare(needed())
    if missing:
        kept = [f"{name}=={version}" for name in KEPT if (version := version_of(name))]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *map(str, missing), *kept], check=True)
        importlib.invalidate_caches()
    if unfit:
        found = ", ".join(f"{requirement.name} {installed(requirement.name)}" for requirement in unfit)
        wanted = " ".join(f'"{requirement.name}{requirement.specifier}"' for requirement in unfit)
        raise ImportError(
            f"this lesson does not run with {found}: run `%pip install {wanted}`, restart the kernel, and begin again"
        )


def needed() -> Any:
    """List the requirements of `cvlab` as installed, and of the Keras backend that is chosen.

    Returns:
        list of packaging.requirements.Requirement; empty where cvlab was not installed but found on the path.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("cvlab") or []
    except metadata.PackageNotFoundError:
        return []
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    requirements = {}
    for requirement in map(Requirement, lines):
        is_backend = requirement.name == backend and "extra" in str(requirement.marker)
        if requirement.marker is None or is_backend:
            requirement.marker, requirement.extras = None, set()
            requirements.setdefault(requirement.name, requirement)
    return list(requirements.values())


def compare(requirements: Iterable) -> Any:
    """Say which requirements this environment does not meet.

    Returns:
        Two lists of requirements: those that are not installed, and those installed in a version out of their range.
    """
    missing, unfit = [], []
    for requirement in requirements:
        version = installed(requirement.name)
        if version is None:
            missing.append(requirement)
        elif not requirement.specifier.contains(version, prereleases=True):
            unfit.append(requirement)
    return missing, unfit


def installed(name: str) -> Any:
    """Give the version of a distribution, or of another one that carries the same module; None where there is none."""
    versions = map(version_of, (name, *ALSO_KNOWN_AS.get(name, ())))
    return next((version for version in versions if version), None)


def version_of(name: str) -> str | None:
    """Give the version of the distribution of just this name, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
