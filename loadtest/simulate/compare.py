"""Two runs of one workload, side by side: the figures, and where each is better."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from loadtest.simulate.figures import Figures, Promise, Record, figures, judged

_LEVEL = 0.03
"""Differences below this are none."""


@dataclass(frozen=True, slots=True)
class Run:
    """One policy's, with the name it is shown under."""

    name: str
    records: Sequence[Record]
    figures: Figures
    decisions: int
    wall_s: float


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of the table; the lower the better, unless `more` says otherwise."""

    title: str
    read: Callable[[Figures], float]
    form: Callable[[float], str]
    more: bool = False


def _per_cent(value: float) -> str:
    return f"{value:.1%}"


def seconds(value: float) -> str:
    """Three digits that matter."""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


COLUMNS = (
    Column("cached", lambda f: f.hit, _per_cent, more=True),
    Column("TTFT mean", lambda f: f.ttft_mean_s, seconds),
    Column("p50", lambda f: f.ttft_p50_s, seconds),
    Column("p90", lambda f: f.ttft_p90_s, seconds),
    Column("p99", lambda f: f.ttft_p99_s, seconds),
    Column("per token p50", lambda f: f.tpot_p50_s, seconds),
    Column("p99", lambda f: f.tpot_p99_s, seconds),
    Column("goodput", lambda f: f.goodput, _per_cent, more=True),
)


def verdict(one: Run, other: Run, promise: Promise) -> list[str]:
    """Sentences: who is better at what, by how much, for which prompts and when."""
    said = [_overall(one, other)]
    said += _by_class(one, other, promise)
    return said


def _overall(one: Run, other: Run) -> str:
    parts = []
    for name, read in (("mean TTFT", _ttft_mean), ("p99 TTFT", _ttft_p99), ("time per token", _tpot)):
        mine, theirs = read(one.figures), read(other.figures)
        if theirs > 0 and abs(mine / theirs - 1) > _LEVEL:
            better = one.name if mine < theirs else other.name
            parts.append(
                f"{name} is {max(mine, theirs) / max(1e-9, min(mine, theirs)):.2f}x better with {better}"
            )
    gap = one.figures.goodput - other.figures.goodput
    if abs(gap) > 0.002:
        better = one.name if gap > 0 else other.name
        parts.append(f"{abs(gap) * 100:.1f} points more requests keep the promise with {better}")
    return ("; ".join(parts) or "there is no difference worth a name") + "."


def _by_class(one: Run, other: Run, promise: Promise) -> list[str]:
    """Thirds by the length of the prompt."""
    lengths = sorted(record.prompt_tokens for record in judged(one.records))
    bounds = [0, lengths[len(lengths) // 3], lengths[2 * len(lengths) // 3], lengths[-1] + 1]
    said = []
    for low, high in pairwise(bounds):
        mine, theirs = (_within(run.records, low, high) for run in (one, other))
        if not mine or not theirs:
            continue
        a, b = (figures(records, promise, warm_up=0.0).ttft_mean_s for records in (mine, theirs))
        if min(a, b) > 0 and max(a, b) / min(a, b) - 1 > _LEVEL:
            better = one.name if a < b else other.name
            sooner = f"{max(a, b) / min(a, b):.2f}x sooner with {better}"
            said.append(f"Prompts of {low:,} to {high - 1:,} tokens begin {sooner}.")
    return said


def _within(records: Iterable[Record], low: int, high: int) -> list[Record]:
    return [record for record in judged(list(records)) if low <= record.prompt_tokens < high]


def _ttft_mean(f: Figures) -> float:
    return f.ttft_mean_s


def _ttft_p99(f: Figures) -> float:
    return f.ttft_p99_s


def _tpot(f: Figures) -> float:
    return f.tpot_p50_s
