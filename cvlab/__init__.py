"""What the book's chapters run on: a module an idea, each imported when it is first used."""

import importlib

__version__ = "1.0.0"
__all__ = [
    "audit",
    "backend",
    "boxes",
    "check",
    "checkpoints",
    "classify",
    "data",
    "deconv",
    "explain",
    "explore",
    "faster_rcnn",
    "files",
    "grade",
    "interact",
    "learn",
    "localize",
    "metrics",
    "page",
    "propose",
    "rcnn",
    "readers",
    "records",
    "requirements",
    "retinanet",
    "roi",
    "run",
    "segment",
    "show",
    "stamps",
    "stores",
    "sweep",
    "zoo",
]


def __getattr__(name):
    if name in __all__:
        return importlib.import_module(f"cvlab.{name}")
    raise AttributeError(f"cvlab has no {name!r}; its modules are {', '.join(__all__)}")


def __dir__():
    return sorted([*globals(), *__all__])
