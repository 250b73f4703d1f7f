"""From samples to statements: medians with their spread, ratios, and whether the stated goals hold."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from loadtest.bench.figures import RunFigures
from loadtest.bench.run import Sample
from loadtest.bench.workloads import Workload

REFERENCE = "turnout"
LEVEL = 0.9
"""Two routers are level from here on: a median of few rounds says no more on a machine with noise."""
_FULL_CORE = 0.95

Unit = Literal["requests", "chunks"]


class Spread(msgspec.Struct, frozen=True):
    """Over the rounds."""

    min: float
    median: float
    max: float


def spread(values: Iterable[float | None]) -> Spread | None:
    """None when nothing was measured in any round."""
    known = [value for value in values if value is not None]
    return Spread(min(known), statistics.median(known), max(known)) if known else None


class Row(msgspec.Struct, frozen=True):
    """One candidate under one workload over all rounds; delays are medians of the rounds' quantiles."""

    workload: str
    candidate: str
    rounds: int
    requests_per_cpu_s: Spread | None
    chunks_per_cpu_s: Spread | None
    ratio: float | None
    """The reference's median divided by this one's, in the unit of the workload."""
    paired_ratio: Spread | None
    """The same, round by round: both were measured within the same minute or so."""
    latency_p50_us: float | None
    latency_p99_us: float | None
    first_event_p50_us: float | None
    first_event_p99_us: float | None
    chunk_delay_p50_us: float | None
    chunk_delay_p99_us: float | None
    router_share: Spread
    load_share: Spread
    foreign_share: Spread
    load_bound: bool
    """The load core was full while the router's was not: the router could have done more per second."""
    errors: dict[str, int]
    upstream_connections: int
    """The most the router opened to the replicas in one run."""


class Goal(msgspec.Struct, frozen=True):
    """The reference does at least `ratio` times what the peer does per CPU-second."""

    workload: str
    peer: str
    ratio: float


GOALS = (
    *(Goal(workload, "vllm-router:round_robin", 1.3) for workload in ("W1", "W2s", "W2u", "W5")),
    *(Goal(workload, "vllm-router:round_robin", LEVEL) for workload in ("W3", "W4")),
)


class Verdict(msgspec.Struct, frozen=True):
    goal: Goal
    measured: float
    holds: bool


def unit_of(workload: Workload) -> Unit:
    """At a fixed token rate the work is in the chunks; elsewhere in the requests."""
    return "chunks" if workload.token_interval_ms else "requests"


def rows_of(workload: Workload, candidates: Sequence[str], samples: Sequence[Sample]) -> list[Row]:
    """One row for each of the candidates that was measured, in their order."""
    mine = [sample for sample in samples if sample.workload == workload.name]
    names = [name for name in candidates if any(sample.candidate == name for sample in mine)]
    reference = {s.round: _rate(s.figures, unit_of(workload)) for s in mine if s.candidate == REFERENCE}
    return [_row(workload, [s for s in mine if s.candidate == name], reference) for name in names]


def verdicts_of(rows: Iterable[Row]) -> list[Verdict]:
    """The goals whose two sides were both measured."""
    ratios = {(row.workload, row.candidate): row.ratio for row in rows}
    measured = [(goal, ratios.get((goal.workload, goal.peer))) for goal in GOALS]
    return [Verdict(goal, ratio, ratio >= goal.ratio) for goal, ratio in measured if ratio is not None]


def _rate(figures: RunFigures, unit: Unit) -> float | None:
    return figures.chunks_per_cpu_s if unit == "chunks" else figures.requests_per_cpu_s


def _row(workload: Workload, samples: Sequence[Sample], reference: dict[int, float | None]) -> Row:
    unit = unit_of(workload)
    runs = [sample.figures for sample in samples]
    ours = spread(reference.values())
    theirs = spread(_rate(run, unit) for run in runs)
    pairs = [(reference.get(sample.round), _rate(sample.figures, unit)) for sample in samples]
    return Row(
        workload=workload.name,
        candidate=samples[0].candidate,
        rounds=len(samples),
        requests_per_cpu_s=spread(run.requests_per_cpu_s for run in runs),
        chunks_per_cpu_s=spread(run.chunks_per_cpu_s for run in runs) if workload.streams else None,
        ratio=ours.median / theirs.median if ours and theirs and theirs.median else None,
        paired_ratio=spread(our / their for our, their in pairs if our and their),
        latency_p50_us=_median(run.latency.p50_us for run in runs),
        latency_p99_us=_median(run.latency.p99_us for run in runs),
        first_event_p50_us=_median(run.first_event.p50_us for run in runs),
        first_event_p99_us=_median(run.first_event.p99_us for run in runs),
        chunk_delay_p50_us=_median(run.chunk_delay.p50_us for run in runs),
        chunk_delay_p99_us=_median(run.chunk_delay.p99_us for run in runs),
        router_share=_always(run.router_share for run in runs),
        load_share=_always(run.load_share for run in runs),
        foreign_share=_always(run.foreign_share for run in runs),
        load_bound=statistics.median(_headroom(run) for run in runs) < 1 - _FULL_CORE,
        errors=_summed(run.errors for run in runs),
        upstream_connections=max(sample.upstream_connections for sample in samples),
    )


def _headroom(run: RunFigures) -> float:
    """What was left of the load core, 1 when the router's own core was full anyway."""
    return 1.0 if run.router_share > _FULL_CORE else 1 - run.load_core_busy_s / run.window_s


def _median(values: Iterable[float | None]) -> float | None:
    found = spread(values)
    return found.median if found else None


def _always(values: Iterable[float]) -> Spread:
    known = list(values)
    return Spread(min(known), statistics.median(known), max(known))


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for count in counts:
        for kind, number in count.items():
            total[kind] = total.get(kind, 0) + number
    return total
