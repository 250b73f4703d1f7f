"""One clock tick for all deadlines: an attempt sets a number, nobody makes a timer per token."""

import asyncio
from time import monotonic
from typing import Protocol

from router.api.errors import TurnoutError


class Watched(Protocol):
    deadline: float
    """When `expire` is due, monotonic seconds."""

    def expire(self, now: float) -> None: ...
    def end(self, error: TurnoutError) -> None: ...


class Watch:
    """Calls `expire` of what is past its deadline, at most `tick_s` late."""

    def __init__(self, tick_s: float = 0.1) -> None:
        self.loop = asyncio.get_running_loop()
        self._tick_s = tick_s
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._final: TurnoutError | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, watched: Watched) -> None:
        self._watched.add(watched)
        if self._timer is None:
            self._timer = self.loop.call_later(self._tick_s, self._tick)
        if self._final is not None:
            self.loop.call_soon(watched.end, self._final)

    def discard(self, watched: Watched) -> None:
        self._watched.discard(watched)

    def fail_all(self, error: TurnoutError) -> None:
        """End everything that is watched, and whatever comes later, with this error."""
        self._final = error
        for watched in list(self._watched):
            watched.end(error)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        now = monotonic()
        due = [each for each in self._watched if each.deadline <= now]
        if self._watched:
            # First of all: whatever one of them meets, the others keep their deadlines.
            self._timer = self.loop.call_later(self._tick_s, self._tick)
        for watched in due:
            watched.expire(now)
