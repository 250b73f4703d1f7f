"""What others tell reaches the pools and replicas it concerns, and what is leased here reaches the others."""

from pathlib import Path
from random import Random
from time import monotonic

from policies.outcome import Ending, Outcome
from policies.routing.events import Dispatched, Done, Event, FirstToken, Prompt
from policies.routing.round_robin import RoundRobin
from router.config.decode import decode
from router.control.hearing import Hearing, place_of, share, tickets_of
from router.control.ledger import ticket_of
from router.control.messages import Place
from router.control.sharing import Sharing
from router.fleet.build import build_fleet
from router.fleet.leases import Lease
from router.fleet.pools import Pool
from router.fleet.routes import Fleet
from tests.support.flow import whole
from tests.support.loops import run_strictly
from tests.support.routers import config_text
from tests.support.scripted_server import until
from tests.support.sharing import workers

PROMPT = Prompt((1, 2, 3), 400, 128.0)
OUTCOME = Outcome(Ending.COMPLETED, 1.0, 2.0, 3.0)


class Learner(RoundRobin):
    """Takes turns, and remembers all that it is told."""

    learns = True

    def __init__(self) -> None:
        super().__init__(RoundRobin.Options(), Random(0))
        self.heard: list[Event] = []
        self.state = b""

    def observe(self, event: Event) -> None:
        self.heard.append(event)

    def dump(self) -> bytes:
        return b"learned"

    def load(self, state: bytes) -> None:
        self.state = state


def fleet_of(*names: str) -> Fleet:
    listed = [f'url = "http://{name}.local:9", engine = "vllm", id = "{name}"' for name in names]
    return build_fleet(decode(config_text(*listed), "t.toml"), Random(0), bytes(32))


def pool_of(fleet: Fleet) -> Pool:
    (pool,) = fleet.pools.values()
    return pool


def learning(fleet: Fleet) -> Learner:
    """Make its pool's policy one that learns."""
    pool, learner = pool_of(fleet), Learner()
    pool.policy, pool._tell = learner, learner.observe
    return learner


class Here:
    """A process with a fleet that may be replaced."""

    def __init__(self, sharing: Sharing, fleet: Fleet) -> None:
        self.fleet = fleet
        self.hearing = Hearing(lambda: self.fleet, sharing)


def test_elsewhere_counts_for_choices(tmp_path: Path) -> None:
    """It is part of what is in flight, and not of what is this process's own."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, other):
            fleet = fleet_of("a", "b")
            Here(one.sharing, fleet)
            first, second = fleet.replicas
            lease = Lease(first)
            tickets = [other.dispatch("a"), other.dispatch("a"), other.dispatch("unknown")]
            await until(lambda: first.in_flight == 3)
            assert (first.own_in_flight, first.elsewhere, second.in_flight) == (1, 2, 0)
            lease.close(None, monotonic())
            other.done("a", tickets[0])
            await until(lambda: first.in_flight == 1)
            assert (first.own_in_flight, first.elsewhere) == (0, 1)

    run_strictly(run(), uv=True)


def test_a_new_fleet_is_brought_up_to_date(tmp_path: Path) -> None:
    """What others have there does not wait for their next request."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, other):
            here = Here(one.sharing, fleet_of("a"))
            other.dispatch("a")
            await until(lambda: here.fleet.replicas[0].elsewhere == 1)
            here.fleet = fleet_of("b", "a")
            other.dispatch("b")
            await until(lambda: [each.elsewhere for each in here.fleet.replicas] == [1, 1])

    run_strictly(run(), uv=True)


def test_a_policy_that_learns_hears_the_others(tmp_path: Path) -> None:
    """Every event, in its order; what another has learned before comes first."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, other):
            fleet = fleet_of("a")
            learner = learning(fleet)
            Here(one.sharing, fleet)
            ticket = other.dispatch("a", 1.0, PROMPT)
            other.first_token("a", ticket, 2.0)
            other.done("a", ticket, 3.0)
            await until(lambda: len(learner.heard) == 3)
            assert learner.heard[:2] == [Dispatched("a", ticket, 1.0, PROMPT), FirstToken("a", ticket, 2.0)]
            assert isinstance(learner.heard[2], Done)
            assert one.sharing._offered == {("m", "v1"): learner}

    run_strictly(run(), uv=True)


def test_pools_know_when_this_router_is_alone(tmp_path: Path) -> None:
    """And when it is no more."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, _):
            here = Here(one.sharing, fleet_of("a"))
            channel = one.sharing._outboxes[0].channel
            channel.healthy = False  # type: ignore[misc]
            await until(lambda: pool_of(here.fleet).alone)
            assert not one.sharing.healthy
            channel.healthy = True  # type: ignore[misc]
            await until(lambda: not pool_of(here.fleet).alone)

    run_strictly(run(), uv=True)


def lease_from(pool: Pool) -> Lease:
    from router.api.openai import RequestRules, read_request
    from router.api.request import Endpoint

    exchange = whole()
    request = read_request(Endpoint.CHAT, "1", exchange.headers, exchange.body, RequestRules())
    return pool.lease(request, pool.facts(request), 1.0)


def test_what_is_leased_here_is_told(tmp_path: Path) -> None:
    """With tickets that are this member's; prompts are hashed for policies that learn only."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, other):
            fleet = fleet_of("a")
            share(fleet, one.sharing, tickets_of(one.sharing))
            lease = lease_from(pool_of(fleet))
            lease.first_token(2.0)
            lease.close(OUTCOME, 3.0)
            lease.close(OUTCOME, 3.0)
            ticket = ticket_of(one.sharing.member, 1)
            expected = [
                Dispatched("a", ticket, 1.0, None, streamed=False),
                FirstToken("a", ticket, 2.0),
                Done("a", ticket, 3.0, OUTCOME),
            ]
            await until(lambda: other.heard == expected)
            assert other.counts == {"a": 0}

    run_strictly(run(), uv=True)


def test_a_policy_that_learns_is_told_first(tmp_path: Path) -> None:
    """Of the very event that the others get."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, other):
            fleet = fleet_of("a")
            learner = learning(fleet)
            share(fleet, one.sharing, tickets_of(one.sharing))
            lease_from(pool_of(fleet)).close(None, 3.0)
            await until(lambda: len(other.heard) == 2)
            assert other.heard == learner.heard
            assert isinstance(learner.heard[0], Dispatched)
            assert learner.heard[0].prompt is not None

    run_strictly(run(), uv=True)


def test_without_anybody_to_tell_leases_are_plain() -> None:
    """No event is made, no ticket drawn."""
    fleet = fleet_of("a")
    assert type(lease_from(pool_of(fleet))) is Lease
    assert place_of(fleet.replicas[0]) == Place("m", "v1", "a")


def test_another_fleet_is_followed(tmp_path: Path) -> None:
    """Its policies are offered in place of the others', its leases told with tickets that go on."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, other):
            here, tickets = Here(one.sharing, fleet_of("a")), tickets_of(one.sharing)
            share(here.fleet, one.sharing, tickets)
            lease_from(pool_of(here.fleet)).close(None, 2.0)
            here.fleet = fleet_of("b")
            learner = learning(here.fleet)
            share(here.fleet, one.sharing, tickets)
            here.hearing.follow()
            assert one.sharing._offered == {("m", "v1"): learner}
            lease_from(pool_of(here.fleet)).close(None, 3.0)
            await until(lambda: len(other.heard) == 4)
            assert len({event.ticket for event in other.heard if isinstance(event, Dispatched)}) == 2

    run_strictly(run(), uv=True)


def test_a_fleet_that_comes_while_others_are_not_heard(tmp_path: Path) -> None:
    """Its pools are alone from the start, until the others are heard again."""

    async def run() -> None:
        async with workers(tmp_path, 2) as (one, _):
            here = Here(one.sharing, fleet_of("a"))
            channel = one.sharing._outboxes[0].channel
            channel.healthy = False  # type: ignore[misc]
            await until(lambda: pool_of(here.fleet).alone)
            here.fleet = fleet_of("b")
            here.hearing.follow()
            assert pool_of(here.fleet).alone
            channel.healthy = True  # type: ignore[misc]
            await until(lambda: not pool_of(here.fleet).alone)

    run_strictly(run(), uv=True)
