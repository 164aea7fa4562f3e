"""Tell whether a lesson's stored outputs are still true, by the stamp that the run left in its notebook.

The outputs of a lesson depend on its code cells, the modules of `cvlab` that it reaches through imports, its
parameters, and the files of the book that it opened. The stamp holds a digest of each, and where all of them are the
same today, there is no need to execute the lesson again. Prose, comments, docstrings and formatting change no output,
so they don't count. Nor do versions of packages: the stamp names them for people to read.

The checksum in a stamp guards against mistakes, such as an output edited by hand. It is not a signature.

Standard library alone, and the same digests on Python 3.10–3.13.
"""

import ast
import functools
import hashlib
import json
import platform
import sys
import time
from pathlib import Path

from . import files

PACKAGE = "cvlab"
EVERYTHING = f"{PACKAGE}.*"
NEVER = "never executed with a stamp"
EDITED = "its outputs or its stamp were edited after it was executed"
REPORT = f"from {PACKAGE} import stamps\nstamps.report()"  # the cell that ends an execution, and is then taken out
ABOUT_ITSELF = ("__all__", "__version__")  # what a module says of itself: not code that a lesson runs


def read(notebook: dict) -> dict | None:
    """Give the stamp of a notebook (nbformat's, or what json makes of the file); None without a whole one."""
    stamp = notebook["metadata"].get(PACKAGE, {}).get("stamp")
    whole = isinstance(stamp, dict) and stamp.get("checksum") == _checksum(notebook, stamp)
    return stamp if whole else None


def seal(notebook: dict, stamp: dict) -> None:
    """Put a stamp into the notebook whose outputs it vouches for, together with its checksum."""
    notebook["metadata"][PACKAGE] = {"stamp": {**stamp, "checksum": _checksum(notebook, stamp)}}


def why_stale(root: Path, notebook: dict, fingerprint: dict) -> str | None:
    """Tell why a notebook has to be executed again.

    Args:
        root: the book's folder.
        notebook: with its outputs and its stamp.
        fingerprint: what `dependencies` gives for the lesson today.

    Returns:
        The reason, in a few words; None where the outputs are still true.
    """
    if not notebook["metadata"].get(PACKAGE, {}).get("stamp"):
        return NEVER
    stamp = read(notebook)
    if stamp is None:
        return EDITED
    then = {**stamp["fingerprint"], **stamp["files"]}
    now = {**fingerprint, **{name: _file_digest(root / name) for name in stamp["files"]}}
    changed = [name for name in dict.fromkeys([*now, *then]) if now.get(name) != then.get(name)]
    return f"changed: {', '.join(changed)}" if changed else None


def dependencies(root: Path, notebook: dict, parameters: dict) -> dict:
    """Give a digest of each thing that a lesson's outputs depend on, but for the files that it opens.

    Args:
        root: the book's folder, which holds the package `cvlab`.
        notebook: the lesson.
        parameters: a dict of what differs from its parameters cell.

    Returns:
        A dict: "code cells", "parameters" and each reached module, such as "cvlab/boxes.py", → sha256.
    """
    cells, imports = [], set()
    for cell in code_cells(notebook):
        source = _text(cell["source"])
        code, imported = _read_cell(source)
        imports |= imported
        cells.append([code, sorted(cell["metadata"].get("tags", []))])
    modules = reached(root, imports)
    return {"code cells": _digest(cells), "parameters": _digest(parameters), **dict(sorted(modules.items()))}


def code_cells(notebook: dict) -> list:
    """List a notebook's code cells, without the one that papermill adds for other parameters."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and not is_injected(cell)]


def is_injected(cell: dict) -> bool:
    """Tell whether papermill added this cell, with the parameters of the run."""
    return "injected-parameters" in cell["metadata"].get("tags", [])


def report() -> None:
    """Print, in the kernel at the end of an execution, what the lesson ran on, opened and claimed, as JSON."""
    check = sys.modules.get(f"{PACKAGE}.check")
    keras = sys.modules.get("keras")
    packages = ["numpy", *(["keras", keras.backend.backend()] if keras else [])]
    versions = {name: sys.modules[name].__version__ for name in packages if name in sys.modules}
    print(
        json.dumps(
            {
                "versions": {"python": platform.python_version(), **versions},
                "machine": {"architecture": platform.machine(), "processor": _processor()},
                "files": dict(sorted(files.opened.items())),
                "cpu_seconds": round(time.process_time(), 1),
                "claims": check.tally if check else {"skipped": 0, "failed": 0},
            }
        )
    )


def _processor():
    """Name the model of the processor, as far as the system tells."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())


def _checksum(notebook, stamp):
    """Hash a stamp, apart from its checksum, with the outputs that it vouches for; the stamp itself covers the code."""
    content = {key: value for key, value in stamp.items() if key != "checksum"}
    return _digest([content, [_text(cell["outputs"]) for cell in code_cells(notebook)]])


def _text(value):
    """Join lines that a notebook's file holds as a list, wherever they are within `value`."""
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return "".join(value)
    if isinstance(value, list):
        return [_text(item) for item in value]
    return {key: _text(item) for key, item in value.items()} if isinstance(value, dict) else value


def _digest(value):
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _file_digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


# Which modules are reached. An import inside a function counts, as does one that a condition may skip.


def reached(root: Path, imports: set[str]) -> dict:
    """Follow imports through the package: a dict of the file of each module that they reach → digest of its code."""
    modules, waiting = {}, set(imports)
    while waiting:
        name = waiting.pop()
        if name == EVERYTHING:
            paths = sorted((root / PACKAGE).rglob("*.py"))
        else:
            places = [root.joinpath(*name.split(".")) for name in _with_parents(name)]
            paths = [path for place in places for path in (place.with_suffix(".py"), place / "__init__.py")]
        for path in paths:
            file = path.relative_to(root).as_posix()
            if file not in modules and path.is_file():
                package = ".".join(path.relative_to(root).parts[:-1])
                modules[file], imported = read_module(path.read_text(encoding="utf-8"), package)
                waiting |= imported
    return modules


def _with_parents(name):
    """List `cvlab`, `cvlab.engine` and `cvlab.engine.backend` for the last of them."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


@functools.cache
def read_module(source: str, package: str) -> tuple:
    """Give the digest of a module's code, and what it imports of the package."""
    tree = ast.parse(source)
    tree.body = [node for node in _without_docstring(tree.body) if not _is_about_itself(node)]
    return _digest(_outline(tree)), _imported(tree, package)


def _is_about_itself(node):
    """Tell whether a statement assigns one of ABOUT_ITSELF, which change when a module is added to the package."""
    return isinstance(node, ast.Assign) and any(getattr(target, "id", None) in ABOUT_ITSELF for target in node.targets)


def _read_cell(source):
    """Give a cell's code as nested lists, and what it imports of the package.

    A cell that is no plain Python, as with a magic, is taken as the text that it is; it might import anything.
    """
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return source, {EVERYTHING}
    return [_outline(tree), _is_silenced(source, tree)], _imported(tree, "")


def _is_silenced(source, tree):
    """Tell whether a semicolon after the last statement keeps its value from being shown."""
    if not tree.body:
        return False
    last = tree.body[-1]
    line = source.split("\n")[last.end_lineno - 1].encode()
    return line[last.end_col_offset :].lstrip().startswith(b";")


def _imported(tree, package):
    """Give the names of what code imports of the package: modules, and names within them that may be modules.

    A plain `import cvlab` reaches every module, as each is loaded when it is first named.
    """
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                binds_package = alias.name == PACKAGE or alias.asname is None
                names.add(EVERYTHING if binds_package and _is_ours(alias.name) else alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *filter(None, [node.module])])
            names |= {EVERYTHING if alias.name == "*" else f"{module}.{alias.name}" for alias in node.names}
            names.add(module)
    return {name for name in names if _is_ours(name)}


def _is_ours(name):
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


# Code as nested lists, the same on every version of Python.


def _outline(node):
    """Give a syntax tree as nested lists, without positions, docstrings and what only some versions of Python note.

    Newer versions have fields that older ones don't know, such as `type_params`; they are empty unless used. Python
    3.12 ends some format specifications of f-strings with an empty constant.
    """
    if isinstance(node, list):
        return [_outline(item) for item in node]
    if isinstance(node, ast.Constant):
        return ["Constant", ascii(node.value)]  # repr() depends on the version's table of printable characters
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        fields["body"] = _without_docstring(node.body)
    elif isinstance(node, ast.JoinedStr):
        fields["values"] = [value for value in node.values if getattr(value, "value", None) != ""]
    kept = {name: _outline(value) for name, value in sorted(fields.items()) if value is not None and value != []}
    return [type(node).__name__, kept]


def _without_docstring(body):
    """Leave out the docstring that a module, a class or a function may begin with."""
    first = body[0] if body else None
    has_one = isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str)
    return body[1:] if has_one else body
