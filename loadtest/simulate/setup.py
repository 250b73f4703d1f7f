"""What is simulated: replicas, workers, and what they get to know of each other how late."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Protocol

from loadtest.simulate.hardware import HARDWARE, Hardware
from policies.routing.policy import Policy

if TYPE_CHECKING:
    from loadtest.simulate.fleet import Fleet

PolicyMaker = Callable[[Random], Policy]
"""Makes one worker's policy."""


class Fault(Protocol):
    """Something that goes wrong, or changes, at a time."""

    @property
    def at(self) -> float: ...
    def strike(self, fleet: "Fleet") -> None: ...


@dataclass(frozen=True, slots=True)
class ReplicaSetup:
    """One replica; `slowdown` multiplies its step times, and nobody is told."""

    id: str
    hardware: Hardware
    slowdown: float = 1.0
    weight: float = 1.0

    def named(self, id_: str) -> "ReplicaSetup":
        """Another one of its kind."""
        return replace(self, id=id_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A fleet and the router before it. None switches a source of knowledge off."""

    replicas: Sequence[ReplicaSetup]
    workers: int = 1
    scrape_interval_s: float | None = 1.0
    gossip_s: float | None = 0.005
    gossip_loss: float = 0.0
    kv_events_s: float | None = None
    faults: Sequence[Fault] = ()
    seed: int = 0
    fast_forward: bool = True

    def struck_by(self, faults: Sequence[Fault]) -> "Setup":
        """The same, with these faults."""
        return replace(self, faults=faults)


def alike(
    count: int, hardware: Hardware = HARDWARE["8b-h100"], slowdowns: Sequence[float] = (1.0,)
) -> list[ReplicaSetup]:
    """`count` replicas `r0`, `r1`, ... of one kind, with `slowdowns` repeating."""
    return [ReplicaSetup(f"r{index}", hardware, slowdowns[index % len(slowdowns)]) for index in range(count)]
