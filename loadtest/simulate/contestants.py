"""Who takes part in the routing benchmark: the shipped policies, an oracle, and whatever table one brings."""

from collections.abc import Mapping
from pkgutil import resolve_name
from typing import NamedTuple

from loadtest.simulate.contender import OfKind
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.setup import PolicyMaker
from policies.routing import POLICIES

ORACLE = "oracle"


class Contestant(NamedTuple):
    """A policy, and what it must be told to be itself; see `Setup`."""

    make: PolicyMaker
    scrape_interval_s: float | None = 1.0
    kv_events_s: float | None = None


def contestants(table: str = "") -> dict[str, Contestant]:
    """By name. `table`: `module:NAME` of a mapping from name to `Contestant`, or to a bare `PolicyMaker`.

    Raises ImportError, AttributeError, ValueError where there is no such table.
    """
    known = {kind: Contestant(OfKind(kind)) for kind in POLICIES} | {ORACLE: Contestant(Oracle)}
    more: Mapping[str, PolicyMaker | Contestant] = resolve_name(table) if table else {}
    return known | {
        name: one if isinstance(one, Contestant) else Contestant(one) for name, one in more.items()
    }
