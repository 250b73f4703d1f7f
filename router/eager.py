"""Runs a request's coroutine without a task: at once, and on in the callback that it waits for.

A task costs two more turns of the event loop a request, and a turn is a system call. What a coroutine
here may await is a `Signal`, or any asyncio future (a task around whatever needs one).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger("turnout.flow")


class Signal(asyncio.Future[None]):
    """A future that, awaited by an `Eager` run, lets it go on inside `fire`; for tasks an ordinary one."""

    resume: Callable[[], None] | None = None

    def fire(self) -> None:
        """What was waited for has happened. A second call changes nothing."""
        if self.done():
            return
        self.set_result(None)
        # Let go of: whoever waits holds what holds this signal.
        resume, self.resume = self.resume, None
        if resume is not None:
            resume()


class Eager:
    """One coroutine on its way; `ended` is called with this object when it has ended."""

    __slots__ = ("_coroutine", "_ended")

    def __init__(self, coroutine: Coroutine[Any, None, None], ended: Callable[["Eager"], None]) -> None:
        self._coroutine = coroutine
        self._ended = ended

    def start(self) -> None:
        """Run to the first thing that has to be waited for, or to the end."""
        self._step()

    def _step(self, _: object = None) -> None:
        try:
            awaited = self._coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            # Cancelled: what it waited for was, as the process ends.
            self._ended(self)
        except Exception:
            log.exception("a request ended with a defect of the router")
            self._ended(self)
        else:
            self._wait_for(awaited)

    def _wait_for(self, awaited: asyncio.Future[Any]) -> None:
        # The mark by which a future tells a task that it was awaited, and not just yielded.
        awaited._asyncio_future_blocking = False  # noqa: SLF001
        if isinstance(awaited, Signal):
            awaited.resume = self._step
        else:
            awaited.add_done_callback(self._step)
