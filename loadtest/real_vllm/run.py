"""One interleaved run: in every round each candidate has its turn under each workload, in rotated order.

A turn: the replicas' caches are emptied, the router starts afresh, warms up, and is measured. Within a round
all candidates get the same texts.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import msgspec

from loadtest.bench.candidates import Candidate
from loadtest.bench.processes import Router, StartError, ask, router_running
from loadtest.real_vllm.client import drive
from loadtest.real_vllm.figures import Forecast, RunFigures, figures_of, forecast_from
from loadtest.real_vllm.fleet import Fleet, counters, fleet_running, flush
from loadtest.real_vllm.workloads import Workload

_START_TIMEOUT_S = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; the seed draws the texts."""

    workloads: tuple[Workload, ...]
    candidates: tuple[Candidate, ...]
    rounds: int
    peers: Path
    fleet: Fleet
    seed: int


class Sample(msgspec.Struct, frozen=True):
    """One candidate under one workload in one round."""

    round: int
    workload: str
    candidate: str
    figures: RunFigures


@dataclass(frozen=True, slots=True)
class Results:
    """`skipped` says why a candidate has no samples, or none after some round."""

    samples: tuple[Sample, ...]
    skipped: dict[str, str]


def measure(plan: Plan, tell: Callable[[str], None], advance: Callable[[], None]) -> Results:
    """Runs the plan; `tell` hears what is going on, `advance` that a turn is over. Raises StartError."""
    samples: list[Sample] = []
    skipped: dict[str, str] = {}
    with fleet_running(plan.fleet, tell) as ports:
        for number, workload, candidate in turns_of(plan):
            tell(f"round {number}/{plan.rounds}: {workload.name} {candidate.name}")
            if candidate.name not in skipped:
                try:
                    figures = _turn(plan, number, workload, candidate, ports)
                    samples.append(Sample(number, workload.name, candidate.name, figures))
                except StartError as error:
                    skipped[candidate.name] = str(error)
            advance()
    return Results(tuple(samples), skipped)


def turns_of(plan: Plan) -> Iterator[tuple[int, Workload, Candidate]]:
    """Round, workload and candidate; who begins changes with every round and workload."""
    for number in range(1, plan.rounds + 1):
        for place, workload in enumerate(plan.workloads):
            for candidate in rotated(plan.candidates, number - 1 + place):
                yield number, workload, candidate


def rotated(items: Sequence[T], by: int) -> list[T]:
    """The same circle, begun elsewhere."""
    by %= max(1, len(items))
    return [*items[by:], *items[:by]]


def _turn(plan: Plan, number: int, workload: Workload, candidate: Candidate, ports: list[int]) -> RunFigures:
    block_tokens = plan.fleet.block_tokens
    flush(ports)
    with router_running(candidate, ports, plan.peers, None, _START_TIMEOUT_S) as router:
        warm_up = workload.smaller().turns(Random(f"{plan.seed} {number} warm-up"))
        asyncio.run(drive(router.ports[0], warm_up, block_tokens))
        before, foreseen = counters(ports), _forecast(candidate, router)
        texts = workload.turns(Random(f"{plan.seed} {number}"))
        seen = asyncio.run(drive(router.ports[0], texts, block_tokens))
        after, forecast = counters(ports), _forecast(candidate, router)
    grown = [late.since(early) for late, early in zip(after, before, strict=True)]
    return figures_of(grown, seen, forecast.since(foreseen) if forecast and foreseen else None)


def _forecast(candidate: Candidate, router: Router) -> Forecast | None:
    if candidate.name.partition(":")[0] != "turnout":
        return None
    return forecast_from(ask(router.spare_port, "GET", "/metrics")[1])
