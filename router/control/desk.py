"""Where all workers of a router report: the newest figures of each, and the counters of those that are gone.

A worker's death ends its line at once; what it had counted by its last report stays in the sums.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from router.control.line import desk_path
from router.control.reports import Ask, Frames, Wish, WorkerReport

log = logging.getLogger("turnout.control.desk")

PATIENCE_S = 0.3
"""How long a worker has to answer; the last report of one that is busier than that stands."""
MAX_UNREAD_BYTES = 1024 * 1024


class _Caller:
    """A worker on the line."""

    def __init__(self, writer: asyncio.StreamWriter, report: WorkerReport) -> None:
        self.writer = writer
        self.report = report


class Desk:
    """`greeting` is what a worker is told when it calls; `gone` gets the last report of one that hung up."""

    def __init__(self, greeting: Callable[[], Iterable[Wish]], gone: Callable[[WorkerReport], None]) -> None:
        self._greeting = greeting
        self._gone = gone
        self._frames = Frames(WorkerReport)
        self._callers: dict[asyncio.StreamWriter, _Caller] = {}
        self._asked = 0
        self._answered = asyncio.Condition()
        self._server: asyncio.Server | None = None

    @property
    def reports(self) -> list[WorkerReport]:
        """The newest of every worker that is there, in the order of the workers."""
        return sorted((caller.report for caller in self._callers.values()), key=lambda each: each.member)

    async def start(self, folder: Path) -> None:
        """Raises `OSError` if the folder cannot be used."""
        path = desk_path(folder)
        with contextlib.suppress(FileNotFoundError):
            await asyncio.to_thread(Path(path).unlink)
        self._server = await asyncio.start_unix_server(self._serve, path)

    def tell(self, wish: Wish) -> None:
        """To every worker."""
        frame = self._frames.pack(wish)
        for writer in self._callers:
            if writer.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
                writer.transport.abort()  # it reads nothing; should it live on, it calls again
            else:
                writer.write(frame)

    async def refresh(self) -> None:
        """Have a report of every worker that is newer than this call, or than its patience."""
        self._asked += 1
        number = self._asked
        self.tell(Ask(number))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S), self._answered:
                await self._answered.wait_for(
                    lambda: all(each.report.asked >= number for each in self._callers.values())
                )

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._callers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._listen(reader, writer)
        except ValueError as error:
            log.warning("a worker says what cannot be read: %s", error)
        finally:
            await self._hung_up(writer)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(writer, await self._frames.read(reader))
        self._callers[writer] = caller
        for wish in self._greeting():
            writer.write(self._frames.pack(wish))
        while True:
            caller.report = await self._frames.read(reader)
            await self._wake()

    async def _hung_up(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        caller = self._callers.pop(writer, None)
        if caller is not None:
            self._gone(caller.report)
            await self._wake()

    async def _wake(self) -> None:
        async with self._answered:
            self._answered.notify_all()
