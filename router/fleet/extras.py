"""Libraries that only some installations have."""

from importlib import import_module
from typing import Any


class ExtraMissing(Exception):
    """An optional dependency is not installed; the message says which extra brings it."""


def optional(module: str, extra: str) -> Any:
    """The module, imported now. Raises `ExtraMissing`."""
    try:
        return import_module(module)
    except ImportError:
        raise ExtraMissing(f"{module} is not installed: pip install '{extra}'") from None
