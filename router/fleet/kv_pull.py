"""KV events that trtllm-serve keeps until somebody asks for them.

Asking empties its buffer: there may be one asker only, and what an answer lost on its way held is gone. The
numbers tell.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from router.engines.trtllm_kv_events import Numbered, read_events
from router.fleet.control_client import ControlClient, NoAnswer
from router.fleet.kv_feed import FeedFigures, KvListener
from router.fleet.stations import Alarm

log = logging.getLogger("turnout.fleet.kv_events")

PATH: Final = "/kv_cache_events"
_TIMEOUT_S: Final = 10.0
"""Older servers wait up to 2 s for a first event."""
_MAX_BYTES: Final = 64 << 20
"""A full buffer is 16,384 events, each some 2 kB a block."""
_LONGEST_PAUSE_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PullPlace:
    """Where to ask, and how often."""

    url: str
    headers: Mapping[str, str]
    interval_s: float


class PullFeed:
    """Asks one server until cancelled."""

    def __init__(self, client: ControlClient, place: PullPlace, listener: KvListener) -> None:
        self.figures = FeedFigures(source=place.url)
        self._client = client
        self._place = place
        self._listener = listener
        self._expected: int | None = None
        self._window = 0
        self._alarm = Alarm()

    def hasten(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(NoAnswer),
            wait=wait_exponential(multiplier=self._place.interval_s, max=_LONGEST_PAUSE_S),
            sleep=self._alarm.pause,
            before_sleep=self._failed,
        )
        while True:
            content: bytes = await retrying(self._ask)
            self._take(content)
            await self._alarm.pause(self._place.interval_s)

    async def _ask(self) -> bytes:
        """Raises `NoAnswer`."""
        place = self._place
        answer = await self._client.post(place.url + PATH, place.headers, _TIMEOUT_S, _MAX_BYTES)
        if answer.status != 200:
            raise NoAnswer(f"{PATH} answered {answer.status}")
        self.figures.failure = ""
        self.figures.connections += not self.figures.connected
        self.figures.connected = True
        return answer.content

    def _failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not self.figures.failure:
            log.warning("KV events of %s cannot be read: %s", self._place.url, error)
        self.figures.failure = str(error)
        self.figures.connected = False

    def _take(self, content: bytes) -> None:
        try:
            entries = read_events(content)
        except ValueError as error:
            log.debug("KV events of %s: %s", self._place.url, error)
            self.figures.unreadable += 1
            return
        for entry in entries:
            self._apply(entry)
        if entries:
            heard = sum(len(entry.events) for entry in entries)
            self.figures.count(heard, asyncio.get_running_loop().time())

    def _apply(self, entry: Numbered) -> None:
        expected, self._expected = self._expected, entry.number + 1
        if expected is not None and entry.number != expected:
            self.figures.restarts += entry.number < expected
            self.figures.gaps += entry.number > expected
            self._lose()
        if entry.window < self._window:
            return
        if entry.window > self._window > 0:
            self._listener.lost(0)
        # A model with sliding windows has caches of several; only the widest keeps whole prefixes.
        self._window = entry.window
        if entry.events:
            self._listener.heard(entry.events, 0)

    def _lose(self) -> None:
        self.figures.losses += 1
        self._listener.lost(0)
