"""A worker's line to the overview: reports what it is asked for, and does what the overview wishes.

The overview may die and come back at any time; the worker serves on and calls again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from router.control.reports import Ask, Frames, Wish, WorkerReport

log = logging.getLogger("turnout.control.line")

CALL_AGAIN_S = 0.2
LAST_WORDS_S = 1.0


def desk_path(folder: Path) -> str:
    """Where the overview listens."""
    return str(folder / "overview.sock")


class Line:
    """`report` makes the answer to a question of this number; `obey` gets every other wish."""

    def __init__(
        self, folder: Path, report: Callable[[int], WorkerReport], obey: Callable[[Wish], None]
    ) -> None:
        self._path = desk_path(folder)
        self._report = report
        self._obey = obey
        self._frames: Frames[Wish] = Frames(Wish)  # type: ignore[arg-type]
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._keep_calling())

    async def close(self) -> None:
        """Say the last figures, so that nothing that was counted is lost, and hang up."""
        writer = self._writer
        self._say(0)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await writer.wait_closed()

    async def _keep_calling(self) -> None:
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._call()
            await asyncio.sleep(CALL_AGAIN_S)

    async def _call(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        self._writer = writer
        try:
            self._say(0)
            while True:
                await self._take(reader)
        except ValueError as error:
            log.warning("the overview says what cannot be read: %s", error)
        finally:
            self._writer = None
            writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> None:
        wish = await self._frames.read(reader)
        if isinstance(wish, Ask):
            self._say(wish.number)
        else:
            self._obey(wish)

    def _say(self, asked: int) -> None:
        if self._writer is not None:
            self._writer.write(self._frames.pack(self._report(asked)))
