"""Several processes and one book: they count together, die at any moment, and stop at the worst one."""

import contextlib
import pickle
import signal
import struct
from itertools import pairwise
from pathlib import Path
from random import Random
from time import sleep

import pytest

from policies.limits.ask import Ask, Budget, Slots
from policies.limits.book import Book
from router.control.limits.bucket_file import Geometry
from router.control.limits.local import monotonic_us
from router.control.limits.shared_book import SharedBook
from tests.support.shared_books import (
    Colleague,
    Step,
    barrier,
    colleague,
    hold,
    process,
    race,
    shared_book,
)

WINDOW_US = 60_000_000
HALF = Ask(
    "", [Budget("r", WINDOW_US // 2, WINDOW_US), Budget("t", WINDOW_US // 2, WINDOW_US)], [Slots("c", 3)]
)
HOLD = Ask("", (), [Slots("c", 6)])
DRAW = Ask("", [Budget("r", WINDOW_US // 100, WINDOW_US)])
GIVE_BACK = (-WINDOW_US // 2, -WINDOW_US // 2)


def test_processes_count_together(tmp_path: Path) -> None:
    """What one takes, the other sees; what one gives back, the other may take."""
    with shared_book(tmp_path) as book, colleague(tmp_path) as other:
        assert other.admit(HALF).held == [1]
        assert book.admit(HALF, 0) == (-1, [WINDOW_US, WINDOW_US], [2], 0)
        assert other.admit(HALF).wait_us == WINDOW_US // 2
        book.settle(HALF, GIVE_BACK, 0)
        assert other.admit(HALF) == (-1, [WINDOW_US, WINDOW_US], [2], 0)
        assert book.look(HALF, 0).held == [2]
        assert book.state.healthy


def test_one_who_only_looks_has_no_place(tmp_path: Path) -> None:
    """It sees what is held, and is not one of those among whom limits are divided."""
    with shared_book(tmp_path, takes_part=False) as looking, colleague(tmp_path) as other:
        other.admit(HALF)
        assert looking.look(HALF, 0).held == [2]
        assert looking._buckets.share() == (2, 1)


@pytest.mark.parametrize("words", range(6))
def test_a_process_may_die_at_any_word_it_writes(tmp_path: Path, words: int) -> None:
    """An ask takes a place's cell and two budgets: however few of them were written, others go on, nothing of
    what was sold before is sold again, and what it held is free at once."""
    with shared_book(tmp_path) as book, colleague(tmp_path) as other:
        assert book.admit(HALF, 0).admitted
        if words < 3:
            other.die_in(words, "admit", HALF, 0)
        else:
            other.admit(HALF)
            other.die_in(words - 3, "settle", HALF, GIVE_BACK, 0)
        looked = book.look(HALF, 0)
        assert all(backlog_us >= WINDOW_US // 2 for backlog_us in looked.backlogs_us)
        assert max(looked.backlogs_us) <= WINDOW_US
        assert [book.admit(HOLD, 0).admitted for _ in range(6)] == [True] * 5 + [False]
        book.settle(HALF, GIVE_BACK, 0)
        assert book.admit(HALF, WINDOW_US).refused == 2
        assert book.state.lost == 0


def test_a_successor_begins_while_its_predecessor_drains(tmp_path: Path) -> None:
    """Both hold, whoever dies gives back its own alone."""
    with shared_book(tmp_path) as book, colleague(tmp_path) as old, colleague(tmp_path) as new:
        assert [old.admit(HOLD).held for _ in range(3)] == [[1], [2], [3]]
        assert [new.admit(HOLD).held for _ in range(2)] == [[4], [5]]
        old.kill()
        assert [new.admit(HOLD).held for _ in range(4)][-1] == [6]
        new.settle(HOLD)
        assert book.admit(HOLD, 0).held == [6]
        new.kill()
        book.tend(0)
        assert book.look(HOLD, 0).held == [2]


def test_who_closes_gives_back(tmp_path: Path) -> None:
    """What it settles after that was given back already."""
    with shared_book(tmp_path) as book:
        with shared_book(tmp_path) as closing:
            closing.admit(HOLD, 0)
            assert book.look(HOLD, 0).held == [2]
        assert book.look(HOLD, 0).held == [1]
        closing.settle(HOLD, (), 0)
        assert book.look(HOLD, 0).held == [1]


def admitted(book: Colleague | SharedBook, ask: Ask, now_us: int = 0) -> int:
    """How many until one is refused."""
    count = 0
    while book.admit(ask, now_us).admitted:
        count += 1
    return count


def test_a_holder_that_stops_leaves_the_others_their_shares(tmp_path: Path) -> None:
    """Of three, two go on with a third each; when it goes on, all three have taken just what there was."""
    with (
        shared_book(tmp_path, patience_us=1000) as one,
        shared_book(tmp_path, patience_us=1000) as two,
        colleague(tmp_path) as other,
    ):
        assert other.admit(DRAW).admitted
        assert other.admit(HOLD).admitted
        assert one.admit(HOLD, 0).admitted
        other.stop_with_the_lock()
        assert [admitted(one, DRAW), admitted(two, DRAW)] == [33, 33]
        assert [admitted(one, HOLD), admitted(two, HOLD)] == [2, 1]
        assert one.look(HOLD, 0).held == [4]
        one.settle(HOLD, (), 0)
        assert admitted(one, HOLD) == 1
        assert (one.state.healthy, one.state.shares, one.state.unsettled) == (False, 3, 2)
        other.go_on()
        one.tend(0)
        two.tend(0)
        assert (one.state.healthy, one.state.shares, one.state.unsettled) == (True, 1, 0)
        assert [admitted(other, DRAW), admitted(one, DRAW)] == [33, 0]
        assert [admitted(other, HOLD), one.look(HOLD, 0).held] == [1, [6]]


def test_who_comes_while_a_holder_is_stopped_serves_too(tmp_path: Path) -> None:
    """It takes part as soon as it can."""
    with shared_book(tmp_path), colleague(tmp_path) as other:
        other.stop_with_the_lock()
        with shared_book(tmp_path, patience_us=1000) as late:
            assert admitted(late, DRAW) == 33
            assert admitted(late, HOLD) == 2
            other.go_on()
            assert late.admit(HOLD, 0).held == [3]
            assert other.admit(HOLD).held == [4]
            assert admitted(other, DRAW) == 67


def test_a_holder_that_dies_while_it_is_stopped(tmp_path: Path) -> None:
    """The kernel gives back what it had."""
    with shared_book(tmp_path, patience_us=1000) as book, colleague(tmp_path) as other:
        other.admit(HOLD)
        other.stop_with_the_lock()
        assert admitted(book, HOLD) == 3
        other.kill()
        assert admitted(book, HOLD) == 3
        assert book.state.healthy


# ---- many processes at once ----


def replayed(folder: Path, processes: int) -> list[Step]:
    """All steps in their order; a book alone must have said the same to every one of them."""
    steps: list[Step] = []
    for seed in range(processes):
        steps += pickle.loads((folder / f"steps-{seed}").read_bytes())
    steps.sort()
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    book = Unswept()
    for step in steps:
        if step.verdict is None:
            book.settle(step.ask, step.shifts_us, step.now_us)
        else:
            assert book.admit(step.ask, step.now_us) == step.verdict
    return steps


class Unswept(Book):
    """A process may have looked at the clock before the step ahead of it: what is full to one is not to all."""

    def _sweep(self, now_us: int) -> None:
        pass


def run_race(folder: Path, processes: int, buckets: int, count: int, *, settles: bool) -> list[Step]:
    (folder / "numbers").write_bytes(bytes(4096))
    start = barrier(processes)
    with contextlib.ExitStack() as stack:
        racing = [
            stack.enter_context(process(race, folder, start, seed, buckets, count, settles))
            for seed in range(processes)
        ]
        for each in racing:
            each.join()
            assert each.exitcode == 0
    return replayed(folder, processes)


def check_sold(steps: list[Step], buckets: int) -> None:
    """By no arithmetic of a limiter: what each bucket sold against what it held and earned."""
    sold = dict.fromkeys((f"b{number}" for number in range(buckets)), 0)
    first_us, last_us, window_us = steps[0].now_us, max(step.now_us for step in steps), 20_000
    for step in steps:
        if step.verdict is not None and step.verdict.admitted:
            for budget in step.ask.budgets:
                sold[budget.key] += budget.cost_us
    assert all(sold_us <= window_us + last_us - first_us for sold_us in sold.values())


def check_mixed(steps: list[Step]) -> None:
    """The race was one: much was admitted and much refused, and now one process was ahead, now another."""
    admitted = [step.verdict.admitted for step in steps if step.verdict is not None]
    assert 0.1 < sum(admitted) / len(admitted) < 0.95
    turns = sum(one.ask.id.split(":")[0] != other.ask.id.split(":")[0] for one, other in pairwise(steps))
    assert turns > 10


def test_a_race_of_two_is_as_if_there_were_one(tmp_path: Path) -> None:
    check_mixed(run_race(tmp_path, 2, 3, 3000, settles=True))


@pytest.mark.slow
@pytest.mark.parametrize("settles", [False, True])
@pytest.mark.parametrize("buckets", [1, 10, 1000])
def test_a_race_of_four_is_as_if_there_were_one(tmp_path: Path, buckets: int, settles: bool) -> None:
    """25,000 asks each: not one sold too much, not one refused that a book alone would have sold."""
    steps = run_race(tmp_path, 4, buckets, 25_000, settles=settles)
    check_mixed(steps)
    assert sum(step.verdict is not None for step in steps) == 100_000
    if not settles:
        check_sold(steps, buckets)


@pytest.mark.slow
def test_processes_that_hold_slots_are_killed_at_random(tmp_path: Path) -> None:
    """Fifty times: never are more held than there are, and in the end all can be had at once."""
    random, most = Random(1), 10
    (tmp_path / "witness").write_bytes(bytes(4096))
    with contextlib.ExitStack() as stack:
        holding = [stack.enter_context(process(hold, tmp_path, number, most)) for number in range(1, 5)]
        for number in range(5, 55):
            until_there(tmp_path / f"holds-{number - 1}")
            sleep(random.random() * 0.05)
            victim = holding.pop(random.randrange(4))
            victim.kill()
            victim.join()
            assert victim.exitcode == -signal.SIGKILL
            holding.append(stack.enter_context(process(hold, tmp_path, number, most)))
        for victim in holding:
            victim.kill()
            victim.join()
    words = struct.unpack("512q", (tmp_path / "witness").read_bytes())
    assert words[0] == 0
    assert sum(words) > most
    with shared_book(tmp_path, Geometry()) as book:
        assert admitted(book, Ask("", (), [Slots("c", most)]), monotonic_us()) == most


def until_there(path: Path) -> None:
    while not path.exists():
        sleep(0.005)
