"""A family of real processes: births, deaths, renewals, signals, and the last one out."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from router.serving.supervisor import LONGEST_PAUSE_S, pause_s
from tests.support.loops import run_strictly

PATIENCE_S = 20.0


class Family:
    """A supervisor, and what it and its children said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.words: list[tuple[str, int, int]] = []

    async def next(self) -> tuple[str, int, int]:
        """The next word, who said it, and its process."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            line = (await self.process.stdout.readline()).split()
        assert line, "the family has ended"
        word = line[0].decode(), int(line[1]), int(line[2])
        self.words.append(word)
        return word

    async def until(self, word: str, number: int = -1) -> int:
        """Read up to this word; the process that said it."""
        while True:
            said = await self.next()
            if said[:2] == (word, number):
                return said[2]

    async def ended(self) -> int:
        """Read to the end; the exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            for line in (await self.process.stdout.read()).splitlines():
                word, number, process = line.split()
                self.words.append((word.decode(), int(number), int(process)))
            return await self.process.wait()

    async def log(self) -> str:
        """All that was logged, once it has ended."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    def born(self) -> dict[int, list[int]]:
        """The processes of each number, in the order of their births."""
        found: dict[int, list[int]] = {}
        for word, number, process in self.words:
            if word == "born":
                found.setdefault(number, []).append(process)
        return found

    def said(self, word: str) -> list[int]:
        """Who said it, in their order."""
        return [number for each, number, _ in self.words if each == word]


@contextlib.asynccontextmanager
async def family(workers: int, manners: dict[int, str] | None = None) -> AsyncIterator[Family]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.supervised", str(workers), json.dumps(manners or {}),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    found = Family(process)
    try:
        yield found
    finally:
        if process.returncode is None:
            process.kill()  # the children see the end of their lifeline
            await process.communicate()


def test_it_is_announced_when_all_are_ready() -> None:
    """Not before the last one is; then one signal ends all, the overview last."""

    async def run() -> None:
        async with family(3, {2: "late"}) as all_of_it:
            await all_of_it.until("announced")
            assert sorted(all_of_it.said("born")) == [0, 1, 2, 3]
            all_of_it.process.send_signal(signal.SIGTERM)
            assert await all_of_it.ended() == 0
            told = all_of_it.said("told")
            assert (sorted(told[:3]), told[3:]) == ([1, 2, 3], [0])

    run_strictly(run())


@pytest.mark.parametrize("number", [0, 1])
def test_one_that_dies_is_replaced(number: int) -> None:
    """Whichever it is, the others live on; it may die many times."""

    async def run() -> None:
        async with family(2) as all_of_it:
            await all_of_it.until("announced")
            for _ in range(3):
                os.kill(all_of_it.born()[number][-1], signal.SIGKILL)
                await all_of_it.until("born", number)
            all_of_it.process.send_signal(signal.SIGINT)
            assert await all_of_it.ended() == 0
            born = all_of_it.born()
            assert {each: len(processes) for each, processes in born.items()} == {
                **dict.fromkeys((0, 1, 2), 1),
                number: 4,
            }
            assert all_of_it.said("announced") == [-1]
            assert "was ended by SIGKILL" in await all_of_it.log()

    run_strictly(run())


@pytest.mark.parametrize(("manner", "reason"), [("fails", "there is no luck"), ("raises", "a defect")])
def test_one_that_cannot_start_ends_the_router(manner: str, reason: str) -> None:
    """After five attempts, with its reason; the others, who served meanwhile, are ended properly."""

    async def run() -> None:
        async with family(2, {2: manner}) as all_of_it:
            assert await all_of_it.ended() == 1
            assert len(all_of_it.born()[2]) == 5
            assert sorted(all_of_it.said("told")) == [0, 1]
            log = await all_of_it.log()
            assert reason in log
            assert "failed to start 5 times" in log
            assert all_of_it.said("announced") == []

    run_strictly(run())


def test_the_first_signal_is_passed_on_once_and_waited_for() -> None:
    """Whoever still drains holds up the end; the overview stays with it."""

    async def run() -> None:
        async with family(2, {1: "stays"}) as all_of_it:
            await all_of_it.until("announced")
            all_of_it.process.send_signal(signal.SIGTERM)
            await all_of_it.until("told", 1)
            assert 0 not in all_of_it.said("told")
            os.kill(all_of_it.born()[1][0], signal.SIGKILL)
            assert await all_of_it.ended() == 1
            assert all_of_it.said("told").count(1) == 1
            assert all_of_it.said("told")[-1] == 0

    run_strictly(run())


def test_a_second_signal_ends_all_at_once() -> None:
    """It is passed on too, and whoever does not mind it is killed."""

    async def run() -> None:
        async with family(2, {1: "stays"}) as all_of_it:
            await all_of_it.until("announced")
            all_of_it.process.send_signal(signal.SIGINT)
            await all_of_it.until("told", 1)
            all_of_it.process.send_signal(signal.SIGTERM)
            await all_of_it.until("told", 1)
            assert await all_of_it.ended() == 130

    run_strictly(run())


def test_a_worker_that_ends_badly_is_in_the_exit_code() -> None:
    """Its drain did not come to its end."""

    async def run() -> None:
        async with family(2, {1: "ends badly"}) as all_of_it:
            await all_of_it.until("announced")
            all_of_it.process.send_signal(signal.SIGTERM)
            assert await all_of_it.ended() == 1

    run_strictly(run())


def test_a_hang_up_renews_the_workers_one_by_one() -> None:
    """Each successor is there before its predecessor is told to go; the overview stays."""

    async def run() -> None:
        async with family(2) as all_of_it:
            await all_of_it.until("announced")
            before = len(all_of_it.words)
            all_of_it.process.send_signal(signal.SIGHUP)
            await all_of_it.until("told", 2)
            words = [word[:2] for word in all_of_it.words[before:]]
            assert words.index(("born", 1)) < words.index(("told", 1))
            assert words.index(("born", 1)) < words.index(("born", 2)) < words.index(("told", 2))
            all_of_it.process.send_signal(signal.SIGTERM)
            assert await all_of_it.ended() == 0
            assert {each: len(processes) for each, processes in all_of_it.born().items()} == {
                0: 1,
                1: 2,
                2: 2,
            }

    run_strictly(run())


def test_children_notice_that_the_supervisor_is_gone() -> None:
    """However it went."""

    async def run() -> None:
        async with family(2) as all_of_it:
            await all_of_it.until("announced")
            all_of_it.process.kill()
            await all_of_it.ended()
            assert sorted(all_of_it.said("orphaned")) == [0, 1, 2]

    run_strictly(run())


def test_pauses_grow() -> None:
    """The first death is made good at once; a crash loop costs a start every few seconds."""
    pauses = [pause_s(failures) for failures in range(12)]
    assert pauses[:2] == [0.0, 0.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
