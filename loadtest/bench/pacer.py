"""When each stream of the simulated replicas writes its next token: one timer for all of them.

A stream keeps its phase and its rate: a late tick writes late, the next token is due when it always was.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

SLOTS = 1024


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


class Stream(Protocol):
    def write_token(self) -> bool:
        """Writes one token; false when there is none to write until the stream is added again."""
        ...


class Pacer:
    """Calls each stream's `write_token` every `interval_ms`; with 0, once a turn of the event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval_ms: int, clock_ms: Callable[[], int] = monotonic_ms
    ) -> None:
        if not 0 <= interval_ms < SLOTS:
            raise ValueError(f"interval_ms must be 0 to {SLOTS - 1}, not {interval_ms}")
        self._loop = loop
        self._interval_ms = interval_ms
        self._clock_ms = clock_ms
        self._eager: list[Stream] = []
        self._slots: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self._paced = 0
        self._next_ms = 0

    def add(self, stream: Stream) -> None:
        """The stream's first token is due after one interval."""
        if self._interval_ms == 0:
            if not self._eager:
                self._loop.call_soon(self._turn)
            self._eager.append(stream)
            return
        now_ms = self._clock_ms()
        if self._paced == 0:
            self._next_ms = now_ms
            self._loop.call_later(0.001, self._tick)
        self._slots[(now_ms + self._interval_ms) % SLOTS].append(stream)
        self._paced += 1

    def _turn(self) -> None:
        self._eager = [stream for stream in self._eager if stream.write_token()]
        if self._eager:
            self._loop.call_soon(self._turn)

    def _tick(self) -> None:
        now_ms = self._clock_ms()
        while self._next_ms <= now_ms and self._paced:
            self._serve(self._next_ms % SLOTS)
            self._next_ms += 1
        if self._paced:
            self._loop.call_later(0.001, self._tick)

    def _serve(self, slot: int) -> None:
        due = self._slots[slot]
        if not due:
            return
        self._slots[slot] = []
        going_on = [stream for stream in due if stream.write_token()]
        self._slots[(slot + self._interval_ms) % SLOTS] += going_on
        self._paced -= len(due) - len(going_on)
