"""Who may be chosen: those with room first, saturated ones when it must be, and what is said when nobody is left."""

from math import inf

import pytest

from policies.resilience.retry import RetryBudget
from router.api.errors import EndpointNotSupported, NoHealthyReplica
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint
from router.fleet.leases import Lease
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from tests.support.bare_replicas import HASHER, First, replica

NOW = 1_000.0
REQUEST = read_request(
    Endpoint.COMPLETIONS,
    "id",
    {"content-type": "application/json"},
    b'{"model":"m","prompt":"hi"}',
    RequestRules(),
)


def pool(count: int = 2) -> tuple[Pool, tuple[Replica, ...]]:
    """Of replicas with room for one request each, the first of which is chosen if it may be."""
    replicas = tuple(replica(f"http://r{number}:1") for number in range(count))
    for each in replicas:
        each.offers = frozenset({"completions"})
        each.limit = 1
    return Pool(replicas, First(), RetryBudget(0.1, 1), HASHER), replicas


def with_room(of: Pool) -> Lease | None:
    return of.lease_with_room(REQUEST, of.facts(REQUEST), NOW)


def leased(of: Pool, *tried: Replica) -> Replica:
    return of.lease(REQUEST, of.facts(REQUEST), NOW, tried).replica


def test_one_with_room_is_taken_before_a_saturated_one() -> None:
    """By requests, and by tokens."""
    there, (one, other) = pool()
    assert leased(there) is one
    assert leased(there) is other
    one.in_flight, one.limit, one.token_limit = 0, inf, 0.0
    other.in_flight = 0
    assert leased(there) is other


def test_a_first_attempt_waits_and_a_second_does_not() -> None:
    """Without room there is no lease for the first; the second takes whom it has not tried."""
    there, (one, other) = pool()
    assert with_room(there) is not None
    assert with_room(there) is not None
    assert (with_room(there), there.has_room(REQUEST), there.saturation) == (None, False, 1)
    assert leased(there, one) is other


def test_what_its_operator_allows_is_never_exceeded() -> None:
    """Neither by a second attempt: then there is nobody."""
    there, (one, other) = pool()
    one.in_flight = one.max_in_flight = other.in_flight = other.max_in_flight = 1
    assert with_room(there) is None
    with pytest.raises(NoHealthyReplica):
        leased(there, one)


@pytest.mark.parametrize("state", ["down", "draining"])
def test_nobody_waits_for_those_that_do_not_serve(state: str) -> None:
    """A saturated one that is up is worth waiting for; these are not."""
    there, replicas = pool()
    for each in replicas:
        each.up, each.draining = state != "down", state == "draining"
    with pytest.raises(NoHealthyReplica):
        with_room(there)
    with pytest.raises(NoHealthyReplica):
        there.has_room(REQUEST)
    assert there.saturation == inf


def test_nobody_waits_for_what_no_engine_offers() -> None:
    there, replicas = pool()
    for each in replicas:
        each.offers = frozenset()
    with pytest.raises(EndpointNotSupported):
        with_room(there)


def test_a_lease_holds_its_tokens() -> None:
    """Prompt and half an answer, as far as can be guessed; given back at its end, once."""
    there, (one, _) = pool()
    lease = with_room(there)
    assert lease is not None
    assert one.tokens == there.sizes.in_flight(REQUEST, None) > 0
    lease.close(None, NOW)
    lease.close(None, NOW)
    assert (one.tokens, one.in_flight) == (0, 0)
