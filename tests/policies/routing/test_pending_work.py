from random import Random

import pytest

from policies.routing.pending_work import Given, PendingWork
from tests.support.routing import NOW


def test_work_counts_until_it_is_released() -> None:
    """Each replica's own, and what is released tells what it was."""
    work = PendingWork()
    work.add("a", 1, 100.0, NOW)
    work.add("a", 2, 30.0, NOW + 1)
    work.add("b", 3, 7.0, NOW)
    assert (work.total("a"), work.total("b"), work.total("c")) == (130.0, 7.0, 0.0)
    assert work.release("a", 1) == Given(100.0, NOW)
    assert (work.total("a"), work.total("b")) == (30.0, 7.0)


def test_events_that_are_told_twice_or_late() -> None:
    """Neither a second start nor a second end counts, nor an end without a start."""
    work = PendingWork()
    work.add("a", 1, 100.0, NOW)
    work.add("a", 1, 100.0, NOW)
    assert work.total("a") == 100.0
    assert work.release("a", 1) is not None
    assert work.release("a", 1) is None
    assert work.release("stranger", 1) is None
    assert work.total("a") == 0.0


def test_a_restarted_replica_has_none() -> None:
    """And the ends of what it lost change nothing."""
    work = PendingWork()
    work.add("a", 1, 100.0, NOW)
    work.forget("a")
    work.add("a", 2, 5.0, NOW)
    assert work.release("a", 1) is None
    assert work.total("a") == 5.0


def test_what_lost_its_end_expires() -> None:
    """An hour later; what is still waiting by then stays."""
    work = PendingWork()
    work.add("a", 1, 100.0, NOW)
    work.add("a", 2, 30.0, NOW + 3_000)
    work.add("a", 3, 5.0, NOW + 3_601)
    assert work.total("a") == 35.0


@pytest.mark.parametrize("seed", range(3))
def test_sums_are_those_of_what_is_there(seed: int) -> None:
    """5,000 random starts and ends, and nothing left of replicas without work."""
    rng = Random(seed)
    work = PendingWork()
    there: dict[tuple[str, int], float] = {}
    for _ in range(5_000):
        replica, ticket = rng.choice("abc"), rng.randrange(20)
        if rng.random() < 0.5:
            there[replica, ticket] = amount = rng.random()
            work.add(replica, ticket, amount, NOW)
        else:
            there.pop((replica, ticket), None)
            work.release(replica, ticket)
        for each in "abc":
            expected = sum(amount for (where, _), amount in there.items() if where == each)
            assert work.total(each) == pytest.approx(expected)
    for replica, ticket in there:
        work.release(replica, ticket)
    assert work._given == work._totals == {}
