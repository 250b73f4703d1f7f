"""A process's share of a limit: what it admits alone, and what Redis has to be told of it."""

from policies.limits.ask import Ask, Budget, Slots, Verdict
from router.control.limits.share import FRESH_US, REMEMBERED_ASKS, LastSeen, Share

SECOND = 1_000_000
WINDOW = 100 * SECOND
KEY = "turnout:{t:a}:l:r"
NOW = 5_000 * SECOND


def ask(cost_us: int, number: int = 0, window_us: int = WINDOW) -> Ask:
    return Ask(f"a{number}", [Budget(KEY, cost_us, window_us)])


def share(shares: int, backlog_us: int | None = 0, held: int = 0) -> Share:
    """`backlog_us`: what was seen of the bucket just before; None: nothing."""
    tats = {} if backlog_us is None else {KEY: NOW + backlog_us}
    return Share(shares, tats, lambda _: held)


def admitted(one: Share, cost_us: int, count: int, now_us: int = NOW) -> int:
    return sum(one.admit(ask(cost_us, number), now_us).admitted for number in range(count))


def test_all_shares_together_are_what_was_left() -> None:
    assert admitted(share(4, 40 * SECOND), SECOND, 100) == 15


def test_a_share_earns_its_part() -> None:
    one = share(4, WINDOW)
    assert admitted(one, SECOND, 10) == 0
    assert admitted(one, SECOND, 10, NOW + 8 * SECOND) == 2


def test_a_bucket_that_nobody_saw_is_nearly_empty() -> None:
    assert admitted(share(1, None), SECOND, 100) == 5
    assert admitted(share(5, None), SECOND, 100) == 1


def test_there_is_room_for_one_that_costs_more_than_the_share() -> None:
    """And it is owed in full."""
    one = share(4, None)
    assert admitted(one, 50 * SECOND, 10) == 1
    ((key, owed_us, _),), _ = one.end(NOW)
    assert (key, owed_us) == (KEY, 50 * SECOND)


def test_slots_are_divided_and_what_is_open_counts() -> None:
    def most(shares: int, held: int, slots: int) -> list[int]:
        one = share(shares, held=held)
        verdicts = [one.admit(Ask(f"s{n}", (), [Slots("turnout:{t:a}:l:c", slots)]), NOW) for n in range(9)]
        return [verdict.held[0] for verdict in verdicts if verdict.admitted]

    assert most(2, 0, 8) == [1, 2, 3, 4]
    assert most(2, 3, 8) == [4]
    assert most(9, 0, 2) == [1]
    assert most(9, 1, 2) == []


def test_what_time_has_brought_back_is_not_owed() -> None:
    """Four processes that used a quarter each, from a bucket that was half full: Redis gets the sum."""
    shares = [share(4, 50 * SECOND) for _ in range(4)]
    for each in shares:
        assert admitted(each, SECOND, 12) == 12
    # Without their use it would stand at 40 s then; with it at 88 s.
    owed = [each.end(NOW + 10 * SECOND)[0][0].cost_us for each in shares]
    assert sum(owed) == 48 * SECOND
    late = share(4, 0)
    assert admitted(late, SECOND, 10) == 10
    assert late.end(NOW + 41 * SECOND)[0] == []


def test_what_was_settled_before_is_owed_as_used_and_who_is_open_is_known() -> None:
    one = share(2, 0)
    first, second = ask(10 * SECOND, 1), ask(20 * SECOND, 2)
    one.admit(first, NOW)
    one.admit(second, NOW)
    one.settle(first, [-4 * SECOND], NOW)
    one.settle(first, [-4 * SECOND], NOW)
    used, still_open = one.end(NOW)
    assert [budget.cost_us for budget in used] == [26 * SECOND]
    assert still_open == [second]


def test_only_what_was_seen_lately_counts() -> None:
    last_seen = LastSeen()
    last_seen.note(NOW - FRESH_US, Ask("", [Budget("old", 1, 1)]), Verdict(-1, [7], []))
    last_seen.note(NOW - 10, Ask("", [Budget("new", 1, 1), Budget("other", 1, 1)]), Verdict(0, [7, 8], []))
    last_seen.note(NOW - 5, Ask("", [Budget("new", 1, 1)]), Verdict(-1, [9], []))
    assert last_seen.tats_us(NOW) == {"new": NOW + 4, "other": NOW - 2}
    last_seen.forget()
    assert last_seen.tats_us(NOW) == {}


def test_it_remembers_only_so_many() -> None:
    last_seen = LastSeen()
    for number in range(REMEMBERED_ASKS + 10):
        last_seen.note(NOW, Ask("", [Budget(str(number), 1, 1)]), Verdict(-1, [1], []))
    assert len(last_seen.tats_us(NOW)) == REMEMBERED_ASKS
