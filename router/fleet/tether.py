"""A connection that nothing is sent on: it breaks when the process at its other end is no more.

That is known at once, without traffic and whatever the interval of probes is. What closes idle connections in
between (a proxy, a strict server) costs one more question to the replica, nothing else.
"""

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 5.0
REFUSED_PAUSE_S = 0.4
"""The longest pause where nobody listens: he who begins to is to be held on to before he is asked."""
MOST_IN_VAIN = 3
"""Times in a row that it was let go at once; after that it is not counted on."""
LONG_S = 0.02
"""Who has held on for so long is connected to again without a pause."""


class Tether:
    """Holds on to one process; `changed` is called when it has hold of one, and when that has let go."""

    def __init__(self, url: str, changed: Callable[[], None], timeout_s: Callable[[], float]) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._changed = changed
        self._timeout_s = timeout_s
        self._holds = False
        self._vain = 0
        self.tried = asyncio.Event()
        """There was a first attempt, whatever came of it."""

    @property
    def would_tell(self) -> bool:
        """It holds on to the process that is there now, or cannot: one that always lets go tells nothing."""
        return self._holds or self._vain >= MOST_IN_VAIN

    async def run(self) -> None:
        """Until cancelled. One that lets go at once, or nobody who listens, is tried less and less often."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        while True:
            began = loop.time()
            held = await self._hold()
            if held and loop.time() - began > LONG_S:
                pause_s, self._vain = FIRST_PAUSE_S, 0
                continue
            self._vain += held
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S if held else REFUSED_PAUSE_S)

    async def _hold(self) -> bool:
        """Connect, and wait for the end. False: there was no connection."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()
        try:
            async with asyncio.timeout(self._timeout_s()):
                transport, _ = await loop.create_connection(lambda: _End(ended), self._host, self._port)
        except OSError:
            return False
        finally:
            self.tried.set()
        self._holds = True
        # Whoever was asked before may have been another one.
        self._changed()
        try:
            await ended
        finally:
            self._holds = False
            transport.abort()
        self._changed()
        return True


class _End(asyncio.Protocol):
    """Resolves a future when the connection ends, or the other side speaks, which it has no reason to."""

    def __init__(self, ended: "asyncio.Future[None]") -> None:
        self._ended = ended

    def data_received(self, data: bytes) -> None:  # noqa: ARG002
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._end()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
