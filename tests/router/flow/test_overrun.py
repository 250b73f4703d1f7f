"""Streams that take more than was reserved: what they take late is given back."""

import asyncio

from policies.limits.ask import Ask, Verdict
from policies.limits.gcra import Rate
from policies.limits.rules import Limit, Rules, Subject
from router.control.limits.local import BookedReservation, LocalStore
from router.flow.overrun import STEP_TOKENS, Overrun
from tests.support.loops import run_strictly

LIMIT = Limit(name="l", match={}, tokens=Rate(6000, 60), stops=True)
PLAN = Rules([LIMIT]).plan(Subject())
(BUCKET,) = PLAN.stops
NOW_US = 1_000_000_000


class SlowStore(LocalStore):
    """Decides at once, and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(now_us=lambda: NOW_US)
        self.may_answer = asyncio.Event()

    async def admit(self, ask: Ask) -> BookedReservation:
        reservation = await super().admit(ask)
        await self.may_answer.wait()
        return reservation

    async def missing(self) -> int:
        look: Verdict = await self.look(Ask("", [BUCKET.budget._replace(cost_us=0)]))
        return BUCKET.rate.units(look.backlogs_us[0])


def test_what_is_granted_after_the_stream_has_ended_is_given_back() -> None:
    async def run() -> None:
        store = SlowStore()
        overrun = Overrun(store, "a", PLAN.stops, granted=0)
        asking = asyncio.create_task(overrun.extend())
        await asyncio.sleep(0)
        assert await store.missing() == STEP_TOKENS
        overrun.settle()
        store.may_answer.set()
        await asking
        assert await store.missing() == 0
        assert overrun.extra_us(BUCKET) == 0

    run_strictly(run())


def test_what_is_granted_before_stays_taken() -> None:
    """The first reservation's settlement gives back what was not used of it."""

    async def run() -> None:
        store = SlowStore()
        store.may_answer.set()
        overrun = Overrun(store, "a", PLAN.stops, granted=0)
        assert await overrun.extend()
        overrun.settle()
        assert overrun.granted == STEP_TOKENS
        assert await store.missing() == STEP_TOKENS
        assert overrun.extra_us(BUCKET) == BUCKET.rate.cost_us(STEP_TOKENS)

    run_strictly(run())
