"""Who takes part in the routing benchmark: shipped policies, others' rules, an oracle, and one's own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from random import Random
from typing import Final, NamedTuple

from loadtest.peers import PEERS, FleetFacts, Peer, scrape_interval_s, wants_kv_events
from loadtest.simulate.contender import Contender, OfKind
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.setup import PolicyMaker, ReplicaSetup
from policies.routing import POLICIES
from policies.routing.policy import Policy
from router.config.scalars import nearest

ORACLE: Final = "oracle"
_KV_EVENTS_S: Final = 0.03
"""How late an engine's KV events come to those that live by them."""
_NOWHERE: Final = FleetFacts(1.0, 1.0)


class Contestant(NamedTuple):
    """A policy, and what it must be told to be itself; see `Setup`.

    `make` is handed what the replicas are, for what an operator would look up and write into its settings.
    """

    make: Callable[[Random, Sequence[ReplicaSetup]], Policy]
    scrape_interval_s: float | None = 1.0
    kv_events_s: float | None = None
    is_peer: bool = True
    """Another's rule: what ours are compared with unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Whatever:
    """The same policy, whatever the replicas are."""

    make: PolicyMaker

    def __call__(self, random: Random, _replicas: Sequence[ReplicaSetup]) -> Policy:
        return self.make(random)


def contestants(table: str = "") -> dict[str, Contestant]:
    """By name. `table`: `module:NAME` of a mapping from name to `Contestant`, or to a bare `PolicyMaker`.

    Raises ImportError, AttributeError, ValueError where there is no such table.
    """
    more: Mapping[str, PolicyMaker | Contestant] = resolve_name(table) if table else {}
    return {
        "expected_latency": Contestant(_expected_latency, is_peer=False),
        **{kind: Contestant(Whatever(OfKind(kind)), is_peer=False) for kind in _KINDS},
        **{name: _of_peer(name, peer) for name, peer in PEERS.items()},
        **{
            name: one if isinstance(one, Contestant) else Contestant(Whatever(one))
            for name, one in more.items()
        },
        ORACLE: Contestant(Whatever(Oracle), is_peer=False),
    }


def rival(name: str, beside: Contender) -> Contender:
    """A contestant by name in front of another contender's fleet, told of it what it must be told.

    Raises ValueError for no such name.
    """
    known = contestants()
    if name not in known:
        raise ValueError(f"--against: there is no file {name!r}, and no policy; {nearest(name, list(known))}")
    one, setup = known[name], beside.setup
    interval_s = one.scrape_interval_s if setup.scrape_interval_s is not None else None
    told = replace(setup, scrape_interval_s=interval_s, kv_events_s=one.kv_events_s or setup.kv_events_s)
    return Contender(name, lambda random: one.make(random, setup.replicas), told)


_KINDS: Final = [kind for kind in POLICIES if kind != "expected_latency" and kind not in PEERS]


def _expected_latency(random: Random, replicas: Sequence[ReplicaSetup]) -> Policy:
    """Told only how much host memory stands behind each cache, which no engine says; the rest it learns."""
    offload_tokens = min(replica.hardware.host_tokens for replica in replicas)
    return OfKind("expected_latency", {"offload_tokens": offload_tokens})(random)


def _of_peer(name: str, peer: Peer) -> Contestant:
    def make(random: Random, replicas: Sequence[ReplicaSetup]) -> Policy:
        return peer(random, _facts_of(replicas))

    kv_events_s = _KV_EVENTS_S if wants_kv_events(peer(Random(0), _NOWHERE)) else None
    return Contestant(make, scrape_interval_s(name), kv_events_s)


def _facts_of(replicas: Sequence[ReplicaSetup]) -> FleetFacts:
    """The true ones."""
    hardware = replicas[0].hardware
    rate = 1 / hardware.latency.prefill_token_s
    return FleetFacts(
        hardware.kv_tokens + hardware.host_tokens,
        rate,
        {replica.id: rate / replica.slowdown for replica in replicas},
    )
