"""Curves from requests: what is drawn, before it is drawn."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

from loadtest.simulate.results import Served, Slo

BINS: Final = 60


def curve(values: Sequence[float], points: int = 200) -> list[tuple[float, float]]:
    """Value and share of all that are no larger, at so many points at most, in order."""
    ordered = sorted(values)
    count = len(ordered)
    places = sorted({min(count - 1, round(step * (count - 1) / (points - 1))) for step in range(points)})
    return [(ordered[place], (place + 1) / count) for place in places] if ordered else []


def hit_rate(served: Sequence[Served], span_s: float, bins: int = BINS) -> list[tuple[float, float]]:
    """Time and share of prompt tokens that a cache had, of the requests that arrived in each bin."""
    return _ratio(served, span_s, bins, lambda one: (one.cached_tokens, one.prompt_tokens))


def goodput(served: Sequence[Served], slo: Slo, span_s: float, bins: int = BINS) -> list[tuple[float, float]]:
    """Time and share of requests inside the SLO, of those that arrived in each bin."""
    return _ratio(served, span_s, bins, lambda one: (one.meets(slo), 1))


def _ratio(
    served: Sequence[Served], span_s: float, bins: int, of: Callable[[Served], tuple[int, int]]
) -> list[tuple[float, float]]:
    parts, wholes = [0] * bins, [0] * bins
    for one in served:
        place = min(bins - 1, int(one.at / span_s * bins))
        part, whole = of(one)
        parts[place] += part
        wholes[place] += whole
    middle = span_s / bins / 2
    return [
        (place * span_s / bins + middle, parts[place] / wholes[place])
        for place in range(bins)
        if wholes[place]
    ]


def load(
    served: Sequence[Served], replicas: Sequence[str], span_s: float, bins: int = BINS
) -> dict[str, list[float]]:
    """Mean number of requests on each replica in each bin; what failed there before is not counted."""
    width_s = span_s / bins
    edges = [place * width_s for place in range(bins)]
    rows = {replica: [0.0] * bins for replica in replicas}
    for one in served:
        row = rows[one.replica]
        place = max(0, bisect_right(edges, one.dispatched_at) - 1)
        while place < bins and edges[place] < one.ended_at:
            begins, ends = max(edges[place], one.dispatched_at), min(edges[place] + width_s, one.ended_at)
            row[place] += (ends - begins) / width_s
            place += 1
    return rows
