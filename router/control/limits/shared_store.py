"""The store of a router of several processes without Redis."""

import asyncio
import contextlib

from router.control.limits.local import LocalStore, monotonic_us
from router.control.limits.shared_book import SharedBook
from router.control.limits.store import StoreState

_TEND_S = 1.0


class SharedStore(LocalStore):
    """Answers at once. Close it last: what is settled after that goes nowhere."""

    def __init__(self, book: SharedBook) -> None:
        super().__init__(book)
        self._shared = book
        self._tending: asyncio.Task[None] | None = None

    @property
    def state(self) -> StoreState:
        return self._shared.state

    async def start(self) -> None:
        self._tending = asyncio.create_task(self._keep_tending())

    async def close(self) -> None:
        if self._tending is not None:
            self._tending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._tending
        self._shared.close(monotonic_us())

    async def _keep_tending(self) -> None:
        while True:
            await asyncio.sleep(_TEND_S)
            self._shared.tend(monotonic_us())
