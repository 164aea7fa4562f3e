"""The functions of `cvlab.engine.backend`, under the name from which lessons import them."""

from typing import Any

from cvlab.engine import backend


def __getattr__(name: str) -> Any:
    return getattr(backend, name)
