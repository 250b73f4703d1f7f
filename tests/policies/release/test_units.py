from random import Random

from policies.release.units import Marked, Seen


def test_a_unit_is_new_once() -> None:
    chance, seen = Random(1), Seen()
    units = [chance.getrandbits(64) for _ in range(2_000)]
    assert sum(map(seen.first, units)) > 1_960  # some share a bit
    assert not any(map(seen.first, units))
    seen.clear()
    assert seen.first(units[0])


def test_it_never_grows_and_forgets_all_when_it_is_full() -> None:
    chance, seen = Random(2), Seen()
    first = chance.getrandbits(64)
    assert seen.first(first)
    taken = sum(seen.first(chance.getrandbits(64)) for _ in range(60_000))
    assert len(seen.snapshot()) == 16 * 1024
    assert taken > 45_000  # the rest were passed over
    assert seen.first(first)


def test_what_is_passed_over_is_a_matter_of_chance() -> None:
    """Units that count up are spread like any others."""
    seen = Seen()
    assert sum(seen.first(unit) for unit in range(10_000)) > 9_000


def test_seen_goes_on_as_it_was() -> None:
    seen, copy = Seen(), Seen()
    for unit in range(500):
        seen.first(unit)
    copy.restore(seen.snapshot())
    for unit in range(400, 900):
        assert seen.first(unit) == copy.first(unit)


def test_a_bad_unit_counts_once_and_once_more_at_each_step() -> None:
    marked = Marked()
    assert marked.mark(7, 1) == (True, True)
    assert marked.mark(7, 1) == (False, False)
    assert marked.mark(7, 2) == (False, True)
    assert marked.mark(8, 2) == (True, True)


def test_the_oldest_is_forgotten() -> None:
    marked = Marked(most=3)
    for unit in range(10):
        marked.mark(unit, 1)
    assert len(marked) == 3
    assert [marked.mark(unit, 1)[0] for unit in (9, 8, 7)] == [False] * 3
    assert marked.mark(0, 1) == (True, True)


def test_marks_go_on_as_they_were() -> None:
    marked, copy = Marked(), Marked()
    for unit in range(100):
        marked.mark(unit << 20, unit % 3)
    copy.restore(marked.snapshot())
    assert copy.snapshot() == marked.snapshot()
    assert copy.mark(5 << 20, 2) == (False, False)
