"""How an option is declared: a typed field with its advice and its checks beside it.

A section of the file is a frozen, slotted, keyword-only dataclass whose fields are all options.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, dataclass_transform, get_args, get_origin

Check = Callable[[Any], str | None]
"""Takes a decoded value; returns what is wrong and what would be right, or None."""


class Complaint(Exception):
    """A value cannot be used; the message says why and what would be right, and never shows a secret."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a configuration stands: what its references and its relative paths are looked up in."""

    directory: Path
    environ: Mapping[str, str]


Convert = Callable[[str, Place], str]
"""Turns what is written into what is meant, for example a relative path; raises Complaint."""


def option(
    advice: str,
    *checks: Check,
    default: Any = MISSING,
    default_factory: Any = MISSING,
    example: object = None,
    convert: Convert | None = None,
    each: tuple[Check, ...] = (),
) -> Any:
    """One option; without a default it is required.

    `example` is shown where there is no value to show; `each` are checks on every entry of an array or table.
    """
    metadata = {"advice": advice, "checks": checks, "example": example, "convert": convert, "each": each}
    declared: Any = field(default=default, default_factory=default_factory, metadata=metadata)
    return declared


def internal(default: Any) -> Any:
    """A field that is no option: it cannot be written in the file, and is not compared or shown."""
    declared: Any = field(default=default, compare=False, repr=False, metadata={"internal": True})
    return declared


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option, internal))
def section(cls: type[Any]) -> type[Any]:
    """Makes a class of options frozen, slotted and keyword-only."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


def options(cls: type[Any]) -> dict[str, Field[Any]]:
    """The options of a section, or of any dataclass of options, in the order in which they are declared."""
    return {each.name: each for each in fields(cls) if not each.metadata.get("internal")}


def advice(declared: Field[Any]) -> str:
    return str(declared.metadata.get("advice", ""))


def checks(declared: Field[Any]) -> tuple[Check, ...]:
    return tuple(declared.metadata.get("checks", ()))


def entry_checks(declared: Field[Any]) -> tuple[Check, ...]:
    return tuple(declared.metadata.get("each", ()))


def default(declared: Field[Any]) -> Any:
    """The default, made anew; MISSING for a required option."""
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default


def without_none(kind: Any) -> Any:
    """The type of an option that is set: `X` for `X | None`."""
    if get_origin(kind) in (Union, UnionType):
        return next(member for member in get_args(kind) if member is not NoneType)
    return kind
