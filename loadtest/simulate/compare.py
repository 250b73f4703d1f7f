"""Where each of two results wins: figure by figure, and by the kind of request."""

from collections.abc import Callable, Sequence
from itertools import groupby
from math import isnan
from typing import Final, NamedTuple

from loadtest.simulate.contender import Result
from loadtest.simulate.results import Served, Slo, Summary, measured

_LEVEL: Final = 0.02
"""Figures this close to each other, in shares of the larger, are called level."""


class Figure(NamedTuple):
    """A column of the report."""

    title: str
    of: Callable[[Summary], float]
    show: Callable[[float], str]
    larger_is_better: bool = False


def _seconds(value: float) -> str:
    return "-" if isnan(value) else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def _millis(value: float) -> str:
    return "-" if isnan(value) else f"{value * 1e3:.0f} ms"


def _percent(value: float) -> str:
    return "-" if isnan(value) else f"{value:.1%}"


FIGURES: Final = (
    Figure("goodput", lambda s: s.goodput, _percent, larger_is_better=True),
    Figure("cache hits", lambda s: s.hit, _percent, larger_is_better=True),
    Figure("TTFT mean", lambda s: s.ttft_mean_s, _seconds),
    Figure("TTFT p50", lambda s: s.ttft_p50_s, _seconds),
    Figure("TTFT p90", lambda s: s.ttft_p90_s, _seconds),
    Figure("TTFT p99", lambda s: s.ttft_p99_s, _seconds),
    Figure("TPOT p50", lambda s: s.tpot_p50_s, _millis),
    Figure("TPOT p99", lambda s: s.tpot_p99_s, _millis),
    Figure("whole p99", lambda s: s.end_to_end_p99_s, _seconds),
    Figure("busiest / mean", lambda s: s.busiest, lambda value: "-" if isnan(value) else f"{value:.2f}"),
)


class Verdict(NamedTuple):
    """One figure of two results. `winner` None: level."""

    title: str
    winner: str | None
    values: tuple[str, str]


def verdicts(one: Result, other: Result) -> list[Verdict]:
    """Every figure of the report."""
    return [
        Verdict(
            figure.title,
            _winner(one, other, figure.of(one.summary), figure.of(other.summary), figure.larger_is_better),
            (figure.show(figure.of(one.summary)), figure.show(figure.of(other.summary))),
        )
        for figure in FIGURES
    ]


def _winner(one: Result, other: Result, a: float, b: float, larger_is_better: bool) -> str | None:
    if isnan(a) or isnan(b) or abs(a - b) <= _LEVEL * max(abs(a), abs(b)):
        return None
    return one.name if (a > b) is larger_is_better else other.name


def sentences(one: Result, other: Result, slo: Slo) -> list[str]:
    """For people: who wins which figures, and for which requests."""
    found = verdicts(one, other)
    lines = [_wins(name, index, found) for index, name in enumerate((one.name, other.name))]
    level = [verdict.title for verdict in found if verdict.winner is None]
    if level:
        lines.append(f"Level within {_LEVEL:.0%}: {', '.join(level)}.")
    return [*lines, *_by_kind(one, other, slo)]


def _wins(name: str, index: int, found: Sequence[Verdict]) -> str:
    won = [f"{v.title} ({v.values[index]} against {v.values[1 - index]})" for v in found if v.winner == name]
    return f"{name} wins {', '.join(won)}." if won else f"{name} wins no figure."


class Kind(NamedTuple):
    """A way to sort requests; `of` gives the place of one in `names`."""

    by: str
    names: Sequence[str]
    of: Callable[[Served], int]


def kinds_of(served: Sequence[Served]) -> list[Kind]:
    """Cut so that there are about as many requests in each part."""
    lengths = sorted(one.prompt_tokens for one in served)
    answers = sorted(one.completion_tokens for one in served)
    times = sorted(one.at for one in served)
    short, long = lengths[len(lengths) // 3], lengths[2 * len(lengths) // 3]
    middle, half = answers[len(answers) // 2], times[len(times) // 2]
    return [
        Kind(
            "prompt",
            (f"up to {short:,} tokens", f"up to {long:,}", "longer"),
            lambda one: (one.prompt_tokens > short) + (one.prompt_tokens > long),
        ),
        Kind(
            "answer", (f"up to {middle:,} tokens", "longer"), lambda one: int(one.completion_tokens > middle)
        ),
        Kind("time", ("first half", "second half"), lambda one: int(one.at > half)),
    ]


def _by_kind(one: Result, other: Result, slo: Slo) -> list[str]:
    pair = (measured(one.served), measured(other.served))
    if not all(pair):
        return []
    return [
        _line(kind, one.name, other.name, [_misses(kind, served, slo) for served in pair])
        for kind in kinds_of(pair[0])
    ]


def _misses(kind: Kind, served: Sequence[Served], slo: Slo) -> dict[int, float]:
    """Share of requests outside the SLO in each part."""
    parts = groupby(sorted(served, key=kind.of), kind.of)
    missed = {place: [not one.meets(slo) for one in part] for place, part in parts}
    return {place: sum(flags) / len(flags) for place, flags in missed.items()}


def _line(kind: Kind, a: str, b: str, misses: Sequence[dict[int, float]]) -> str:
    cells = [
        f"{name} {misses[0].get(place, 0.0):.1%} / {misses[1].get(place, 0.0):.1%}"
        for place, name in enumerate(kind.names)
    ]
    return f"Outside the SLO by {kind.by} ({a} / {b}): {'; '.join(cells)}."
