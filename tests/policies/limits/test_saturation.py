"""When a replica has no room: what bounds it, how bounds are learned, and that what is not known bounds nothing."""

from dataclasses import dataclass
from math import inf

import pytest

from policies.limits.saturation import (
    UNBOUNDED,
    Bounds,
    RoomModel,
    SaturationOptions,
    pool_saturation,
    saturation,
)

NOW = 1_000.0


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine says; by default nothing."""

    running_requests: float | None = None
    waiting_requests: float | None = None
    max_running_requests: float | None = None
    kv_usage_ratio: float | None = None
    kv_capacity_tokens: float | None = None


def room(*, queues: bool = True) -> RoomModel:
    return RoomModel(SaturationOptions(), queues=queues)


def test_it_grows_with_what_is_there() -> None:
    """By the tighter of both bounds, without end; 1 is where there is no room."""
    bounds = Bounds(requests=10, tokens=1_000)
    assert saturation(0, 0, bounds) == 0
    assert saturation(5, 900, bounds) == 0.9
    assert saturation(10, 100, bounds) == 1
    assert saturation(50, 100, bounds) == 5
    assert saturation(10**6, 1e12, UNBOUNDED) == 0


def test_a_pool_is_as_saturated_as_its_freest() -> None:
    """One with room is enough; none at all is not."""
    assert pool_saturation([3.0, 0.5, 1.2]) == 0.5
    assert pool_saturation([]) == inf


def test_what_an_engine_does_not_say_bounds_nothing() -> None:
    """However much is there."""
    model = room()
    assert model.at(NOW) == UNBOUNDED
    assert model.read(Load(), 10_000, 1e9, NOW) == UNBOUNDED
    assert model.read(Load(running_requests=5_000, kv_usage_ratio=1.0), 10_000, 1e9, NOW) == UNBOUNDED


@pytest.mark.parametrize(("slots", "bound"), [(256, 281.6), (20, 22), (4, 6), (1, 3)])
def test_as_many_as_it_runs_and_a_few_that_wait(slots: int, bound: float) -> None:
    """A tenth of those that run, and never fewer than 2: so the next step finds somebody."""
    bounds = room().read(Load(max_running_requests=slots), 0, 0, NOW)
    assert bounds.requests == pytest.approx(bound)


def test_an_engine_without_a_queue_gets_no_more_than_it_takes() -> None:
    """TGI refuses what is over its bound, and counts those that wait in it."""
    assert room(queues=False).read(Load(max_running_requests=128), 0, 0, NOW).requests == 128


def test_its_memory_bounds_tokens() -> None:
    """A tenth more than it holds may be there."""
    assert room().read(Load(kv_capacity_tokens=1_000), 0, 0, NOW).tokens == pytest.approx(1_100)


def test_scrapes_correct_what_a_token_takes() -> None:
    """Prompts that share half their cache: twice as many of them fit, and it is soon known."""
    model = room()
    for step in range(20):
        load = Load(running_requests=10, waiting_requests=0, kv_usage_ratio=0.5, kv_capacity_tokens=1_000)
        bounds = model.read(load, 10, 1_000, NOW + step)
    assert bounds.tokens == pytest.approx(2_200, rel=0.01)


def test_those_that_wait_there_hold_no_memory() -> None:
    """A burst that fills the engine's queue does not make tokens look cheap."""
    model = room()
    load = Load(running_requests=10, waiting_requests=40, kv_usage_ratio=1.0, kv_capacity_tokens=1_000)
    bounds = model.read(load, 50, 5_000, NOW)
    assert bounds.tokens == pytest.approx(1_100)


def test_a_bound_that_leaves_the_engine_without_a_queue_is_raised() -> None:
    """An engine that counts all that it ever cached as used is always full, and yet nobody waits in it."""
    model = room()
    tokens = 100.0
    for step in range(60):
        load = Load(running_requests=10, waiting_requests=0, kv_usage_ratio=1.0, kv_capacity_tokens=1_000)
        bounds = model.read(load, 10, tokens, NOW + step)
        tokens = min(bounds.tokens, 5_000.0)
    assert bounds.tokens >= 5_000


def test_a_standing_queue_shows_the_limit() -> None:
    """A queue seen once may be a burst; one that stands is too much, by all that is over what may wait."""
    model = room()
    load = Load(running_requests=20, waiting_requests=12)
    assert model.read(load, 32, 0, NOW).requests == inf
    assert model.read(load, 32, 0, NOW + 1).requests == 22


def test_a_queue_for_want_of_memory_shows_it_at_once() -> None:
    """With the cache full nobody waits for a mere turn."""
    load = Load(running_requests=20, waiting_requests=12, kv_usage_ratio=0.97)
    assert room().read(load, 32, 0, NOW).requests == 22


def test_a_burst_is_forgiven() -> None:
    """Two bursts with calm between them are no standing queue."""
    model = room()
    for step, waiting in enumerate((9, 0, 9, 1, 9)):
        bounds = model.read(Load(running_requests=5, waiting_requests=waiting), 14, 0, NOW + step)
        assert bounds == UNBOUNDED


def limited(limit: float) -> RoomModel:
    model = room()
    for step in range(2):
        model.read(Load(running_requests=limit - 2, waiting_requests=12), int(limit) + 10, 0, NOW + step)
    assert model.bounds.requests == limit
    return model


def test_a_limit_that_binds_is_raised_while_less_waits_than_may() -> None:
    """Until the engine has its small queue again; there it stays."""
    model = limited(22)
    for in_flight, waiting, bound in ((22, 0, 24), (24, 1, 25), (25, 2, 25), (25, 2, 25)):
        load = Load(running_requests=20, waiting_requests=waiting)
        assert model.read(load, in_flight, 0, NOW + 2).requests == bound


def test_a_limit_that_does_not_bind_is_forgotten() -> None:
    """Nobody waits for it now, and the next requests may be smaller."""
    model = limited(22)
    assert model.read(Load(running_requests=10, waiting_requests=0), 10, 0, NOW + 2) == UNBOUNDED


def test_an_old_scrape_bounds_nothing() -> None:
    """Neutral, not halted: also when it had shown the worst."""
    model = limited(22)
    model.read(Load(10, 12, 12, 1.0, 100), 22, 100, NOW + 2)
    assert model.at(NOW + 6) != UNBOUNDED
    assert model.at(NOW + 8) == UNBOUNDED


def test_absurd_figures_leave_room_for_one() -> None:
    """Whatever is said, a replica is never closed for good."""
    model = room()
    for step in range(3):
        load = Load(1e-9, 1e9, 0.0, 1.0, 1.0)
        bounds = model.read(load, 3, 10.0, NOW + step)
        assert saturation(0, 0, bounds) < 1
