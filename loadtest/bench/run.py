"""One interleaved run: every round starts all candidates afresh and gives each its turn under each workload.

The order within a workload is drawn anew each time, so that a slow minute of the machine hits whom it will.
"""

import contextlib
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from loadtest.bench.candidates import Candidate
from loadtest.bench.client import Assignment
from loadtest.bench.figures import RunFigures
from loadtest.bench.processes import (
    Cores,
    Replicas,
    Router,
    StartError,
    replicas_running,
    router_running,
    started_on,
)
from loadtest.bench.workloads import Workload

REPLICAS = 4
_NUMBERS_PER_RUN = 10_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run; the seed draws the orders."""

    workloads: tuple[Workload, ...]
    candidates: tuple[Candidate, ...]
    rounds: int
    peers: Path
    cores: Cores
    seed: int
    start_timeout_s: float = 60.0


class Sample(msgspec.Struct, frozen=True):
    """One candidate under one workload in one round; `turn` is its place in the order drawn."""

    round: int
    turn: int
    workload: str
    candidate: str
    figures: RunFigures
    upstream_connections: int
    """Connections the router opened to the replicas: far more than the client's mean that it keeps none."""


@dataclass(frozen=True, slots=True)
class Results:
    """`skipped` says why a candidate has no samples, or none after some round."""

    samples: tuple[Sample, ...]
    skipped: Mapping[str, str]


def shortened(workload: Workload) -> Workload:
    """For a quick look: a window too short to compare with."""
    warmup_s = workload.warmup_s if workload.ramp_s else workload.warmup_s / 2
    return replace(workload, warmup_s=warmup_s, window_s=min(workload.window_s, 1.0))


def measure(plan: Plan, tell: Callable[[str], None], advance: Callable[[int], None]) -> Results:
    """Runs the plan; `tell` hears what is going on, `advance` how many runs are over or will not be."""
    chance = random.Random(plan.seed)
    samples: list[Sample] = []
    skipped: dict[str, str] = {}
    with replicas_running(REPLICAS, plan.cores.load) as replicas:
        for number in range(1, plan.rounds + 1):
            with contextlib.ExitStack() as stack:
                tell(f"round {number}/{plan.rounds}: starting the routers")
                routers = _start_all(plan, replicas, stack, skipped)
                advance(len(plan.workloads) * (len(plan.candidates) - len(routers)))
                for sample in _round(plan, number, routers, replicas, chance, tell):
                    samples.append(sample)
                    advance(1)
    return Results(tuple(samples), skipped)


def _start_all(
    plan: Plan, replicas: Replicas, stack: contextlib.ExitStack, skipped: dict[str, str]
) -> dict[str, Router]:
    routers: dict[str, Router] = {}
    for candidate in plan.candidates:
        if candidate.name in skipped:
            continue
        running = router_running(
            candidate, replicas.ports, plan.peers, plan.cores.router, plan.start_timeout_s
        )
        try:
            routers[candidate.name] = stack.enter_context(running)
        except StartError as error:
            skipped[candidate.name] = str(error)
    return routers


def _round(
    plan: Plan,
    number: int,
    routers: Mapping[str, Router],
    replicas: Replicas,
    chance: random.Random,
    tell: Callable[[str], None],
) -> Iterator[Sample]:
    for place, workload in enumerate(plan.workloads):
        replicas.pace(workload.token_interval_ms)
        for turn, name in enumerate(_shuffled(list(routers), chance)):
            tell(f"round {number}/{plan.rounds}: {workload.name} {name}")
            run_number = (number * len(plan.workloads) + place) * len(routers) + turn
            connections_before = replicas.connections_made()
            figures = _client(plan, workload, routers[name], replicas, run_number * _NUMBERS_PER_RUN)
            connections = replicas.connections_made() - connections_before - 1
            yield Sample(number, turn, workload.name, name, figures, connections)


def _shuffled(names: Sequence[str], chance: random.Random) -> list[str]:
    return chance.sample(names, len(names))


def _client(
    plan: Plan, workload: Workload, router: Router, replicas: Replicas, first_number: int
) -> RunFigures:
    assignment = Assignment(
        workload=workload,
        ports=router.ports,
        router_pid=router.pid,
        upstream_pid=replicas.pid,
        router_core=plan.cores.router,
        load_core=plan.cores.load,
        first_number=first_number,
    )
    with started_on(plan.cores.load):
        done = subprocess.run(
            [sys.executable, "-m", "loadtest.bench.client"],
            input=msgspec.json.encode(assignment),
            stdout=subprocess.PIPE,
            check=True,
            timeout=workload.warmup_s + workload.window_s + 60,
        )
    return msgspec.json.decode(done.stdout, type=RunFigures)
