"""What is at a replica, its own and others', and from where on it is saturated."""

from dataclasses import replace
from math import inf

from policies.limits.saturation import RoomModel, SaturationOptions
from router.engines.engine import ReplicaLoad
from router.fleet.leases import Lease
from router.fleet.replicas import Replica
from tests.support.bare_replicas import SilentEngine, replica

NOW = 1_000.0


def with_room(max_in_flight: int | None = None) -> Replica:
    identity = replace(replica().identity, max_in_flight=max_in_flight)
    return Replica(identity, SilentEngine("vllm"), RoomModel(SaturationOptions()))


def test_a_scrape_bounds_it_until_it_is_old() -> None:
    """By requests and by tokens; then it is open again, whatever is there."""
    one = with_room()
    Lease(one, 100)
    assert one.saturation == 0
    one.read(ReplicaLoad(max_running_requests=8, kv_capacity_tokens=1_000), NOW)
    assert (one.limit, round(one.token_limit)) == (10, 1_100)
    assert one.saturation == 0.1
    Lease(one, 450)
    assert one.saturation == 0.5
    one.look(NOW + 60)
    assert (one.limit, one.token_limit, one.saturation) == (inf, inf, 0)


def test_its_operator_bounds_it_always() -> None:
    """More than that is never sent, whatever the engine says; less may be."""
    one = with_room(max_in_flight=4)
    assert one.limit == 4
    one.read(ReplicaLoad(max_running_requests=8), NOW)
    assert one.limit == 4
    one.read(ReplicaLoad(max_running_requests=1), NOW)
    assert one.limit == 3
    one.look(NOW + 60)
    assert one.limit == 4


def test_what_others_have_there_counts_as_if_it_were_ours() -> None:
    """Each of theirs as large as ours are; and what is given back is exactly what was taken."""
    one = with_room()
    leases = [Lease(one, 100), Lease(one, 300)]
    one.set_elsewhere(3)
    assert (one.in_flight, one.tokens, one.own_tokens) == (5, 1_000, 400)
    for lease in leases:
        lease.close(None, NOW)
    assert (one.in_flight, one.own_in_flight, one.tokens) == (3, 0, 600)
    one.set_elsewhere(0)
    assert (one.in_flight, one.tokens) == (0, 0)


def test_who_waits_is_told_of_room() -> None:
    """When a lease ends, others have less there, or the engine has said something."""
    one = with_room()
    lease = Lease(one)
    told: list[int] = []
    one.room_made = lambda: told.append(one.in_flight)
    one.set_elsewhere(2)
    assert told == []
    one.set_elsewhere(1)
    lease.close(None, NOW)
    one.read(ReplicaLoad(), NOW)
    lease.close(None, NOW)
    assert told == [2, 1, 1]
