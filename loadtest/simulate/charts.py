"""Inline SVG for the report: lines over a plane, and a strip of load for each replica.

Colours come from the page's CSS variables, so that a chart is legible in light and in dark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import ceil, floor, log10
from typing import Final

Points = Sequence[tuple[float, float]]

_WIDTH: Final = 560
_HEIGHT: Final = 250
_LEFT: Final = 44
_RIGHT: Final = 24
_TOP: Final = 12
_BOTTOM: Final = 40
_NAMES: Final = 112
"""Left of the strips, for the replicas' names."""
_NAME_CHARS: Final = 15


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to pixels. `ticks` are values and what is written there."""

    title: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    logarithmic: bool = False
    left: int = _LEFT

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one; what lies beyond is at the end."""
        if self.logarithmic:
            value, low, high = log10(max(value, self.low)), log10(self.low), log10(self.high)
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))


def seconds_axis(title: str, values: Sequence[float]) -> Axis:
    """Logarithmic, whole decades around all values above 1 ms."""
    low = floor(log10(max(min(values, default=0.01), 1e-3)))
    high = max(low + 1, ceil(log10(max(max(values, default=1.0), 1e-3))))
    ticks = [(10.0**power, _power(power)) for power in range(low, high + 1)]
    return Axis(title, 10.0**low, 10.0**high, ticks, logarithmic=True)


def time_axis(span_s: float) -> Axis:
    """Minutes from the beginning."""
    step = _round_step(span_s / 60 / 6)
    ticks = [(minute * 60, f"{minute:g}") for minute in _multiples(step, span_s / 60)]
    return Axis("minutes", 0.0, span_s, ticks)


def share_axis(title: str, high: float = 1.0) -> Axis:
    """From 0 to the next tenth."""
    top = min(1.0, max(0.1, ceil(high * 10) / 10))
    step = 0.25 if top > 0.6 else 0.1
    return Axis(title, 0.0, top, [(value, f"{value:.0%}") for value in _multiples(step, top)])


def lines(
    name: str, x: Axis, y: Axis, curves: Sequence[Points], mark: tuple[float, str] | None = None
) -> str:
    """One line a curve, in the order of the series colours; `mark`: a value of `x` with a word beside it."""
    inner = [_grid(x, y)]
    if mark is not None:
        at = _x(x, mark[0])
        inner.append(
            f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text class="mark" x="{at + 4}" y="{_HEIGHT - _BOTTOM - 6}">{escape(mark[1])}</text>'
        )
    for index, points in enumerate(curves):
        path = " ".join(f"{_x(x, px)},{_y(y, py)}" for px, py in points)
        inner.append(f'<polyline class="s{index}" points="{path}"/>')
    return _svg(name, _HEIGHT, inner)


def strips(name: str, rows: Mapping[str, Sequence[float]], most: float, x: Axis, series: int) -> str:
    """One row a replica, one cell a bin, as strong as it is loaded, `most` the strongest."""
    height = 16 if len(rows) <= 16 else 8
    x = replace(x, left=_NAMES)
    inner: list[str] = []
    for index, (row, cells) in enumerate(rows.items()):
        top = _TOP + index * (height + 2)
        name = escape(row[-_NAME_CHARS:])
        inner.append(f'<text class="row" x="{_NAMES - 6}" y="{top + height - 4}">{name}</text>')
        inner += _cells(cells, most, top, height, series)
    bottom = _TOP + len(rows) * (height + 2)
    inner += [_tick_below(x, value, label, bottom) for value, label in x.ticks]
    inner.append(_below(x.title, bottom))
    return _svg(name, bottom + _BOTTOM, inner)


def _cells(cells: Sequence[float], most: float, top: int, height: int, series: int) -> list[str]:
    width = (_WIDTH - _NAMES - _RIGHT) / len(cells)
    return [
        f'<rect class="f{series}" x="{_NAMES + place * width:.1f}" y="{top}" width="{width + 0.2:.1f}" '
        f'height="{height}" fill-opacity="{0.04 + 0.96 * min(1.0, value / most):.2f}">'
        f"<title>{value:.1f} in flight</title></rect>"
        for place, value in enumerate(cells)
    ]


def _svg(name: str, height: int, inner: Sequence[str]) -> str:
    body = "".join(inner)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(name)}">'
        f"<title>{escape(name)}</title>{body}</svg>"
    )


def _grid(x: Axis, y: Axis) -> str:
    bottom = _HEIGHT - _BOTTOM
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_y(y, value)}" y2="{_y(y, value)}"/>'
        f'<text class="row" x="{_LEFT - 6}" y="{_y(y, value) + 4}">{label}</text>'
        for value, label in y.ticks
    ]
    parts += [_tick_below(x, value, label, bottom) for value, label in x.ticks]
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(_below(x.title, bottom))
    return "".join(parts)


def _tick_below(x: Axis, value: float, label: str, bottom: int) -> str:
    return (
        f'<line class="axis" x1="{_x(x, value)}" x2="{_x(x, value)}" y1="{bottom}" y2="{bottom + 4}"/>'
        f'<text class="tick" x="{_x(x, value)}" y="{bottom + 17}">{label}</text>'
    )


def _below(title: str, bottom: int) -> str:
    return f'<text class="title" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{bottom + 34}">{escape(title)}</text>'


def _x(axis: Axis, value: float) -> float:
    return round(axis.left + axis.share(value) * (_WIDTH - axis.left - _RIGHT), 1)


def _y(axis: Axis, value: float) -> float:
    return round(_HEIGHT - _BOTTOM - axis.share(value) * (_HEIGHT - _TOP - _BOTTOM), 1)


def _power(power: int) -> str:
    return f"{10**power:,} s" if power >= 0 else f"{10 ** (power + 3):g} ms"


def _round_step(least: float) -> float:
    """1, 2 or 5 times a power of ten, no smaller."""
    power = 10.0 ** floor(log10(least)) if least > 0 else 1.0
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def _multiples(step: float, high: float) -> list[float]:
    return [round(step * number, 6) for number in range(floor(high / step + 1e-9) + 1)]
