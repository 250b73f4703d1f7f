"""A lock that is held for moments: waited for a little, and hardly at all once its holder is known to stay."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from time import monotonic

import pytest

from router.control.limits.short_lock import ShortLock


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[int, int]]:
    one, two = (os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT) for _ in range(2))
    yield one, two
    os.close(one)
    os.close(two)


def test_one_has_it_at_a_time(files: tuple[int, int]) -> None:
    one, two = (ShortLock(file, 1) for file in files)
    assert one.take()
    assert not two.take()
    one.give_back()
    assert two.take()


def test_it_is_waited_for(files: tuple[int, int]) -> None:
    """However long its holder waits for a processor."""
    one, two = ShortLock(files[0], 1), ShortLock(files[1], 60_000_000)
    assert one.take()
    timer = Timer(0.05, one.give_back)
    timer.start()
    assert two.take()
    assert not two.stalled
    timer.join()


def test_a_holder_that_stays_costs_its_patience_once(
    files: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    """One line when it is lost, one when it is back; in between, nobody waits."""
    caplog.set_level("INFO")
    lock = ShortLock(files[1], 300_000)
    fcntl.flock(files[0], fcntl.LOCK_EX)
    began = monotonic()
    assert not lock.take()
    first_s, began = monotonic() - began, monotonic()
    assert [lock.take() for _ in range(20)] == [False] * 20
    # Half of what they would have waited for: the machine may be busy.
    assert monotonic() - began < 10 * first_s
    assert (lock.stalled, lock.stalls, len(caplog.records)) == (True, 1, 1)
    fcntl.flock(files[0], fcntl.LOCK_UN)
    assert lock.take()
    assert (lock.stalled, lock.stalls, len(caplog.records)) == (False, 1, 2)
