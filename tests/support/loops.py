"""Event loops that do not forgive: what a callback, a task or a logger complains of fails the test."""

import asyncio
import gc
import logging
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

import uvloop

T = TypeVar("T")

_LEVELS = {"asyncio": logging.WARNING}
"""From which level on a logger's records are complaints; ERROR for all others."""


class Complaints(logging.Handler):
    """Everything that nobody handled, as text."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= _LEVELS.get(record.name, logging.ERROR):
            self.found.append(self.format(record))

    def take(self) -> list[str]:
        """What was found since the last time."""
        gc.collect()  # a task says that its exception was never looked at when it goes
        found, self.found = self.found, []
        return found


class StrictLoop:
    """An event loop that tests run on one after the other; what lives on it rests between them."""

    def __init__(self, *, uv: bool = False) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None)
        self.complaints = Complaints()

    def __enter__(self) -> Self:
        self._runner.__enter__()
        # The loop's default exception handler logs to "asyncio", where the complaints listen.
        logging.getLogger().addHandler(self.complaints)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self.complaints)
        self._runner.close()

    def run(self, main: Coroutine[Any, Any, T], *, may_say: str = "nothing") -> T:
        """Run `main` to its end; fails if anything complained meanwhile, but of what `may_say` is in."""
        result = self._runner.run(main)
        assert [each for each in self.complaints.take() if may_say not in each] == []
        return result


def run_strictly(main: Coroutine[Any, Any, T], *, uv: bool = False) -> T:
    """As `asyncio.run`, but nothing may complain."""
    with StrictLoop(uv=uv) as loop:
        return loop.run(main)
