"""Who is next, who may wait and who has to go: shares by tokens, floors, bounds, and cancellation without residue."""

from collections import Counter
from collections.abc import Iterable
from itertools import cycle, islice
from random import Random

import pytest

from policies.limits.fair_queue import FLOOR, FairQueue, QueueBounds, Refusal
from policies.limits.priority import Priority
from policies.limits.tenant_turns import QUANTUM, Waiting

WIDE = QueueBounds(max_requests=1_000_000, max_bytes=1 << 60, tenant_share=1.0)
NOW = 1_000.0
LATER = NOW + 1_000_000.0


def waiting(
    tenant: str = "t",
    priority: Priority = "normal",
    tokens: int = 100,
    size: int = 0,
    expires_at: float = LATER,
    kind: str = "",
) -> Waiting:
    return Waiting(tenant, priority, tokens, size, expires_at, kind)


def filled(*all_of: Waiting, bounds: QueueBounds = WIDE) -> FairQueue:
    queue = FairQueue(bounds)
    for each in all_of:
        assert queue.put(each, NOW) == []
    return queue


def taken(queue: FairQueue, count: int | None = None) -> list[Waiting]:
    """So many of those that come out, or all."""
    out: list[Waiting] = []
    while (count is None or len(out) < count) and (each := queue.take(NOW)) is not None:
        out.append(each)
    return out


def tokens_by(what: str, served: Iterable[Waiting]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for each in served:
        sums[getattr(each, what)] += each.tokens
    return sums


# ---- order ----


def test_one_tenant_is_served_in_its_order() -> None:
    """First come, first served; an empty queue has nobody."""
    all_of = [waiting(tokens=tokens) for tokens in (5, 50_000, 7, 1)]
    queue = filled(*all_of)
    assert taken(queue) == all_of
    assert queue.take(NOW) is None


def test_an_earlier_deadline_goes_first() -> None:
    """Inside its tenant, and nowhere else."""
    patient, hasty = waiting(), waiting(expires_at=NOW + 1)
    assert taken(filled(patient, hasty)) == [hasty, patient]
    other = waiting("other")
    assert taken(filled(other, patient, hasty)) == [other, hasty, patient]


@pytest.mark.parametrize("seed", range(5))
def test_tenants_get_equal_tokens(seed: int) -> None:
    """Whatever the size and the number of their requests: no two differ by more than a turn and a request."""
    random = Random(seed)
    largest = 6_000
    sizes = {"small": 40, "middle": 900, "large": largest}
    queue = FairQueue(WIDE)
    for tenant, most in sizes.items():
        for _ in range(600_000 // most * 2):
            queue.put(waiting(tenant, tokens=random.randint(1, most)), NOW)
    served: Counter[str] = Counter()
    while sum(served.values()) < 600_000:
        each = queue.take(NOW)
        assert each is not None
        served[each.tenant] += each.tokens
        assert max(served[t] for t in sizes) - min(served[t] for t in sizes) <= 2 * (QUANTUM + largest)


def test_a_crowd_of_requests_buys_nothing() -> None:
    """One tenant with 50 times the requests of nine others: each has a tenth of the tokens."""
    queue = FairQueue(WIDE)
    for _ in range(5_000):
        queue.put(waiting("crowd"), NOW)
    for tenant in range(9):
        for _ in range(100):
            queue.put(waiting(f"t{tenant}"), NOW)
    shares = tokens_by("tenant", taken(queue, 900))
    assert len(shares) == 10
    assert max(shares.values()) - min(shares.values()) <= 2 * QUANTUM


def test_a_newcomer_waits_for_one_turn_of_each() -> None:
    """Not for what they have queued, and those who come and go save nothing up."""
    queue = filled(*(waiting(tenant) for tenant in "abc" for _ in range(1_000)))
    taken(queue, 100)
    newcomer = waiting("new")
    queue.put(newcomer, NOW)
    before = taken(queue, 4 * QUANTUM // 100 + 4).index(newcomer)
    assert before <= 3 * QUANTUM // 100 + 3


def test_higher_classes_go_first() -> None:
    """Among so few that no floor is earned: by class, then as they came."""
    low, normal, high = waiting(priority="low"), waiting(priority="normal"), waiting(priority="high")
    assert taken(filled(low, normal, high), 1) == [high]


@pytest.mark.parametrize(("above", "lowest"), [("high", "low"), ("high", "normal"), ("normal", "low")])
def test_the_lowest_class_has_its_floor(above: Priority, lowest: Priority) -> None:
    """By tokens, whatever the sizes; and no more than that."""
    random = Random(1)
    queue = FairQueue(WIDE)
    for _ in range(4_000):
        queue.put(waiting(priority=above, tokens=random.randint(1, 2_000)), NOW)
        queue.put(waiting(priority=lowest, tokens=random.randint(1, 500)), NOW)
    shares = tokens_by("priority", taken(queue, 4_000))
    assert shares[lowest] / shares.total() == pytest.approx(FLOOR, rel=0.05)


def test_the_floor_is_no_loophole_for_who_waits_alone() -> None:
    """One low request at a time, always there again at once, gets the same floor as a thousand."""
    queue = filled(*(waiting(priority="high") for _ in range(3_000)), waiting(priority="low"))
    served: Counter[str] = Counter()
    for each in islice(iter(lambda: queue.take(NOW), None), 2_000):
        served[each.priority] += 1
        if each.priority == "low":
            queue.put(waiting(priority="low"), NOW)
    assert served["low"] / 2_000 == pytest.approx(FLOOR, rel=0.1)


def test_no_class_starves() -> None:
    """With all three waiting, each lower one has its floor."""
    queue = FairQueue(WIDE)
    for priority in islice(cycle(("high", "normal", "low")), 6_000):
        queue.put(waiting(priority=priority), NOW)
    shares = tokens_by("priority", taken(queue, 1_900))
    assert shares["low"] / shares.total() == pytest.approx(FLOOR, rel=0.1)
    assert shares["normal"] / shares.total() == pytest.approx(FLOOR, rel=0.1)


# ---- room ----


def test_who_has_no_room_is_passed_over() -> None:
    """The same tenant's other kinds and other tenants go on; the one passed over keeps its place."""
    stuck, mine, theirs = waiting(kind="tools"), waiting(kind="plain"), waiting("other", kind="plain")
    queue = filled(stuck, mine, theirs)

    def fits(kind: object) -> bool:
        return kind == "plain"

    assert {queue.take(NOW, fits), queue.take(NOW, fits)} == {mine, theirs}
    assert queue.take(NOW, fits) is None
    assert len(queue) == 1
    assert queue.take(NOW) is stuck


def test_a_lower_class_uses_what_a_higher_cannot() -> None:
    """A replica must not idle because those who are first cannot use it."""
    queue = filled(waiting(priority="high", kind="tools"), low := waiting(priority="low"))
    assert queue.take(NOW, lambda kind: kind == "") is low


# ---- bounds ----


def test_a_full_queue_refuses_more_of_the_same() -> None:
    """Who is there stays."""
    queue = filled(*(waiting() for _ in range(20)), bounds=QueueBounds(20, tenant_share=1.0))
    assert queue.put(waiting(), NOW) == Refusal("full", None)
    assert queue.put(waiting(priority="low"), NOW) == Refusal("full", None)
    assert len(queue) == 20


def test_a_higher_class_displaces_the_newest_of_the_lowest() -> None:
    """The lowest that is below its own; and when there is none, it is refused."""
    bounds = QueueBounds(3, tenant_share=1.0)
    old, new, normal = waiting(priority="low"), waiting(priority="low"), waiting(priority="normal")
    queue = filled(old, new, normal, bounds=bounds)
    assert queue.put(waiting(priority="high"), NOW) == [new]
    assert queue.put(waiting(priority="high"), NOW) == [old]
    assert queue.put(waiting(priority="normal"), NOW) == Refusal("full", None)
    assert queue.put(waiting(priority="high"), NOW) == [normal]
    assert queue.put(waiting(priority="high"), NOW) == Refusal("full", None)
    assert [each.priority for each in taken(queue)] == ["high"] * 3


def test_bytes_are_bounded_too() -> None:
    """As many are displaced as it takes, or nobody if that is not enough."""
    bounds = QueueBounds(max_bytes=100, tenant_share=1.0)
    low = [waiting(priority="low", size=30) for _ in range(3)]
    queue = filled(*low, bounds=bounds)
    assert queue.put(waiting(size=101), NOW) == Refusal("full", None)
    assert queue.bytes == 90
    assert queue.put(waiting(size=60), NOW) == [low[2], low[1]]
    assert queue.bytes == 90


def test_a_tenant_has_a_share_of_the_queue() -> None:
    """At least ten requests, else its share, over all classes; others still find a place."""
    queue = filled(*(waiting("a") for _ in range(10)), bounds=QueueBounds(40))
    assert queue.put(waiting("a"), NOW) == Refusal("tenant", None)
    assert queue.put(waiting("a", priority="high"), NOW) == Refusal("tenant", None)
    assert queue.put(waiting("b"), NOW) == []
    wide = filled(*(waiting("a") for _ in range(20)), bounds=QueueBounds(100))
    assert wide.put(waiting("a"), NOW) == Refusal("tenant", None)


def test_a_tenant_has_a_share_of_the_bytes() -> None:
    """One large request is no fault; a second one is."""
    queue = filled(waiting("a", size=50), bounds=QueueBounds(max_bytes=100))
    assert queue.put(waiting("a", size=1), NOW) == Refusal("tenant", None)
    assert queue.put(waiting("b", size=50), NOW) == []


# ---- time ----


def test_the_expired_are_out() -> None:
    """They are told once, hold nothing, and are never taken."""
    soon, later = waiting(size=5, expires_at=NOW + 1), waiting("b", expires_at=NOW + 2)
    queue = filled(soon, later)
    assert queue.expired(NOW) == []
    assert queue.expired(NOW + 1) == [soon]
    assert queue.expired(NOW + 1) == []
    assert (len(queue), queue.bytes) == (1, 0)
    assert taken(queue) == [later]


def test_many_expire_at_once() -> None:
    """All of them in one go."""
    all_of = [waiting(f"t{n % 7}", expires_at=NOW + (n + 1) / 100) for n in range(100)]
    queue = filled(*all_of)
    assert set(queue.expired(NOW + 0.5)) == set(all_of[:50])
    assert len(queue) == 50


def draining(tokens_per_s: float) -> FairQueue:
    """A queue that has been draining so fast for a while, and holds 100 requests of 100 tokens."""
    queue = filled(*(waiting() for _ in range(1_100)))
    for step in range(1_000):
        queue.take(NOW + step * 100 / tokens_per_s)
    return queue


def test_who_would_be_late_is_refused_at_once() -> None:
    """By the rate at which the queue drains; and it is told how long that takes."""
    queue = draining(tokens_per_s=1_000)
    now = NOW + 100
    refused = queue.put(waiting(expires_at=now + 5), now)
    assert isinstance(refused, Refusal)
    assert (refused.reason, refused.wait_s) == ("late", pytest.approx(10, rel=0.1))
    assert queue.put(waiting(expires_at=now + 20), now) == []


def test_a_small_tenant_waits_for_its_turn_only() -> None:
    """What others have queued is not all ahead of it; what is of a higher class is."""
    queue = draining(tokens_per_s=1_000)
    now = NOW + 100
    wait_s = queue.wait_s(waiting("other", tokens=500), now)
    assert wait_s == pytest.approx(0.5, rel=0.1)
    assert queue.wait_s(waiting("other", priority="low"), now) == pytest.approx(10, rel=0.1)
    assert queue.wait_s(waiting("other", priority="high"), now) == 0


def test_a_stalled_fleet_makes_waits_longer() -> None:
    """A rate of long ago is no promise."""
    queue = draining(tokens_per_s=1_000)
    before, after = queue.wait_s(waiting(), NOW + 100), queue.wait_s(waiting(), NOW + 160)
    assert before is not None
    assert after is not None
    assert after > 5 * before


# ---- cancel ----


def test_who_is_cancelled_holds_no_place() -> None:
    """Its place, its bytes and its turn are free at once, however many it are; and it never comes out."""
    bounds = QueueBounds(100, max_bytes=1_000, tenant_share=1.0)
    stays = waiting("b")
    queue = filled(stays, bounds=bounds)
    for _ in range(50):
        storm = [waiting("a", size=10) for _ in range(99)]
        assert all(queue.put(each, NOW) == [] for each in storm)
        assert all(queue.cancel(each, NOW) for each in storm)
    assert (len(queue), queue.bytes, queue.tokens) == (1, 0, 100)
    assert taken(queue) == [stays]
    assert not queue.cancel(stays, NOW)


def test_marks_of_the_cancelled_are_swept() -> None:
    """Memory follows who is there, not who has been."""
    queue = filled(waiting())
    for _ in range(10_000):
        each = waiting()
        queue.put(each, NOW)
        queue.cancel(each, NOW)
    turns = queue._classes["normal"]
    heaps = [turns._expiries, *turns._tenants["t"]._kinds.values()]
    assert max(len(heap) for heap in heaps) < 64


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_counts_are_true(seed: int) -> None:
    """Random puts, takes, cancels and expiries beside a plain set: nobody is lost, doubled or out of bounds."""
    random = Random(seed)
    bounds = QueueBounds(60, max_bytes=3_000, tenant_share=0.5)
    queue, there, now = FairQueue(bounds), set[Waiting](), NOW
    for _ in range(2_000):
        now += random.random() / 10
        match random.choice(("put", "put", "put", "take", "take", "cancel", "expire")):
            case "put":
                each = waiting(
                    random.choice("abc"),
                    random.choice(("high", "normal", "low")),
                    random.randint(1, 3_000),
                    random.randint(0, 200),
                    now + random.choice((0.5, 5.0, 500.0)),
                    random.choice("xy"),
                )
                displaced = queue.put(each, now)
                if not isinstance(displaced, Refusal):
                    assert set(displaced) <= there
                    there = there - set(displaced) | {each}
            case "take":
                room = random.choice(("x", "y", "xy"))
                late = queue.expired(now)
                there -= set(late)
                out = queue.take(now, lambda kind, room=room: kind in room)
                assert (out is None) == (not any(each.kind in room for each in there))
                if out is not None:
                    there.remove(out)
                    assert out.kind in room
            case "cancel" if there:
                each = random.choice(sorted(there, key=id))
                assert queue.cancel(each, now)
                there.remove(each)
            case "expire":
                late = queue.expired(now)
                assert all(each.expires_at <= now for each in late)
                there -= set(late)
        assert len(queue) == len(there) <= bounds.max_requests
        assert queue.bytes == sum(each.bytes for each in there) <= bounds.max_bytes
        assert queue.tokens == sum(each.tokens for each in there)
    assert {*queue.expired(now), *taken(queue)} == there


# ---- large requests ----


def test_what_a_large_request_costs_to_take_does_not_grow_with_it() -> None:
    """A client says how many answers it wants: billions of tokens must not hold up the process."""
    queue = filled(waiting("a", tokens=1_000 * QUANTUM), waiting("b", tokens=2_000 * QUANTUM))
    asked: list[object] = []

    def fits(kind: object) -> bool:
        asked.append(kind)
        return True

    first, second = queue.take(NOW, fits), queue.take(NOW, fits)
    assert first is not None
    assert second is not None
    assert (first.tenant, second.tenant) == ("a", "b")
    assert len(asked) < 20


def _turn_by_turn(left: dict[str, list[int]]) -> list[tuple[str, int]]:
    """Deficit round robin as it was published, a quantum at a time."""
    order, deficits, served = list(left), dict.fromkeys(left, 0), []
    while order:
        tenant = order.pop(0)
        deficits[tenant] += QUANTUM
        while left[tenant] and left[tenant][0] <= deficits[tenant]:
            tokens = left[tenant].pop(0)
            deficits[tenant] = min(deficits[tenant] - tokens, QUANTUM)
            served.append((tenant, tokens))
        if left[tenant]:
            order.append(tenant)
    return served


@pytest.mark.parametrize("seed", range(20))
def test_the_order_is_that_of_turns_taken_one_by_one(seed: int) -> None:
    rng = Random(seed)
    left = {name: [rng.randint(1, 20 * QUANTUM) for _ in range(rng.randint(1, 12))] for name in "abcde"}
    queue = filled(*(waiting(name, tokens=tokens) for name, all_of in left.items() for tokens in all_of))
    assert [(each.tenant, each.tokens) for each in taken(queue)] == _turn_by_turn(left)
