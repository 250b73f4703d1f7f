"""One clock tick for all deadlines."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from router.api.errors import RouterDraining, TurnoutError
from router.flow.watch import Watch
from tests.support.loops import StrictLoop
from tests.support.scripted_server import until

TICK_S = 0.01


class Attempt:
    """Notes what it is told; expiring, it leaves the watch, as attempts do."""

    def __init__(self, watch: Watch, due_s: float = 0.0, defect: str = "") -> None:
        self.deadline = monotonic() + due_s
        self.expired: list[float] = []
        self.ended: list[TurnoutError] = []
        self._watch = watch
        self._defect = defect

    def expire(self, now: float) -> None:
        self.expired.append(now)
        self._watch.discard(self)
        if self._defect:
            raise RuntimeError(self._defect)

    def end(self, error: TurnoutError) -> None:
        self.ended.append(error)
        self._watch.discard(self)


def watching(test: Callable[[Watch], Awaitable[None]], *, may_say: str = "nothing") -> None:
    async def run() -> None:
        watch = Watch(TICK_S)
        try:
            await test(watch)
        finally:
            watch.close()

    with StrictLoop() as loop:
        loop.run(run(), may_say=may_say)


def test_what_is_due_is_told_once_and_no_earlier() -> None:
    """Each by its own deadline, which may move while it is watched."""

    async def test(watch: Watch) -> None:
        soon, later, never = Attempt(watch), Attempt(watch, 0.1), Attempt(watch, 60)
        moved = Attempt(watch)
        for each in (soon, later, never, moved):
            watch.add(each)
        moved.deadline = monotonic() + 0.1
        assert len(watch) == 4
        await until(lambda: bool(later.expired and moved.expired))
        assert [len(each.expired) for each in (soon, later, never, moved)] == [1, 1, 0, 1]
        for each in (later, moved):
            assert each.expired[0] >= each.deadline
        assert len(watch) == 1

    watching(test)


def test_an_empty_watch_does_not_tick() -> None:
    """A quiet router sleeps; the next attempt starts the clock again."""

    async def test(watch: Watch) -> None:
        first = Attempt(watch)
        watch.add(first)
        await until(lambda: bool(first.expired) and watch._timer is None)
        second = Attempt(watch)
        watch.add(second)
        assert watch._timer is not None
        await until(lambda: bool(second.expired))

    watching(test)


def test_a_defect_in_one_does_not_keep_the_others_waiting() -> None:
    """The clock goes on whatever one of them meets."""

    async def test(watch: Watch) -> None:
        broken = Attempt(watch, defect="it broke")
        others = [Attempt(watch, 0.05) for _ in range(5)]
        for each in (broken, *others):
            watch.add(each)
        await until(lambda: all(each.expired for each in others))

    watching(test, may_say="it broke")


def test_the_end_of_the_drain_reaches_those_who_come_late_too() -> None:
    """An attempt that was connecting when all others were ended."""

    async def test(watch: Watch) -> None:
        early = Attempt(watch, 60)
        watch.add(early)
        error = RouterDraining("over")
        watch.fail_all(error)
        late = Attempt(watch, 60)
        watch.add(late)
        await until(lambda: bool(late.ended))
        assert (early.ended, late.ended) == ([error], [error])
        assert len(watch) == 0

    watching(test)


def test_a_closed_watch_has_no_timer() -> None:
    """Nothing of it stays in the loop."""

    async def test(watch: Watch) -> None:
        attempt = Attempt(watch)
        watch.add(attempt)
        watch.close()
        await asyncio.sleep(3 * TICK_S)
        assert attempt.expired == []

    watching(test)


def test_many_are_ended_at_once() -> None:
    """Each leaves the watch while it is being gone through."""

    async def test(watch: Watch) -> None:
        attempts = [Attempt(watch) for _ in range(1000)]
        for each in attempts:
            watch.add(each)
        await until(lambda: not len(watch))
        assert all(len(each.expired) == 1 for each in attempts)

    watching(test)
