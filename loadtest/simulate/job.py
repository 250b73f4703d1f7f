"""One cell of the benchmark: a policy on a scenario under conditions, and what it gave."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from loadtest.simulate.contestants import Contestant
from loadtest.simulate.faults import Flush, Restart, ScaleUp, SlowDown, WorkerCrash
from loadtest.simulate.fleet import simulate
from loadtest.simulate.pooled import pooled_hit_rate
from loadtest.simulate.results import WARM_UP, Served, Slo, Summary, measured, summary_of
from loadtest.simulate.scenarios import SCENARIOS, Library
from loadtest.simulate.setup import Fault, Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`incident`: one of `INCIDENTS`, in the middle; it may be that only the requests after it count."""

    scenario: str
    policy: str
    speed: float
    seed: int = 0
    workers: int = 1
    gossip_loss: float = 0.0
    scrape_interval_s: float | Literal["its own"] | None = "its own"
    incident: str | None = None
    pooled: bool = False
    """Whether the bound on hits is wanted too."""
    enough: float = 0.0
    """Stop as soon as goodput is sure to stay below this; the summary is then of those that were served."""


class Answer(NamedTuple):
    summary: Summary
    pooled_hit: float | None


class Incident(NamedTuple):
    """What happens, and for how long requests are looked at from then on; None: at those of the whole run."""

    faults: Callable[[float, Setup], Sequence[Fault]]
    window_s: float | None


def _nothing(_at: float, _setup: Setup) -> Sequence[Fault]:
    return ()


def _restart(at: float, setup: Setup) -> Sequence[Fault]:
    return (Restart(at, setup.replicas[0].id, 60.0),)


def _flush(at: float, setup: Setup) -> Sequence[Fault]:
    return (Flush(at, setup.replicas[0].id),)


def _slow(at: float, setup: Setup) -> Sequence[Fault]:
    return (SlowDown(at, setup.replicas[0].id, 4.0, 180.0),)


def _half_as_many_again(at: float, setup: Setup) -> Sequence[Fault]:
    half = setup.replicas[: len(setup.replicas) // 2]
    return (ScaleUp(at, tuple(one.named(f"new-{one.id}") for one in half)),)


def _kill_worker(at: float, setup: Setup) -> Sequence[Fault]:
    return (WorkerCrash(at, setup.workers - 1),)


INCIDENTS: Final[Mapping[str, Incident]] = MappingProxyType(
    {
        "nothing": Incident(_nothing, 180.0),
        "cold restart": Incident(_restart, 180.0),
        "silent flush": Incident(_flush, 180.0),
        "4x slower": Incident(_slow, 180.0),
        "half as many again": Incident(_half_as_many_again, 300.0),
        "worker killed": Incident(_kill_worker, None),
    }
)
_AT_SHARE: Final = 0.4
"""Of the time in which sessions start."""


def measure(job: Job, library: Library, policies: Mapping[str, Contestant]) -> Answer:
    """Simulate it."""
    scenario, contestant = SCENARIOS[job.scenario], policies[job.policy]
    workload = library.workload(scenario.source, job.seed).faster(job.speed)
    setup = Setup(
        replicas=scenario.replicas,
        workers=job.workers,
        gossip_loss=job.gossip_loss,
        scrape_interval_s=_scrape_interval_s(job, contestant),
        kv_events_s=contestant.kv_events_s,
        seed=job.seed,
    )
    at = workload.sessions[-1].starts_s * _AT_SHARE
    if job.incident is not None:
        setup = setup.struck_by(INCIDENTS[job.incident].faults(at, setup))
    watch = Hopeless(len(workload), scenario.slo, job.enough)
    served = simulate(workload, setup, lambda random: contestant.make(random, scenario.replicas), watch)
    window_s = None if job.incident is None else INCIDENTS[job.incident].window_s
    counted = measured(served) if window_s is None else _within(served, at, at + window_s)
    pooled = pooled_hit_rate(served, setup, workload.block_tokens) if job.pooled else None
    return Answer(summary_of(counted, scenario.slo, len(scenario.replicas)), pooled)


class Hopeless:
    """A `Watch` that has seen enough once goodput cannot reach `goodput` any more.

    Even if all requests of the warm-up, which do not count, are among those that missed so far.
    """

    def __init__(self, calls: int, slo: Slo, goodput: float) -> None:
        self._slo = slo
        self._bearable = calls * (WARM_UP + (1 - WARM_UP) * (1 - goodput))

    def __call__(self, one: Served) -> bool:
        self._bearable -= not one.meets(self._slo)
        return self._bearable < 0


def _scrape_interval_s(job: Job, contestant: Contestant) -> float | None:
    return contestant.scrape_interval_s if job.scrape_interval_s == "its own" else job.scrape_interval_s


def _within(served: list[Served], since: float, until: float) -> list[Served]:
    return [one for one in served if since <= one.at < until]
