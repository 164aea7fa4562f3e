"""What the lowest versions of Keras and ipywidgets offer: `python tests/lowest_api.py` writes the list anew.

Run it with the environment of `make lowest`. A line is a public name and the arguments it takes; `**` stands for any.
"""

import inspect
import pkgutil
import sys
from pathlib import Path

LIST = Path(__file__).parent / "references" / "lowest_api.txt"


def offered():
    """List what the installed versions offer: dict of dotted name → set of argument names, None where any will do."""
    import ipywidgets
    import keras

    names = {}
    for module in [keras, *packages(keras)]:
        for name, value in vars(module).items():
            if (not name.startswith("_") or name == "__version__") and not inspect.ismodule(value):
                names[f"{module.__name__}.{name}"] = arguments(value)
    for name, value in vars(ipywidgets).items():
        if inspect.isclass(value) and issubclass(value, ipywidgets.Widget):
            names[f"ipywidgets.{name}"] = {trait for trait in value.class_trait_names() if not trait.startswith("_")}
    return names


def packages(package):
    """Go through the public packages within a package, and within these."""
    for found in pkgutil.iter_modules(package.__path__):
        inner = getattr(package, found.name, None)
        if found.name not in ("src", "_tf_keras") and inspect.ismodule(inner):
            yield inner
            yield from packages(inner) if hasattr(inner, "__path__") else ()


def arguments(value):
    """Give the names of the arguments that a function or a class's constructor takes; None where any will do."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    # A layer hands on what it does not know, such as `name` and `dtype`: no name is sure to be refused.
    return None if any(p.kind == p.VAR_KEYWORD for p in parameters) else named


def recorded():
    """Read the list that stands in the repository, as `offered` gives it."""
    names = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        name, _, inside = line.removesuffix(")").partition("(")
        names[name] = None if inside == "**" else set(filter(None, inside.split(", ")))
    return names


def main():
    lines = (f"{name}({'**' if given is None else ', '.join(sorted(given))})" for name, given in offered().items())
    part = LIST.with_suffix(".part")
    part.write_text("\n".join(sorted(lines)) + "\n", encoding="utf-8")
    part.replace(LIST)


if __name__ == "__main__":
    sys.exit(main())
