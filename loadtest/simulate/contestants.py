"""Who takes part in the routing benchmark: the shipped policies, an oracle, and whatever table one brings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name
from random import Random
from typing import NamedTuple

from loadtest.simulate.contender import OfKind
from loadtest.simulate.hardware import Hardware
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.setup import PolicyMaker
from policies.routing import POLICIES
from policies.routing.policy import Policy

ORACLE = "oracle"


class Contestant(NamedTuple):
    """A policy, and what it must be told to be itself; see `Setup`.

    `make` is handed what the replicas are, for policies that their owner would tell how much these cache.
    """

    make: Callable[[Random, Hardware], Policy]
    scrape_interval_s: float | None = 1.0
    kv_events_s: float | None = None


@dataclass(frozen=True, slots=True)
class Whatever:
    """The same policy, whatever the replicas are."""

    make: PolicyMaker

    def __call__(self, random: Random, _hardware: Hardware) -> Policy:
        return self.make(random)


def contestants(table: str = "") -> dict[str, Contestant]:
    """By name. `table`: `module:NAME` of a mapping from name to `Contestant`, or to a bare `PolicyMaker`.

    Raises ImportError, AttributeError, ValueError where there is no such table.
    """
    known: dict[str, PolicyMaker | Contestant] = {kind: OfKind(kind) for kind in POLICIES}
    known[ORACLE] = Oracle
    more: Mapping[str, PolicyMaker | Contestant] = resolve_name(table) if table else {}
    return {
        name: one if isinstance(one, Contestant) else Contestant(Whatever(one))
        for name, one in (known | dict(more)).items()
    }
