"""Rows of a file do what a book does: any sequence, a full file, names that come twice."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.limits.ask import Ask, Budget, Slots
from policies.limits.book import Book
from router.api.errors import Overloaded
from router.control.limits.bucket_file import BucketFile, Geometry
from router.control.limits.buckets import Buckets
from tests.support.shared_books import SMALL

SECOND_US = 1_000_000
WINDOW_US = 60 * SECOND_US


@contextlib.contextmanager
def buckets(folder: Path, geometry: Geometry = SMALL) -> Iterator[Buckets]:
    file = BucketFile(folder, geometry)
    made = Buckets(file)
    try:
        yield made
    finally:
        made.leave()
        file.close()


def draw(*keys: str, cost_us: int = WINDOW_US, slots: str = "", most: int = 1) -> Ask:
    return Ask("", [Budget(key, cost_us, WINDOW_US) for key in keys], [Slots(key, most) for key in slots])


KEYS = st.sampled_from([f"k{number}" for number in range(5)])
ASKS = st.builds(
    Ask,
    st.just(""),
    st.lists(st.builds(Budget, KEYS, st.integers(0, WINDOW_US), st.just(WINDOW_US)), max_size=4),
    st.lists(st.builds(Slots, KEYS, st.integers(0, 4)), max_size=3),
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "admit", "look", "settle"]),
        ASKS,
        st.lists(st.integers(-2 * WINDOW_US, 2 * WINDOW_US), min_size=4, max_size=4),
        st.integers(0, WINDOW_US // 2),
        st.integers(0, 9),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_any_sequence_is_answered_as_by_a_book(steps: list[tuple[str, Ask, list[int], int, int]]) -> None:
    """Admitted, refused, looked at, settled for more and less, with keys that come twice in an ask."""
    book, now_us = Book(), 0
    admitted: list[Ask] = []
    with TemporaryDirectory() as folder, buckets(Path(folder)) as rows:
        for what, ask, shifts_us, later_us, which in steps:
            now_us += later_us
            if what == "settle":
                if admitted:
                    done = admitted.pop(which % len(admitted))
                    shifts = shifts_us[: len(done.budgets)]
                    book.settle(done, shifts, now_us)
                    rows.settle(done, shifts, now_us)
                continue
            expected = getattr(book, what)(ask, now_us)
            assert getattr(rows, what)(ask, now_us) == expected
            if what == "admit" and expected.admitted:
                admitted.append(ask)


def test_rows_are_reused_when_their_buckets_are_full_again(tmp_path: Path) -> None:
    """So a file that is full serves on: it must only not know more buckets at a time than it has rows."""
    with buckets(tmp_path, with_rows(3)) as rows:
        for turn in range(1, 20):
            now_us = 2 * turn * WINDOW_US
            for number in range(3):
                assert rows.admit(draw(f"{turn}-{number}"), now_us).admitted
                assert not rows.admit(draw(f"{turn}-{number}"), now_us).admitted


def test_a_new_key_that_comes_twice_has_one_row(tmp_path: Path) -> None:
    """Who comes later sees what was taken."""
    with buckets(tmp_path) as rows, buckets(tmp_path) as other:
        assert rows.admit(draw("a", "a", slots="cc", most=9), SECOND_US).admitted
        seen = other.look(draw("a", slots="c", most=9), SECOND_US)
        assert (seen.backlogs_us, seen.held) == ([WINDOW_US], [1])
        rows.settle(draw("a", slots="c"), [-WINDOW_US], SECOND_US)
        seen = other.look(draw("a", slots="c", most=9), SECOND_US)
        assert (seen.backlogs_us, seen.held) == ([WINDOW_US], [1])


def test_one_process_too_many_holds_no_slots(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What needs none is served; what needs one is refused whole."""
    geometry = SMALL._replace(places=1)
    with buckets(tmp_path, geometry) as one, buckets(tmp_path, geometry) as two:
        assert one.admit(draw("a", cost_us=1, slots="c", most=9), SECOND_US).admitted
        with pytest.raises(Overloaded, match="places"):
            two.admit(draw("a", cost_us=1, slots="c", most=9), SECOND_US)
        assert two.admit(draw("a", cost_us=1), SECOND_US).backlogs_us == [2]
        one.leave()
        assert two.admit(draw("a", slots="c"), SECOND_US + WINDOW_US).held == [1]
    assert len(caplog.records) == 1


def test_what_finds_no_row_is_refused_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing of it is taken, what has a row goes on, and it is said once."""
    with buckets(tmp_path, with_rows(3)) as rows:
        for key in "ab":
            rows.admit(draw(key, cost_us=1), SECOND_US)
        for _ in range(2):
            with pytest.raises(Overloaded):
                rows.admit(draw("a", "c", "d", cost_us=10, slots="c"), SECOND_US)
        assert rows.tat_us("a") == SECOND_US + 1
        assert (rows.tat_us("c"), rows.held("c")) == (0, 0)
        assert rows.admit(draw("a", cost_us=10), SECOND_US).backlogs_us == [11]
        assert rows.admit(draw("c"), SECOND_US).admitted
    assert len(caplog.records) == 1


def test_a_bucket_that_is_only_just_full_keeps_its_row(tmp_path: Path) -> None:
    """A process whose look at the clock is older must not find it gone."""
    with buckets(tmp_path, with_rows(1)) as rows:
        rows.admit(draw("a", cost_us=SECOND_US), 10 * SECOND_US)
        with pytest.raises(Overloaded):
            rows.admit(draw("b"), 11 * SECOND_US)
        assert rows.look(draw("a", cost_us=1), 11 * SECOND_US - 5).backlogs_us == [6]


def test_slots_keep_their_row_while_somebody_holds_one(tmp_path: Path) -> None:
    with buckets(tmp_path, SMALL._replace(slots=2)) as rows:
        assert rows.admit(draw(slots="a"), 0).admitted
        with pytest.raises(Overloaded):
            rows.admit(draw(slots="b"), 0)
        rows.settle(draw(slots="a"), (), 0)
        assert rows.admit(draw(slots="b"), 0).admitted
        assert rows.held("a") == 0


def test_a_debt_without_a_row_is_lost_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A settlement never fails."""
    with buckets(tmp_path, with_rows(1)) as rows:
        rows.admit(draw("a"), SECOND_US)
        rows.settle(draw("b"), [5], SECOND_US)
        assert rows.tat_us("a") == SECOND_US + WINDOW_US
    assert len(caplog.records) == 1


def test_what_no_word_can_hold_is_as_far_as_one_can(tmp_path: Path) -> None:
    with buckets(tmp_path) as rows:
        rows.admit(draw("a"), SECOND_US)
        rows.settle(draw("a"), [1 << 80], SECOND_US)
        assert not rows.admit(draw("a", cost_us=1), SECOND_US).admitted


def with_rows(count: int) -> Geometry:
    """So many rows for token buckets: the first is nobody's."""
    return SMALL._replace(budgets=count + 1)
