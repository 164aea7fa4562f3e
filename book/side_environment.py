"""Make an environment beside .venv, for the tests on other versions (colab, lowest, torch) or for the peers (races).

    python book/side_environment.py colab [--python 3.11]    # .venv-colab: what Colab has installed
    python book/side_environment.py lowest                   # .venv-lowest: the lower ends of the ranges
    python book/side_environment.py torch                    # .venv-torch: PyTorch in place of TensorFlow
    python book/side_environment.py races                    # .venv-races: the peers of experiments/races
    python book/side_environment.py --renew                  # take Colab's list of today into tests/colab

An environment is made anew where what it is made from has changed, and left alone otherwise.
"""

import argparse
import datetime
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

from packaging.requirements import InvalidRequirement, Requirement

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "tests" / "colab" / "constraints.txt"
COLABS_LIST = "https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.txt"
COLABS_PYTHON = "3.13"
# With another Python, a package that no lesson imports may ask for a newer one: then only these are held, and what
# pyproject.toml names.
HELD = {"h5py", "ipykernel", "ipython", "jax", "jaxlib", "keras", "scipy", "tensorflow", "tensorflow-cpu"}
RACES = re.compile(r"^races = \[(.*?)^\]", re.M | re.S)  # an extra of pyproject.toml: no lesson imports what it names
SAME = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHONS = {"colab": COLABS_PYTHON, "lowest": "3.10", "torch": SAME, "races": SAME}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=PYTHONS)
    parser.add_argument("--python", help="a version, or the path of an interpreter")
    parser.add_argument("--renew", action="store_true", help="take Colab's list of today")
    asked = parser.parse_args()
    if asked.renew:
        renew()
    if asked.name:
        make(asked.name, asked.python or PYTHONS[asked.name])


def renew():
    """Write the versions that Colab publishes into tests/colab/constraints.txt."""
    with urlopen(COLABS_LIST, timeout=30) as response:
        text = response.read(1 << 20).decode("utf-8")
    today = datetime.datetime.now(datetime.timezone.utc).date()
    lines = [line for line in text.splitlines() if is_on_pypi(line)]
    if not any(line.startswith("keras==") for line in lines):
        sys.exit(f"side_environment: {COLABS_LIST} lists no version of Keras; {CONSTRAINTS.name} stays as it was")
    head = re.sub(r"\d{4}-\d\d-\d\d", str(today), "".join(comments(CONSTRAINTS)))
    part = CONSTRAINTS.with_suffix(".part")
    part.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    part.replace(CONSTRAINTS)
    print(f"{CONSTRAINTS.relative_to(ROOT)}: {len(lines)} versions of {today}")


def comments(path):
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.startswith("#")]


def is_on_pypi(line):
    """Tell a line of `pip freeze` that any machine can ask PyPI for: a name and a version, neither local nor a URL."""
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return False
    return requirement.url is None and "==" in line and "+" not in line


def make(name, python):
    """Make .venv-NAME with a Python, unless it is there and made from the same."""
    folder = ROOT / f".venv-{name}"
    sources = [ROOT / "pyproject.toml", ROOT / "requirements.txt", CONSTRAINTS, Path(__file__)]
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources) + python.encode()).hexdigest()
    stamp = folder / "made-from"
    if stamp.exists() and stamp.read_text() == digest:
        return
    print(f"making .venv-{name} (some minutes)", flush=True)
    made = uv("venv", "--quiet", "--seed", "--clear", "--python", python, folder, check=False)
    if made.returncode:
        print(f"no Python {python} here; taking {sys.version.split()[0]}", flush=True)
        uv("venv", "--quiet", "--seed", "--clear", "--python", sys.executable, folder)
    interpreter = folder / "bin" / "python"
    version = subprocess.run(
        [interpreter, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
    ).stdout.strip()
    install = ("pip", "install", "--quiet", "--compile-bytecode", "--python", interpreter)
    uv(*install, *packages(name, version, folder), cwd=ROOT)
    if name == "races":
        uv(*install, "--no-deps", *peers())
    stamp.write_text(digest)


def packages(name, version, folder):
    """Give what to install, as arguments of `uv pip install`."""
    if name == "torch":
        return ["--editable", ".[torch,run,test]"]
    if name == "races":
        return ["--constraint", "requirements.lock", "--editable", ".[cpu,run]"]
    if name == "lowest":
        return ["--resolution", "lowest-direct", "--editable", ".[cpu,run,test]", "--requirement", "requirements.txt"]
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    lines = [line for line in lines if line.partition("==")[0] not in ("pip", "setuptools")]  # no lesson asks for them
    if version != COLABS_PYTHON:
        project = RACES.sub("", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        named = HELD | set(re.findall(r'^ {4}"([\w-]+)', project, re.M))
        lines = [line for line in lines if line.partition("==")[0].lower() in named]
    lines += [line.replace("tensorflow==", "tensorflow-cpu==") for line in lines if line.startswith("tensorflow==")]
    held = folder / "constraints.txt"
    held.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return ["--constraint", held, "--editable", ".[cpu,run,test]"]


def peers():
    """List the extra `races` of pyproject.toml, exact versions."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"([\w-]+==[^"]+)"', RACES.search(project)[1])


def uv(*arguments, check=True, cwd=None):
    done = subprocess.run([sys.executable, "-m", "uv", *map(str, arguments)], cwd=cwd)
    if check and done.returncode:
        sys.exit(f"side_environment: uv could not {' '.join(map(str, arguments[:2]))}, see above")
    return done


if __name__ == "__main__":
    main()
