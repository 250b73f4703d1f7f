"""One configuration in a comparison, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter
from typing import Any

from loadtest.simulate.fleet import Watch, simulate
from loadtest.simulate.results import Served, Slo, Summary, measured, summary_of
from loadtest.simulate.setup import PolicyMaker, Setup
from loadtest.simulate.workload import Workload
from policies.routing import POLICIES
from policies.routing.policy import Policy


@dataclass(frozen=True, slots=True)
class OfKind:
    """A `PolicyMaker`: one of the shipped kinds, with its options."""

    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, random: Random) -> Policy:
        kind = POLICIES[self.kind]
        policy: Policy = kind(kind.Options(**self.options), random)
        return policy


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy in front of a fleet; `name` is what the report calls it."""

    name: str
    policy: PolicyMaker
    setup: Setup


@dataclass(frozen=True, slots=True)
class Result:
    """All requests in order of arrival, and the summary of those after the warm-up."""

    name: str
    served: Sequence[Served]
    summary: Summary
    replicas: Sequence[str]
    left_out: int
    """Calls that no replica could hold."""
    wall_s: float

    @property
    def requests_per_minute(self) -> float:
        """Of wall time."""
        return len(self.served) / self.wall_s * 60 if self.wall_s else 0.0


def run(contender: Contender, workload: Workload, slo: Slo, watch: Watch | None = None) -> Result:
    """Simulate it, all of it unless `watch` has seen enough."""
    began = perf_counter()
    served = simulate(workload, contender.setup, contender.policy, watch)
    return result_of(contender, served, slo, len(workload), perf_counter() - began)


def result_of(contender: Contender, served: Sequence[Served], slo: Slo, calls: int, wall_s: float) -> Result:
    """Of what came of `calls` calls, in any order."""
    ordered = sorted(served, key=lambda one: one.at)
    replicas = list(dict.fromkeys([*[r.id for r in contender.setup.replicas], *[s.replica for s in served]]))
    return Result(
        name=contender.name,
        served=ordered,
        summary=summary_of(measured(ordered), slo, len(replicas)),
        replicas=replicas,
        left_out=calls - len(ordered),
        wall_s=wall_s,
    )
