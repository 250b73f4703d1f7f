"""Places: who lives has one, what the dead held is free, and nobody inherits it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from router.control.limits.bucket_file import BucketFile
from router.control.limits.places import Places
from tests.support.shared_books import SMALL

ROW = 5


@contextlib.contextmanager
def places(folder: Path) -> Iterator[Places]:
    """When this ends it is as if the process had died."""
    file = BucketFile(folder, SMALL)
    try:
        yield Places(file)
    finally:
        file.close()


def test_what_is_held_is_the_sum_of_all(tmp_path: Path) -> None:
    """Each writes its own."""
    with places(tmp_path) as one, places(tmp_path) as two, places(tmp_path) as watching:
        assert one.take()
        assert two.take()
        one.hold(ROW, 2)
        two.hold(ROW, 3)
        two.hold(ROW + 1, 1)
        assert [each.held(ROW) for each in (one, two, watching)] == [5, 5, 5]
        assert (one.own(ROW), two.own(ROW), watching.held(ROW + 1), one.held(0)) == (2, 3, 1, 0)
        one.hold(ROW, 0)
        assert watching.held(ROW) == 3


def test_what_the_dead_held_is_free(tmp_path: Path) -> None:
    """As soon as somebody looks after them, and not before: an owner that lives keeps it."""
    with places(tmp_path) as watching:
        with places(tmp_path) as one, places(tmp_path) as two:
            one.take()
            one.hold(ROW, 2)
            with places(tmp_path) as dying:
                dying.take()
                dying.hold(ROW, 4)
                assert not watching.bury()
                assert not one.bury()
            assert watching.held(ROW) == 6
            assert one.bury()
            assert not watching.bury()
            assert (watching.held(ROW), one.own(ROW)) == (2, 2)
            two.take()
            assert (two.own(ROW), watching.held(ROW)) == (0, 2)
        assert watching.bury()
        assert watching.held(ROW) == 0


def test_a_successor_inherits_nothing(tmp_path: Path) -> None:
    """It has the place of one whom nobody buried."""
    with places(tmp_path) as watching:
        with places(tmp_path) as first:
            first.take()
            first.hold(ROW, 4)
        with places(tmp_path) as second:
            second.take()
            assert (second.own(ROW), watching.held(ROW), second.share()) == (0, 0, (1, 0))
            second.hold(ROW, 1)
            assert watching.held(ROW) == 1
            assert not watching.bury()


def test_who_leaves_holds_nothing(tmp_path: Path) -> None:
    with places(tmp_path) as one, places(tmp_path) as two:
        one.take()
        one.hold(ROW, 4)
        one.leave()
        assert two.take()
        assert (one.taken, two.held(ROW), two.share()) == (False, 0, (1, 0))


def test_there_are_so_many_places(tmp_path: Path) -> None:
    """One too many has none until another dies."""
    with contextlib.ExitStack() as stack, places(tmp_path) as late:
        all_places = [stack.enter_context(places(tmp_path)) for _ in range(SMALL.places)]
        assert all(each.take() for each in all_places)
        assert [each.share() for each in all_places] == [(8, rank) for rank in range(8)]
        assert (late.take(), late.taken, late.share()) == (False, False, (9, 8))
        stack.close()
        assert late.take()
