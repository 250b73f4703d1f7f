"""Buckets of one process alone: no Redis, no other workers."""

from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Protocol

from policies.limits.ask import Ask, Verdict
from policies.limits.book import Book
from router.control.limits.store import StoreState


class Counting(Protocol):
    """A book of buckets, in this process or shared with others. See `policies.limits.book.Book`."""

    def look(self, ask: Ask, now_us: int) -> Verdict: ...
    def admit(self, ask: Ask, now_us: int) -> Verdict: ...
    def settle(self, ask: Ask, shifts_us: Sequence[int], now_us: int) -> None: ...


class BookedReservation:
    """What was taken from a book."""

    __slots__ = ("_ask", "_book", "_now_us", "verdict")

    def __init__(self, book: Counting, ask: Ask, verdict: Verdict, now_us: Callable[[], int]) -> None:
        self.verdict = verdict
        self._book = book
        self._ask = ask
        self._now_us = now_us

    def settle(self, shifts_us: Sequence[int]) -> None:
        self._book.settle(self._ask, shifts_us, self._now_us())


def monotonic_us() -> int:
    return monotonic_ns() // 1000


class LocalStore:
    """Answers at once and is never away. Raises `Overloaded` where its book does."""

    def __init__(self, book: Counting | None = None, now_us: Callable[[], int] = monotonic_us) -> None:
        self._book = Book() if book is None else book
        self._now_us = now_us

    @property
    def state(self) -> StoreState:
        return StoreState("this process")

    async def admit(self, ask: Ask) -> BookedReservation:
        return BookedReservation(self._book, ask, self._book.admit(ask, self._now_us()), self._now_us)

    async def look(self, ask: Ask) -> Verdict:
        return self._book.look(ask, self._now_us())

    async def start(self) -> None:
        """Nothing to wait for."""

    async def close(self) -> None:
        """Nothing to write."""
