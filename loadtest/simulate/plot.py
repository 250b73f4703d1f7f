"""Line plots as inline SVG: no script, no style sheet from elsewhere, legible on light and dark."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT = 720, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 14, 40
COLOURS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626", "#0891b2", "#ca8a04", "#be185d",
           "#4d7c0f", "#475569", "#7c3aed", "#b45309")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """What a side means; `log` for magnitudes."""

    title: str
    form: Callable[[float], str]
    log: bool = False


def plot(lines: Sequence[Line], x: Axis, y: Axis) -> str:
    """One picture, `WIDTH` by `HEIGHT`; empty lines are left out."""
    lines = [line for line in lines if line.points]
    xs = [point[0] for line in lines for point in line.points if not x.log or point[0] > 0]
    ys = [point[1] for line in lines for point in line.points]
    if not xs:
        return "<p>there is nothing to draw</p>"
    across = _Scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT, log=x.log)
    up = _Scale(min(0.0, *ys), max(ys) or 1.0, HEIGHT - _BOTTOM, _TOP)
    drawn = [_grid(across, up, x, y), *(_path(line, across, up) for line in lines)]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y.title)} by {escape(x.title)}">'
        + "".join(drawn)
        + "</svg>"
    )


class _Scale:
    """Values to places."""

    def __init__(self, low: float, high: float, begin: float, end: float, *, log: bool = False) -> None:
        self.log = log
        self.low, self.high = (log10(low), log10(high)) if log else (low, high)
        self.begin, self.end = begin, end

    def __call__(self, value: float) -> float:
        at = log10(value) if self.log else value
        share = (at - self.low) / ((self.high - self.low) or 1.0)
        return self.begin + share * (self.end - self.begin)

    def ticks(self) -> list[float]:
        if self.log:
            return [10.0**power for power in range(ceil(self.low), floor(self.high) + 1)]
        step = _nice((self.high - self.low) / 5)
        first = ceil(self.low / step)
        return [number * step for number in range(first, floor(self.high / step) + 1)]


def _nice(rough: float) -> float:
    """1, 2 or 5 times a power of ten."""
    if rough <= 0:
        return 1.0
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    parts = []
    for value in up.ticks():
        place = up(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>'
        )
        parts.append(
            f'<text x="{_LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{escape(y.form(value))}</text>'
        )
    for value in across.ticks():
        place = across(value)
        where = f'x="{place:.1f}" y="{HEIGHT - _BOTTOM + 16}" text-anchor="middle"'
        parts.append(f"<text {where}>{escape(x.form(value))}</text>")
    parts.append(f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{escape(x.title)}</text>')
    parts.append(f'<text x="{_LEFT}" y="{_TOP - 3}" class="title">{escape(y.title)}</text>')
    return "".join(parts)


def _path(line: Line, across: _Scale, up: _Scale) -> str:
    points = [(px, py) for px, py in line.points if not across.log or px > 0]
    steps = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in points)
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    name = f"<title>{escape(line.name)}</title>"
    return f'<polyline points="{steps}" stroke="{line.colour}"{dash}>{name}</polyline>'
