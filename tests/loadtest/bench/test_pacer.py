"""The pacer with a loop and a clock that the test moves."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.bench.pacer import SLOTS, Pacer


class ScriptedLoop(asyncio.AbstractEventLoop):
    """Keeps what it is asked to call; `run` calls it."""

    def __init__(self) -> None:
        self.now_ms = 5000
        self.waiting: list[Callable[..., object]] = []

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> Any:
        self.waiting.append(callback)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> Any:
        self.waiting.append(callback)

    def run(self, ms: int = 0) -> None:
        self.now_ms += ms
        due, self.waiting = self.waiting, []
        for callback in due:
            callback()


class CountedStream:
    """Has `tokens` to write and notes when it wrote them."""

    def __init__(self, loop: ScriptedLoop, tokens: int) -> None:
        self.loop = loop
        self.left = tokens
        self.written_ms: list[int] = []

    def write_token(self) -> bool:
        self.left -= 1
        self.written_ms.append(self.loop.now_ms - 5000)
        return self.left > 0


def pacer_and_loop(interval_ms: int) -> tuple[Pacer, ScriptedLoop]:
    loop = ScriptedLoop()
    return Pacer(loop, interval_ms, clock_ms=lambda: loop.now_ms), loop


def test_a_stream_writes_one_token_an_interval() -> None:
    """With ticks on time, tokens come at multiples of the interval after the start."""
    pacer, loop = pacer_and_loop(10)
    stream = CountedStream(loop, 3)
    pacer.add(stream)
    while loop.waiting:
        loop.run(1)
    assert stream.written_ms == [10, 20, 30]


def test_streams_keep_their_own_phase() -> None:
    """A stream that joins 4 ms later stays 4 ms behind."""
    pacer, loop = pacer_and_loop(10)
    first, second = CountedStream(loop, 2), CountedStream(loop, 2)
    pacer.add(first)
    for _ in range(4):
        loop.run(1)
    pacer.add(second)
    while loop.waiting:
        loop.run(1)
    assert (first.written_ms, second.written_ms) == ([10, 20], [14, 24])


def test_a_late_tick_does_not_shift_what_follows() -> None:
    """After a stall the missed tokens are written at once and the next is due when it always was."""
    pacer, loop = pacer_and_loop(10)
    stream = CountedStream(loop, 4)
    pacer.add(stream)
    loop.run(25)
    while loop.waiting:
        loop.run(1)
    assert stream.written_ms == [25, 25, 30, 40]


def test_without_interval_streams_take_turns() -> None:
    """Each stream writes one token a turn, so none keeps the others waiting."""
    pacer, loop = pacer_and_loop(0)
    first, second = CountedStream(loop, 2), CountedStream(loop, 3)
    pacer.add(first)
    pacer.add(second)
    loop.run()
    assert (first.left, second.left) == (1, 2)
    while loop.waiting:
        loop.run()
    assert (first.left, second.left) == (0, 0)


def test_an_idle_pacer_asks_for_no_calls() -> None:
    """The timer ends with the last stream and starts again with the next."""
    pacer, loop = pacer_and_loop(5)
    pacer.add(CountedStream(loop, 1))
    while loop.waiting:
        loop.run(1)
    loop.now_ms += 60_000
    late = CountedStream(loop, 1)
    pacer.add(late)
    joined_ms = loop.now_ms - 5000
    while loop.waiting:
        loop.run(1)
    assert late.written_ms == [joined_ms + 5]


def test_an_interval_beyond_the_wheel_is_refused() -> None:
    """The wheel holds less than its number of slots in milliseconds."""
    with pytest.raises(ValueError, match="interval_ms must be 0 to"):
        pacer_and_loop(SLOTS)
