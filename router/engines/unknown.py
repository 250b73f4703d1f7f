"""Arithmetic with figures that may be unknown: what depends on an unknown figure is unknown."""

from collections.abc import Iterable


def first(*figures: float | None) -> float | None:
    """The first that is known: sources in order of preference."""
    return next((figure for figure in figures if figure is not None), None)


def total(figures: Iterable[float | None]) -> float | None:
    """The sum; unknown if one of them is, or there is none."""
    known = list(figures)
    if not known:
        return None
    summed = 0.0
    for figure in known:
        if figure is None:
            return None
        summed += figure
    return summed


def product(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left * right


def difference(left: float | None, right: float | None) -> float | None:
    """Unknown also if it is negative: no count of anything is."""
    return None if left is None or right is None or left < right else left - right


def share(part: float | None, whole: float | None) -> float | None:
    """A part of a whole, from 0 to 1; what exceeds the whole fills it. Unknown if the whole is nothing."""
    return None if part is None or not whole else min(part / whole, 1.0)
