from collections import Counter, deque
from math import ceil, inf, nan
from random import Random

import pytest

from policies.routing.session_affinity import SessionAffinity
from tests.support.routing import NOW, FakeReplica, FakeRequest, fits, replicas

SESSIONS = [FakeRequest(f"session-{number}") for number in range(20_000)]


def session_affinity(load_factor: float = 1.25) -> SessionAffinity:
    return SessionAffinity(SessionAffinity.Options(load_factor=load_factor), Random(1))


def homes(fleet: list[FakeReplica]) -> list[str]:
    """Where each of `SESSIONS` goes while nothing is in flight."""
    policy = session_affinity()
    return [policy.choose(session, fleet, NOW).id for session in SESSIONS]


def test_homes_are_the_same_in_every_process() -> None:
    """These are fixed for ever: routers of any version and any host must agree where a session lives."""
    policy = session_affinity()
    fleet = [FakeReplica(name) for name in "abcdefgh"]
    heavy = [
        FakeReplica(name, weight) for name, weight in zip("abcdefgh", (1, 1, 1, 1, 2, 2, 4, 4), strict=True)
    ]
    sessions = [FakeRequest(text) for text in ("", "1", "alice", "bob", "Zoë", "\ud800", "x" * 5_000)]
    assert "".join(policy.choose(session, fleet, NOW).id for session in sessions) == "ffahfab"
    assert "".join(policy.choose(session, heavy, NOW).id for session in sessions) == "ffhhhgb"


def test_order_of_candidates_does_not_matter() -> None:
    """Two routers that learned of the replicas in different order send a session to the same one."""
    policy = session_affinity()
    fleet = replicas(1, 2, 1, 3, 1)
    shuffled = [fleet[position] for position in (3, 0, 4, 2, 1)]
    for session in SESSIONS[:1_000]:
        assert policy.choose(session, fleet, NOW) is policy.choose(session, shuffled, NOW)


@pytest.mark.parametrize("weights", [(1.0,) * 4, (1.0,) * 64, (0.5, 1, 2, 4)])
def test_sessions_spread_by_weight(weights: tuple[float, ...]) -> None:
    """20,000 sessions live on the replicas in proportion to weight."""
    fleet = replicas(*weights)
    assert fits(Counter(homes(fleet)), {replica.id: replica.weight for replica in fleet})


@pytest.mark.parametrize("weights", [(1.0,) * 8, (1, 2, 3, 1, 2, 3, 1, 2)])
def test_a_newcomer_takes_its_share_and_nothing_else_moves(weights: tuple[float, ...]) -> None:
    """Whoever moves, moves to the newcomer, and those are its fair share of the sessions."""
    fleet = replicas(*weights)
    before, after = homes(fleet[:7]), homes(fleet)
    moved = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(moved) == {fleet[7].id}
    share = fleet[7].weight / sum(weights)
    assert fits(Counter(moved=len(moved), stayed=20_000 - len(moved)), {"moved": share, "stayed": 1 - share})


def test_a_loss_moves_only_its_own_sessions() -> None:
    """Those of the lost replica go to all the others evenly; nobody else's session moves."""
    fleet = replicas(*[1.0] * 8)
    before, after = homes(fleet), homes(fleet[1:])
    moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert {old for old, _ in moved} == {fleet[0].id}
    assert before.count(fleet[0].id) == len(moved)
    assert fits(Counter(new for _, new in moved), {replica.id: 1.0 for replica in fleet[1:]})


def test_more_weight_only_draws_sessions_in() -> None:
    """A replica that warms up takes sessions from the others, and none of its own leaves."""
    fleet = replicas(0.1, 1, 1, 1)
    before = homes(fleet)
    fleet[0].weight = 1.0
    assert all(new in (old, fleet[0].id) for old, new in zip(before, homes(fleet), strict=True))


def test_the_bound_holds_at_every_step() -> None:
    """A few hot sessions make most of 10,000 requests, and still nobody is given more than the bound."""
    policy = session_affinity(1.25)
    rng = Random(8)
    fleet = replicas(1, 1, 1, 1, 2, 4)
    running: deque[FakeReplica] = deque()
    for _ in range(10_000):
        while running and (len(running) == 60 or rng.random() < 0.45):
            running.popleft().in_flight -= 1
        chosen = policy.choose(FakeRequest(f"session-{int(rng.paretovariate(1.1))}"), fleet, NOW)
        chosen.in_flight += 1
        running.append(chosen)
        assert chosen.in_flight <= ceil(1.25 * len(running) * chosen.weight / 10)


def test_an_overloaded_home_passes_to_the_next_in_order() -> None:
    """A session whose home is full goes where it would live if there were no such replica."""
    policy = session_affinity()
    fleet = replicas(*[1.0] * 6)
    for session in SESSIONS[:500]:
        home = policy.choose(session, fleet, NOW)
        second = policy.choose(session, [replica for replica in fleet if replica is not home], NOW)
        for replica in fleet:
            replica.in_flight = 4
        home.in_flight = 5
        assert policy.choose(session, fleet, NOW) is home
        home.in_flight = 6
        assert policy.choose(session, fleet, NOW) is second
        for replica in fleet:
            replica.in_flight = 0


def test_without_a_session_the_least_loaded_serves() -> None:
    """Ten thousand requests that belong to no conversation leave the load level."""
    policy = session_affinity()
    fleet = replicas(1, 1, 1, 1)
    for _ in range(10_000):
        policy.choose(FakeRequest(), fleet, NOW).in_flight += 1
    assert [replica.in_flight for replica in fleet] == [2_500] * 4


@pytest.mark.parametrize("load_factor", [0.99, 0.0, -1.0, nan, inf])
def test_a_bound_that_cannot_hold_is_refused(load_factor: float) -> None:
    """Below 1 the bounds add up to less than the load. The message names the option."""
    with pytest.raises(ValueError, match="load_factor must be at least 1"):
        SessionAffinity.Options(load_factor=load_factor)
