"""Workers that report to one desk over real Unix sockets, and do what is wished there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from router.control.desk import Desk
from router.control.line import Line, desk_path
from router.control.messages import Member, Place
from router.control.reports import Draining, LookAgain, Wish, WorkerReport
from tests.support.loops import run_strictly
from tests.support.scripted_server import until

A = Place("m", "v1", "a")


class Worker:
    """A worker on the line, and what was wished of it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self.counted = 0
        self.wishes: list[Wish] = []
        self.line = Line(folder, self.report, self.wishes.append)
        self.line.start()

    def report(self, asked: int) -> WorkerReport:
        return report(self.number, asked=asked, dropped=self.counted)


def report(number: int, *, asked: int = 0, dropped: int = 0) -> WorkerReport:
    return WorkerReport(
        asked=asked,
        number=number,
        member=Member(1, number, 0),
        pid=number,
        series=[],
        replicas=[],
        dropped_log_lines=dropped,
        dropped_messages=0,
        queued=[],
        peers=0,
        cpu_s=0.0,
        resident_bytes=0,
    )


class Office:
    """A desk, and the last reports of those who hung up."""

    def __init__(self) -> None:
        self.gone: list[WorkerReport] = []
        self.desk = Desk(lambda: [Draining([A])], self.gone.append)

    @property
    def numbers(self) -> list[int]:
        return [each.number for each in self.desk.reports]


@contextlib.asynccontextmanager
async def office(folder: Path) -> AsyncIterator[Office]:
    found = Office()
    await found.desk.start(folder)
    try:
        yield found
    finally:
        await found.desk.close()


def test_reports_are_as_new_as_they_are_asked_for(tmp_path: Path) -> None:
    """Of every worker, in the order of their numbers; a greeting comes first."""

    async def run() -> None:
        async with office(tmp_path) as at:
            workers = [Worker(tmp_path, number) for number in (2, 1)]
            await until(lambda: at.numbers == [1, 2])
            await until(lambda: all(worker.wishes == [Draining([A])] for worker in workers))
            for worker in workers:
                worker.counted = worker.number * 10
            await at.desk.refresh()
            assert [each.dropped_log_lines for each in at.desk.reports] == [10, 20]
            at.desk.tell(LookAgain(A))
            await until(lambda: all(worker.wishes[1:] == [LookAgain(A)] for worker in workers))
            for worker in workers:
                await worker.line.close()

    run_strictly(run(), uv=True)


def test_last_words(tmp_path: Path) -> None:
    """What was counted after the last question is not lost, and who hung up is not waited for."""

    async def run() -> None:
        async with office(tmp_path) as at:
            worker = Worker(tmp_path, 1)
            await until(lambda: at.numbers == [1])
            worker.counted = 7
            await worker.line.close()
            await until(lambda: len(at.gone) == 1)
            assert (at.gone[0].dropped_log_lines, at.numbers) == (7, [])
            await at.desk.refresh()

    run_strictly(run(), uv=True)


def test_one_that_does_not_answer_is_shown_as_it_was(tmp_path: Path) -> None:
    """The others are as new as they can be."""

    async def run() -> None:
        async with office(tmp_path) as at:
            silent = Worker(tmp_path, 1)
            other = Worker(tmp_path, 2)
            await until(lambda: at.numbers == [1, 2])
            silent.line._say = lambda asked: None  # type: ignore[method-assign]
            silent.counted = other.counted = 5
            await at.desk.refresh()
            assert [each.dropped_log_lines for each in at.desk.reports] == [0, 5]
            await silent.line.close()
            await other.line.close()

    run_strictly(run(), uv=True)


def test_a_desk_that_comes_back_is_called_again(tmp_path: Path) -> None:
    """Also over the socket file that its predecessor left behind."""

    async def run() -> None:
        worker = Worker(tmp_path, 1)
        for _ in range(2):
            async with office(tmp_path) as at:
                await until(lambda: at.numbers == [1])
            await until(lambda: worker.line._writer is None)
        await worker.line.close()

    run_strictly(run(), uv=True)


def test_callers_that_talk_nonsense(tmp_path: Path) -> None:
    """They are hung up on, with one line in the log."""

    async def run() -> None:
        async with office(tmp_path) as at:
            for nonsense in (b"\x00\x00\x00\x02\xc1\xc1", b"\xff\xff\xff\xff", b"\x00\x00\x00\x05ab"):
                reader, writer = await asyncio.open_unix_connection(desk_path(tmp_path))
                writer.write(nonsense)
                writer.write_eof()
                assert await reader.read() == b""
                writer.close()
            assert (at.numbers, at.gone) == ([], [])

    run_strictly(run(), uv=True)
