"""Colab's kernel on this machine: its versions, its module, and a package that only the set-up cell brings."""

import os
from pathlib import Path

import certifi
import pytest
from forge import can_open, command, opened
from jupyter_client import KernelManager

from cvlab import run

PYTHON = run.book_root() / ".venv-colab" / "bin" / "python"
STAND_IN = Path(__file__).parent / "stand_in"


@pytest.fixture(scope="session")
def colab():
    """The interpreter of the environment that `make colab` makes."""
    if not PYTHON.exists():
        pytest.skip("there is no .venv-colab: make colab makes it")
    return PYTHON


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where the published notebooks get the package from: (repository@commit, certificates)."""
    if not can_open():
        pytest.skip("openssl and git are needed to stand in for the book's home")
    folder = tmp_path_factory.mktemp("forge")
    with opened(folder) as (address, commit, certificate):
        known = Path(os.environ.get("PIP_CERT") or certifi.where())  # pip asks PyPI for what builds the package
        certificates = folder / "certificates.pem"
        certificates.write_bytes(known.read_bytes() + certificate.read_bytes())
        yield f"{address}@{commit}", certificates


@pytest.fixture
def kernel(colab, home, tmp_path):
    """The client of a kernel that was started as on Colab, in an empty folder."""
    command(colab, "-m", "venv", "--without-pip", tmp_path / "python", cwd=tmp_path)
    program = tmp_path / "python" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs, own = (command(python, "-c", ask, cwd=tmp_path) for python in (colab, program))
    Path(own, "colab.pth").write_text(f"{theirs}\n{STAND_IN}\n")  # where no .pth file counts: no clone's cvlab
    folder = tmp_path / "empty folder"
    folder.mkdir()
    environment = {
        **os.environ,
        **run.KERNEL_ENVIRONMENT,
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": "",
        "CVLAB_DATA": "",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PIP_ROOT_USER_ACTION": "ignore",
        "GIT_SSL_CAINFO": str(home[1]),
        "SSL_CERT_FILE": str(home[1]),
    }
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv = [
        str(program),
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
        "--InteractiveShellApp.exec_lines=import google.colab",
    ]
    manager.start_kernel(env=environment, cwd=str(folder))
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
