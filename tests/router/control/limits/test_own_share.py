"""Shares of what was left: together they never take more, and what they took is told without loss."""

from random import Random

import pytest

from policies.limits.ask import Ask, Budget, Slots
from router.control.limits.own_share import OwnShare

WINDOW_US = 60_000_000
NOW_US = 1_000_000_000


def shares(parts: int, tat_us: int = 0, held: int = 0) -> list[OwnShare]:
    def one(rank: int) -> OwnShare:
        return OwnShare(lambda _: tat_us, lambda _: held, lambda: (parts, rank))

    return [one(rank) for rank in range(parts)]


def draw(cost_us: int) -> Ask:
    return Ask("", [Budget("r", cost_us, WINDOW_US)])


def slots(most: int) -> Ask:
    return Ask("", (), [Slots("c", most)])


def told(share: OwnShare, now_us: int) -> int:
    return sum(shift_us for _, shift_us in share.debts(now_us))


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_together_they_take_what_was_left(parts: int) -> None:
    """A third of the bucket is used: of the rest each takes its part, and tells the others of all of it."""
    each_us, taken = WINDOW_US // 1200, 0
    everybody = shares(parts, tat_us=NOW_US + WINDOW_US // 3)
    for share in everybody:
        while share.admit(draw(each_us), NOW_US).admitted:
            taken += 1
    assert taken == 800
    assert sum(told(share, NOW_US) for share in everybody) == 800 * each_us


def test_together_they_earn_the_rate() -> None:
    """For an hour; then the bucket is as empty as if it had been counted together."""
    everybody, taken_us = shares(4), 0
    for second in range(3600):
        now_us = NOW_US + 1_000_000 * second
        for share in everybody:
            while share.admit(draw(100_000), now_us).admitted:
                taken_us += 100_000
    assert taken_us == WINDOW_US + 3599 * 1_000_000 - 3599 * 1_000_000 % 400_000
    assert 0 <= WINDOW_US - sum(told(share, now_us) for share in everybody) < 400_000


@pytest.mark.parametrize("held", [0, 3, 9, 12])
def test_together_they_open_what_was_free(held: int) -> None:
    """Exactly, also where it cannot be divided; and everybody sees what is held as far as is known."""
    everybody = shares(4, held=held)
    for share in everybody:
        while share.admit(slots(10), NOW_US).admitted:
            pass
    opened = [dict(share.opened()).get("c", 0) for share in everybody]
    assert sum(opened) == max(0, 10 - held)
    assert max(opened) - min(opened) <= 1
    assert [share.look(slots(10), NOW_US).held for share in everybody] == [[held + each] for each in opened]


def test_what_ends_makes_room_for_its_own_process() -> None:
    """Also what was opened before, and it may be told below nothing."""
    share, _ = shares(2, held=4)
    assert not share.admit(slots(4), NOW_US).admitted
    share.settle(slots(4), (), NOW_US)
    assert share.admit(slots(4), NOW_US).admitted
    assert not share.admit(slots(4), NOW_US).admitted
    share.settle(slots(4), (), NOW_US)
    share.settle(slots(4), (), NOW_US)
    assert list(share.opened()) == [("c", -2)]


@pytest.mark.parametrize("shift_us", [-900_000, -1, 0, 1, 900_000])
def test_a_settlement_is_told_with_the_rest(shift_us: int) -> None:
    """Of what was admitted now and of what was admitted before."""
    now, before = shares(3, tat_us=NOW_US + 9_000_000)[0], shares(3, tat_us=NOW_US + 9_000_000)[0]
    now.admit(draw(1_000_000), NOW_US)
    now.settle(draw(1_000_000), (shift_us,), NOW_US)
    before.settle(draw(1_000_000), (shift_us,), NOW_US)
    assert (told(now, NOW_US), told(before, NOW_US)) == (1_000_000 + shift_us, shift_us)


def test_looking_takes_nothing_and_a_refusal_neither() -> None:
    share = shares(2)[0]
    assert share.look(draw(1), NOW_US).admitted
    assert not share.admit(draw(WINDOW_US), NOW_US).admitted
    assert share.owes == 0


def test_after_it_was_told_it_begins_anew() -> None:
    share = shares(2)[0]
    share.admit(draw(WINDOW_US // 2), NOW_US)
    share.admit(slots(2), NOW_US)
    assert not share.admit(draw(1), NOW_US).admitted
    assert share.owes == 2
    share.forget()
    assert (share.owes, list(share.debts(NOW_US)), list(share.opened())) == (0, [], [])
    assert share.admit(draw(1), NOW_US).admitted


@pytest.mark.parametrize("seed", range(5))
def test_never_more_than_the_bucket_holds_and_earns(seed: int) -> None:
    """Whoever asks for whatever, whenever."""
    random = Random(seed)
    everybody, now_us, taken_us = shares(3, tat_us=NOW_US + WINDOW_US // 2), NOW_US, 0
    for _ in range(2000):
        now_us += random.randint(0, 100_000)
        cost_us = random.randint(1, WINDOW_US // 10)
        if random.choice(everybody).admit(draw(cost_us), now_us).admitted:
            taken_us += cost_us
        assert taken_us <= WINDOW_US // 2 + now_us - NOW_US
    assert taken_us > 0.9 * (WINDOW_US // 2 + now_us - NOW_US)
