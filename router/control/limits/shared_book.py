"""Buckets that all workers of one router share exactly: a file that each has mapped, and a lock on each step.

Same answers as `policies.limits.book.Book`, whichever process is asked. A process killed at any moment leaves
at most one ask half taken, of which nobody was told that it was admitted: that undersells. Slots it held are
free when the next ask would fail for them. While the lock cannot be had (a process is stopped and has it),
asks are answered from this process's own share, and the others are told of them later. Where that process
was only slow, a share of what was left may so be sold twice; the bucket is then in debt.
"""

from collections.abc import Sequence
from pathlib import Path

from policies.limits.ask import Ask, Verdict
from router.control.limits.bucket_file import BucketFile, Geometry
from router.control.limits.buckets import Buckets
from router.control.limits.own_share import OwnShare
from router.control.limits.short_lock import PATIENCE_US, ShortLock
from router.control.limits.store import StoreState


class SharedBook:
    """The buckets in `folder`; all who open it must give the same geometry. Raises `OSError`.

    A process that does not take part may only look.
    """

    def __init__(
        self,
        folder: Path,
        geometry: Geometry | None = None,
        *,
        takes_part: bool = True,
        patience_us: int = PATIENCE_US,
    ) -> None:
        self._file = BucketFile(folder, Geometry() if geometry is None else geometry)
        self._lock = ShortLock(self._file.fd, patience_us)
        self._buckets = Buckets(self._file)
        self._own = OwnShare(self._buckets.tat_us, self._buckets.held, self._buckets.share)
        self._takes_part = takes_part
        self._closed = False
        self.tend(0)

    @property
    def state(self) -> StoreState:
        stalled = self._lock.stalled
        return StoreState(
            place="memory of this host",
            healthy=not stalled,
            shares=self._own.parts if stalled else 1,
            unsettled=self._own.owes,
            lost=self._lock.stalls,
        )

    def look(self, ask: Ask, now_us: int) -> Verdict:
        """What `admit` would say; takes nothing."""
        if not self._lock.take():
            return self._own.look(ask, now_us)
        try:
            self._catch_up(now_us)
            return self._buckets.look(ask, now_us)
        finally:
            self._lock.give_back()

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        """Raises `Overloaded` where there is no room in the file for what it would take."""
        if not self._lock.take():
            return self._own.admit(ask, now_us)
        try:
            self._catch_up(now_us)
            return self._buckets.admit(ask, now_us)
        finally:
            self._lock.give_back()

    def settle(self, ask: Ask, shifts_us: Sequence[int], now_us: int) -> None:
        """See `Book.settle`. A debt for which there is no room in the file is lost, and that is logged."""
        if self._closed:
            return
        if not self._lock.take():
            self._own.settle(ask, shifts_us, now_us)
            return
        try:
            self._catch_up(now_us)
            self._buckets.settle(ask, shifts_us, now_us)
        finally:
            self._lock.give_back()

    def tend(self, now_us: int) -> None:
        """What the others cannot wait for until somebody asks here: call it about once a second."""
        if not self._lock.take():
            return
        try:
            if self._takes_part:
                self._buckets.join()
            self._catch_up(now_us)
            self._buckets.bury()
        finally:
            self._lock.give_back()

    def close(self, now_us: int) -> None:
        """What this process still holds is given back; what it settles later changes nothing. Ask no more."""
        self._closed = True
        if self._lock.take():
            self._catch_up(now_us)
            self._buckets.leave()
            self._lock.give_back()
        self._file.close()

    def _catch_up(self, now_us: int) -> None:
        if self._own.owes:
            for key, shift_us in self._own.debts(now_us):
                self._buckets.move(key, shift_us, now_us)
            for key, more in self._own.opened():
                self._buckets.open(key, more)
            self._own.forget()
