"""Processes that share a book: some that do as they are told, some that race, and what each of them did."""

import contextlib
import mmap
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from random import Random
from time import sleep
from typing import Any, NamedTuple

from policies.limits.ask import Ask, Budget, Slots, Verdict
from router.control.limits.bucket_file import Geometry
from router.control.limits.life_lock import lock_byte, unlock_byte
from router.control.limits.local import monotonic_us
from router.control.limits.shared_book import SharedBook

SMALL = Geometry(budgets=64, slots=64, places=8)
PATIENT_US = 20_000_000
"""Where no process is stopped: a full machine must not look like one that is."""

_SPAWN = multiprocessing.get_context("spawn")


@contextlib.contextmanager
def shared_book(
    folder: Path, geometry: Geometry = SMALL, *, patience_us: int = PATIENT_US, takes_part: bool = True
) -> Iterator[SharedBook]:
    book = SharedBook(folder, geometry, patience_us=patience_us, takes_part=takes_part)
    try:
        yield book
    finally:
        book.close(0)


@contextlib.contextmanager
def process(target: Callable[..., None], *args: object) -> Iterator[SpawnProcess]:
    """It ends with the test, however it does."""
    started = _SPAWN.Process(target=target, args=args, daemon=True)
    started.start()
    try:
        yield started
    finally:
        started.kill()
        started.join()


# ---- one that does as it is told ----


class Colleague:
    """Another process with the same book."""

    def __init__(self, started: SpawnProcess, line: Connection) -> None:
        self._process = started
        self._line = line

    def admit(self, ask: Ask, now_us: int = 0) -> Verdict:
        verdict: Verdict = self._do("admit", ask, now_us)
        return verdict

    def settle(self, ask: Ask, shifts_us: tuple[int, ...] = (), now_us: int = 0) -> None:
        self._do("settle", ask, shifts_us, now_us)

    def die_in(self, words: int, what: str, *args: object) -> None:
        """Killed when it has written so many words of its next step."""
        self._do("mortal", words)
        self._line.send((what, args))
        self._process.join()
        assert self._process.exitcode == -signal.SIGKILL

    def stop_with_the_lock(self) -> None:
        assert self._process.pid is not None
        self._line.send(("stop", ()))
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def go_on(self) -> None:
        """It gives the lock back."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)
        self._line.recv()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def _do(self, what: str, *args: object) -> Any:
        self._line.send((what, args))
        return self._line.recv()


@contextlib.contextmanager
def colleague(folder: Path, geometry: Geometry = SMALL) -> Iterator[Colleague]:
    mine, other = _SPAWN.Pipe()
    with process(_obey, folder, geometry, other) as started:
        other.close()
        mine.recv()
        yield Colleague(started, mine)


def _obey(folder: Path, geometry: Geometry, line: Connection) -> None:
    book = SharedBook(folder, geometry, patience_us=PATIENT_US)
    line.send("ready")
    while True:
        what, args = line.recv()
        if what == "mortal":
            _die_after(book, *args)
            line.send(None)
        elif what == "stop":
            assert book._lock.take()
            os.kill(os.getpid(), signal.SIGSTOP)
            book._lock.give_back()
            line.send(None)
        else:
            line.send(getattr(book, what)(*args))


class _Mortal:
    """Words that kill whoever writes one too many."""

    def __init__(self, words: memoryview, left: list[int]) -> None:
        self._words = words
        self._left = left

    def __getitem__(self, at: int) -> int:
        word: int = self._words[at]
        return word

    def __setitem__(self, at: int, word: int) -> None:
        if not self._left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left[0] -= 1
        self._words[at] = word


def _die_after(book: SharedBook, words: int) -> None:
    left = [words]
    buckets = book._buckets
    buckets._words = _Mortal(buckets._words, left)  # type: ignore[assignment]
    buckets._places._words = _Mortal(buckets._places._words, left)  # type: ignore[assignment]


# ---- some that race ----


def barrier(processes: int) -> Barrier:
    return _SPAWN.Barrier(processes)


class Step(NamedTuple):
    """What one process did, at its place in the order of all."""

    number: int
    ask: Ask
    now_us: int
    verdict: Verdict | None
    shifts_us: tuple[int, ...] = ()


class Recorder:
    """Stands where a book's buckets stand, and so under its lock; the file at `path` counts for all."""

    def __init__(self, inner: Any, path: Path) -> None:
        self._inner = inner
        self._words = _words(path)
        self.steps: list[Step] = []

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        verdict: Verdict = self._inner.admit(ask, now_us)
        self.steps.append(Step(self._number(), ask, now_us, verdict))
        return verdict

    def settle(self, ask: Ask, shifts_us: tuple[int, ...], now_us: int) -> None:
        self._inner.settle(ask, shifts_us, now_us)
        self.steps.append(Step(self._number(), ask, now_us, None, shifts_us))

    def _number(self) -> int:
        self._words[0] += 1
        number: int = self._words[0]
        return number


def race(folder: Path, start: Barrier, seed: int, buckets: int, count: int, settles: bool) -> None:
    """Ask `count` times for things of so many buckets, and write down what came of it."""
    random = Random(seed)
    book = SharedBook(folder, patience_us=PATIENT_US)
    recorder = Recorder(book._buckets, folder / "numbers")
    book._buckets = recorder  # type: ignore[assignment]
    open_asks: list[Ask] = []
    start.wait()
    for number in range(count):
        ask = _mixed(random, f"{seed}:{number}", buckets)
        if book.admit(ask, monotonic_us()).admitted and settles:
            open_asks.append(ask)
        while len(open_asks) > random.randrange(8):
            done = open_asks.pop(0)
            shifts = tuple(random.randint(-budget.cost_us, budget.cost_us // 2) for budget in done.budgets)
            book.settle(done, shifts, monotonic_us())
    (folder / f"steps-{seed}").write_bytes(pickle.dumps(recorder.steps))
    assert not book.state.lost


def _mixed(random: Random, name: str, buckets: int) -> Ask:
    """One bucket or two, so dear that about half of all asks are refused."""
    picked = random.sample(range(buckets), min(buckets, random.randint(1, 2)))
    budgets = [Budget(f"b{each}", random.randint(1, 400 * buckets), 20_000) for each in picked]
    budgets = [budget._replace(cost_us=min(budget.cost_us, budget.window_us)) for budget in budgets]
    return Ask(name, budgets, [Slots(f"c{picked[0]}", 12)] if random.random() < 0.5 else ())


# ---- some that hold, and are killed ----


class Witness:
    """Stands where a book's buckets stand: who holds how many, told by each process and not by the book.

    Who is dead shows itself by a lock of its own. The first word says how often more than `most` were held.
    """

    def __init__(self, inner: Any, folder: Path, number: int, most: int) -> None:
        self._inner = inner
        self._words = _words(folder / "witness")
        self._number = number
        self._most = most
        self._words[number] = 0
        self._lives = os.open(folder / "lives", os.O_RDWR | os.O_CREAT)
        assert lock_byte(self._lives, number)

    def admit(self, ask: Ask, now_us: int) -> Verdict:
        verdict: Verdict = self._inner.admit(ask, now_us)
        if verdict.admitted:
            self._words[self._number] += 1
            # The kernel takes a dead process's locks one after the other.
            if self._held() > self._most:
                sleep(0.05)
                self._words[0] += self._held() > self._most
        return verdict

    def settle(self, ask: Ask, shifts_us: tuple[int, ...], now_us: int) -> None:
        self._words[self._number] -= 1
        self._inner.settle(ask, shifts_us, now_us)

    def _held(self) -> int:
        return sum(
            self._words[each] for each in range(1, 512) if self._words[each] and self._lives_there(each)
        )

    def _lives_there(self, number: int) -> bool:
        if number == self._number or not lock_byte(self._lives, number):
            return True
        unlock_byte(self._lives, number)
        return False


def hold(folder: Path, number: int, most: int) -> None:
    """Take slots, hold each for a moment, for ever."""
    random = Random(number)
    book = SharedBook(folder, patience_us=PATIENT_US)
    book._buckets = Witness(book._buckets, folder, number, most)  # type: ignore[assignment]
    ask = Ask("", (), [Slots("c", most)])
    held = 0
    (folder / f"holds-{number}").touch()
    while True:
        if random.random() < 0.6:
            held += book.admit(ask, monotonic_us()).admitted
        elif held:
            book.settle(ask, (), monotonic_us())
            held -= 1
        sleep(random.random() * 0.001)


def _words(path: Path) -> memoryview:
    with path.open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 4096)).cast("q")
