"""KV events that an engine publishes over ZMQ (vLLM, newer trtllm-serve), in order and without gaps.

A publisher drops what a subscriber is too slow for, or was not there for; a second socket replays what it
still has. Where that is not enough, the listener is told that everything is unknown.
"""

import asyncio
import enum
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import time
from typing import Final, NamedTuple

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from router.engines.kv_cache_events import Batch
from router.engines.vllm_kv_events import read_batch
from router.fleet.batch_order import BatchOrder, Verdict
from router.fleet.kv_feed import FeedFigures, KvListener
from router.fleet.stations import Alarm
from router.fleet.zmq_links import Link, LinkError, Links

log = logging.getLogger("turnout.fleet.kv_events")

_MAX_QUEUED: Final = 1_000
"""Live batches that wait to be read; beyond that the publisher drops, and a replay brings them back."""
_MAX_REPLAYED: Final = 20_000
"""Twice what vLLM keeps by default (`buffer_steps`): its replay socket drops what there is no room for."""
_REPLAY_SILENCE_S: Final = 2.0
"""Real ones look for questions ten times a second."""
_REPLAY_PAUSE_S: Final = 30.0
"""After a question without an answer: while one waits for it, live batches wait, too."""
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_NUMBER_BYTES: Final = 8


class _ReplayFailed(Exception):
    """The replay socket says nothing more, before the end of its answer."""


class _Answer(enum.Enum):
    """What a replay was."""

    WHOLE = "whole"
    PART = "part"
    """The publisher was faster than the socket, which drops what it has no room for: ask for the rest."""
    OTHERS = "others"
    """Not of the publisher that was heard before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PushPlace:
    """Where one rank of an engine publishes, and where it replays, if it does."""

    endpoint: str
    replay_endpoint: str | None = None
    topic: str = ""
    rank: int = 0


class _Numbered(NamedTuple):
    number: int
    payload: bytes


class PushFeed:
    """Hears one publisher until cancelled."""

    def __init__(self, links: Links, place: PushPlace, listener: KvListener) -> None:
        self.figures = FeedFigures(source=place.endpoint)
        self._links = links
        self._place = place
        self._listener = listener
        self._order = BatchOrder()
        self._last = 0
        """Hash of the batch before the expected one: the same again means the same publisher."""
        self._replays_at = 0.0
        self._turn = asyncio.Lock()
        self._alarm = Alarm()

    def hasten(self) -> None:
        """Something happened there: ask whether it is still the same publisher."""
        self._alarm.ring()

    async def run(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(LinkError),
            wait=wait_exponential(multiplier=_FIRST_PAUSE_S, max=_LONGEST_PAUSE_S),
            before_sleep=self._failed,
        )
        await retrying(self._hear)

    def _failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not self.figures.failure:
            log.warning("KV events cannot be heard: %s", error)
        self.figures.failure = str(error)

    async def _hear(self) -> None:
        """Raises `LinkError`."""
        place = self._place
        link = self._links.subscriber(place.endpoint, place.topic, _MAX_QUEUED)
        self.figures.failure = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._keep_taking(link))
                tasks.create_task(self._keep_catching_up(link))
                tasks.create_task(self._keep_checking())
        except ExceptionGroup as errors:
            links, others = errors.split(LinkError)
            raise others or LinkError(str(links and links.exceptions[0])) from None
        finally:
            self.figures.connected = False
            link.close()

    async def _keep_taking(self, link: Link) -> None:
        while True:
            batch = _numbered(await link.receive())
            # Where publishers connect, the end of an older connection may be noticed after the newer began.
            self.figures.connected = True
            if batch is None:
                self.figures.unreadable += 1
                continue
            async with self._turn:
                await self._take(batch)

    async def _keep_catching_up(self, link: Link) -> None:
        """Whatever was published while there was no connection is gone unless it is asked for."""
        while True:
            self.figures.connected = await link.connection_changed()
            if not self.figures.connected:
                continue
            self.figures.connections += 1
            async with self._turn:
                self._replays_at = 0.0
                await self._catch_up()

    async def _keep_checking(self) -> None:
        while True:
            await self._alarm.wait()
            async with self._turn:
                await self._catch_up()

    # ---- in order ----

    async def _take(self, batch: _Numbered) -> None:
        """One live batch, and before it whatever is missing."""
        order = self._order
        verdict = order.judge(batch.number)
        if verdict is Verdict.ANEW:
            self._begin_anew()
        if verdict in (Verdict.ANEW, Verdict.GAP):
            self.figures.gaps += verdict is Verdict.GAP
            await self._catch_up()
            order.live = batch.number
        applied = await self._apply(batch)
        if applied is not None:
            self.figures.lag_s = time() - applied.at

    async def _apply(self, batch: _Numbered) -> Batch | None:
        """None if it was applied before, or cannot be read. What is missing before it is missing for good."""
        order = self._order
        if batch.number < order.expected:
            return None
        if batch.number > order.expected > 0:
            self._lose()
        order.applied(batch.number)
        self._last = hash(batch.payload)
        try:
            read = read_batch(batch.payload)
        except ValueError as error:
            log.debug("a batch of KV events from %s: %s", self._place.endpoint, error)
            self.figures.unreadable += 1
            self._lose()
            return None
        self.figures.count(len(read.events), asyncio.get_running_loop().time())
        self._listener.heard(read.events, self._place.rank)
        # Reading a message that is there already gives no turn to anybody else.
        await asyncio.sleep(0)
        return read

    def _lose(self) -> None:
        self.figures.losses += 1
        self._listener.lost(self._place.rank)

    def _begin_anew(self) -> None:
        log.info("the publisher of KV events at %s began anew", self._place.endpoint)
        self.figures.restarts += 1
        self._order.begin_anew()
        self._listener.lost(self._place.rank)

    # ---- replay ----

    async def _catch_up(self) -> None:
        """Apply what was published since the last batch; without a replay socket, nothing."""
        endpoint, now = self._place.replay_endpoint, asyncio.get_running_loop().time()
        if endpoint is None or now < self._replays_at:
            return
        try:
            while (answer := await self._replay(endpoint)) is not _Answer.WHOLE:
                if answer is _Answer.OTHERS:
                    self._begin_anew()
        except _ReplayFailed as error:
            log.warning("KV events are not replayed: %s", error)
            self.figures.failed_replays += 1
            self._replays_at = now + _REPLAY_PAUSE_S

    async def _replay(self, endpoint: str) -> "_Answer":
        """Ask from the last batch on. Raises `_ReplayFailed` where that brings nothing.

        A publisher always has its own last batch, and no two batches have equal bytes: each bears its time.
        """
        self.figures.replays += 1
        order = self._order
        expected = order.expected
        any_came = expected == 0
        try:
            async with aclosing(self._replayed(endpoint, max(0, expected - 1))) as batches:
                async for batch in batches:
                    if batch.number == expected - 1 and hash(batch.payload) != self._last:
                        return _Answer.OTHERS
                    if batch.number > order.expected > expected:
                        return _Answer.PART
                    any_came = True
                    await self._apply(batch)
        except _ReplayFailed:
            if order.expected > expected:
                return _Answer.PART
            raise
        return _Answer.WHOLE if any_came else _Answer.OTHERS

    async def _replayed(self, endpoint: str, start: int) -> AsyncGenerator[_Numbered, None]:
        """Batches from number `start` on, as far as they are kept. Raises `_ReplayFailed`."""
        link = self._links.dealer(endpoint, _MAX_REPLAYED)
        try:
            await link.send((b"", start.to_bytes(_NUMBER_BYTES, "big")))
            while True:
                async with asyncio.timeout(_REPLAY_SILENCE_S):
                    frames = await link.receive()
                if not frames[-1]:
                    return
                batch = _numbered(frames)
                if batch is not None:
                    yield batch
        except TimeoutError:
            raise _ReplayFailed(f"{endpoint} says nothing") from None
        except LinkError as error:
            raise _ReplayFailed(str(error)) from None
        finally:
            link.close()


def _numbered(frames: Sequence[bytes]) -> _Numbered | None:
    """The last two frames are the number and the payload, whatever comes before; None for anything else.

    Replays have an empty frame first, and the topic only since v0.25 (pull request 45177).
    """
    if len(frames) < 2 or len(frames[-2]) != _NUMBER_BYTES:
        return None
    return _Numbered(int.from_bytes(frames[-2], "big"), frames[-1])
