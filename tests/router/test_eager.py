"""Coroutines that run without a task."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from router.eager import Eager, Signal


def in_a_loop(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_it_runs_at_once_and_goes_on_inside_fire() -> None:
    """No turn of the event loop passes between a signal and what waited for it."""

    async def test() -> None:
        signal = Signal()
        steps: list[str] = []

        async def work() -> None:
            steps.append("began")
            await signal
            steps.append("went on")

        Eager(work(), lambda _: steps.append("ended")).start()
        assert steps == ["began"]
        signal.fire()
        assert steps == ["began", "went on", "ended"]
        signal.fire()
        assert steps == ["began", "went on", "ended"]

    in_a_loop(test)


def test_a_signal_that_was_fired_before_is_not_waited_for() -> None:
    """It went off first: nothing to wait for."""

    async def test() -> None:
        signal = Signal()
        signal.fire()
        ended: list[Eager] = []

        async def work() -> None:
            await signal

        run = Eager(work(), ended.append)
        run.start()
        assert ended == [run]

    in_a_loop(test)


def test_other_futures_and_their_errors_can_be_awaited() -> None:
    """Connecting is a task like any other, and may fail."""

    async def test() -> None:
        seen: list[object] = []
        over = asyncio.Event()

        async def slow() -> int:
            await asyncio.sleep(0)
            return 5

        async def broken() -> None:
            await asyncio.sleep(0)
            raise OSError("refused")

        async def work() -> None:
            seen.append(await asyncio.ensure_future(slow()))
            try:
                await asyncio.ensure_future(broken())
            except OSError as error:
                seen.append(str(error))

        Eager(work(), lambda _: over.set()).start()
        await asyncio.wait_for(over.wait(), 5)
        assert seen == [5, "refused"]

    in_a_loop(test)


def test_a_defect_ends_the_run_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It reaches the log, not the callback that happened to fire the signal."""

    async def test() -> None:
        ended: list[Eager] = []

        async def work() -> None:
            raise ZeroDivisionError

        Eager(work(), ended.append).start()
        assert len(ended) == 1

    with caplog.at_level(logging.ERROR):
        in_a_loop(test)
    assert "ZeroDivisionError" in caplog.text


def test_a_task_may_await_a_signal_too() -> None:
    """The ASGI front end runs requests as tasks."""

    async def test() -> None:
        signal = Signal()

        async def work() -> str:
            await signal
            return "went on"

        task = asyncio.ensure_future(work())
        await asyncio.sleep(0)
        signal.fire()
        assert await task == "went on"

    in_a_loop(test)


def test_a_cancelled_wait_ends_the_run_quietly(caplog: pytest.LogCaptureFixture) -> None:
    """The process ends while a connection is being made: no defect."""

    async def test() -> None:
        ended: list[Eager] = []
        cleaned: list[str] = []
        waiting = asyncio.ensure_future(asyncio.sleep(60))

        async def work() -> None:
            try:
                await waiting
            finally:
                cleaned.append("yes")

        Eager(work(), ended.append).start()
        waiting.cancel()
        await asyncio.wait({waiting})
        await asyncio.sleep(0)
        assert (len(ended), cleaned) == (1, ["yes"])

    in_a_loop(test)
    assert caplog.text == ""
