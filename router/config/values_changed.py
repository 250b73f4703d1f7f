"""Two values of options, compared down to the single ones that differ."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from types import NoneType
from typing import Any, NamedTuple

from router.config import option
from router.config.secret import Secret
from router.config.source import KeyPath


class Changed(NamedTuple):
    """One value; None where it is not set. A secret stays one."""

    path: KeyPath
    before: Any
    after: Any


def changed_values(before: Any, after: Any, path: KeyPath = ()) -> Iterator[Changed]:
    """Every single value in which two of the same kind differ, in the order of the model."""
    if before == after:
        return
    inner = _inner(before, after)
    if inner is None:
        yield Changed(path, before, after)
        return
    for name, old, new in inner:
        yield from changed_values(old, new, (*path, name))


def _inner(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]] | None:
    """What two values are made of, side by side; None for single ones, and where one is not there."""
    if is_dataclass(before) and type(before) is type(after):
        return ((name, getattr(before, name), getattr(after, name)) for name in option.options(type(before)))
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return ((name, before.get(name), after.get(name)) for name in {**before, **after})
    return None


def in_words(value: Any) -> str:
    """For people: a secret is only that, and long values are cut."""
    words = next((words for kind, words in _WORDS if isinstance(value, kind)), None)
    if words is not None:
        return words(value)
    if is_dataclass(value):
        given = ((name, getattr(value, name)) for name in option.options(type(value)))
        return ", ".join(f"{name} {in_words(each)}" for name, each in given if each is not None)
    text = str(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."


_MOST_LETTERS = 80
_WORDS: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (NoneType, lambda _: "not set"),
    (Secret, lambda value: value.masked()),
    (bool, lambda value: "true" if value else "false"),
    (float, lambda value: f"{value:.15g}"),
    (
        Mapping,
        lambda value: ", ".join(f"{name} {in_words(each)}" for name, each in value.items()) or "nothing",
    ),
    (tuple, lambda value: ", ".join(map(in_words, value)) or "nothing"),
)
