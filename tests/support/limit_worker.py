"""A process that asks for limits as a router does, and writes down every answer: `limit_worker.py JOB`."""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

import uvloop

from policies.limits.ask import Ask, Budget, Slots
from router.config.process import RedisConfig
from router.config.secret import SecretUrl
from router.control.limits.redis_store import RedisStore
from router.control.limits.reservations import CountedReservation

MS = 1000
SECOND = 1_000_000
PREFIX = "turnout:{t:race}:"


@dataclass(frozen=True)
class Job:
    """`kind` names one of the functions below. What was seen goes to `out` as JSON, a row a request."""

    kind: str
    url: str
    out: str
    name: str
    count: int = 0
    parallel: int = 16
    buckets: int = 1
    window_us: int = 10 * SECOND
    most: int = 0
    timeout_ms: float = 20_000.0
    rate: float = 0.0
    seconds: float = 0.0
    begin: float = 0.0

    @property
    def words(self) -> Sequence[str]:
        return [sys.executable, "-m", "tests.support.limit_worker", json.dumps(asdict(self))]


@dataclass
class Work:
    job: Job
    store: RedisStore
    random: Random
    rows: list[object] = field(default_factory=list)

    def ask(self, number: int, cost_us: int, *, slots: bool = False) -> Ask:
        bucket = self.random.randrange(self.job.buckets)
        budgets = [Budget(f"{PREFIX}l{bucket}::r", cost_us, self.job.window_us)]
        if number % 3 == 0:
            budgets.append(
                Budget(f"{PREFIX}l{(bucket + 1) % self.job.buckets}::t", cost_us // 2, self.job.window_us)
            )
        held = [Slots(f"{PREFIX}l::c", self.job.most)] if slots else []
        return Ask(f"{self.job.name}-{number}", budgets, held)


async def race(work: Work) -> None:
    """Mixed costs, as fast as it goes, nothing given back."""

    async def ask(numbers: range) -> None:
        for number in numbers:
            asked = work.ask(number, work.random.randrange(1, 20 * MS))
            got = await work.store.admit(asked)
            assert isinstance(got, CountedReservation)
            now_us, sequence = got.stamp
            work.rows.append([sequence, now_us, asked.budgets, got.verdict])

    job = work.job
    await asyncio.gather(*(ask(range(start, job.count, job.parallel)) for start in range(job.parallel)))


async def charge(work: Work) -> None:
    """A fifth leaves before the end, a tenth fails, some settle twice; a row says what was really used."""

    async def ask(numbers: range) -> None:
        for number in numbers:
            asked = work.ask(number, work.random.randrange(1, 20 * MS), slots=True)
            if number % 50 == 7:
                leaver = asyncio.create_task(work.store.admit(asked))  # type: ignore[arg-type]
                await asyncio.sleep(0)
                leaver.cancel()
                await asyncio.gather(leaver, return_exceptions=True)
                continue
            got = await work.store.admit(asked)
            assert got.verdict.admitted
            fate = work.random.random()
            share = 0.0 if fate < 0.2 else fate if fate < 0.3 else work.random.uniform(0.5, 1.5)
            used = [int(budget.cost_us * share) for budget in asked.budgets]
            shifts = [amount - budget.cost_us for amount, budget in zip(used, asked.budgets, strict=True)]
            for _ in range(2 if number % 100 < 3 else 1):
                got.settle(shifts)
            work.rows.extend([budget.key, amount] for budget, amount in zip(asked.budgets, used, strict=True))

    job = work.job
    await asyncio.gather(*(ask(range(start, job.count, job.parallel)) for start in range(job.parallel)))


async def steady(work: Work) -> None:
    """`rate` requests a second that cost 20 ms each; a row says when, how long it took, and what came."""
    job = work.job
    running = set()

    async def one(number: int) -> None:
        began = monotonic()
        got = await work.store.admit(
            Ask(f"{job.name}-{number}", [Budget(f"{PREFIX}l0::r", 20 * MS, job.window_us)])
        )
        counted = isinstance(got, CountedReservation)
        work.rows.append([began, monotonic() - began, got.verdict.admitted, counted])
        if got.verdict.admitted:
            await asyncio.sleep(0.05)
            got.settle([0])

    await asyncio.sleep(max(0.0, job.begin - monotonic()))
    for number in range(round(job.rate * job.seconds)):
        await asyncio.sleep(max(0.0, job.begin + number / job.rate - monotonic()))
        running.add(asyncio.create_task(one(number)))
    await asyncio.gather(*running)


async def hold(work: Work) -> None:
    """Takes slots and gives them back, until it is killed."""
    job = work.job

    async def one(worker: int) -> None:
        number = 0
        while True:
            number += 1
            asked = Ask(f"{job.name}-{worker}-{number}", (), [Slots(f"{PREFIX}l::c", job.most)])
            got = await work.store.admit(asked)
            await asyncio.sleep(work.random.uniform(0.01, 0.2))
            if got.verdict.admitted:
                got.settle([])

    await asyncio.gather(*(one(worker) for worker in range(job.parallel)))


KINDS = {"race": race, "charge": charge, "steady": steady, "hold": hold}


async def main(job: Job) -> str:
    config = RedisConfig(url=SecretUrl(job.url), timeout_ms=job.timeout_ms)
    store = RedisStore(config, sequenced=job.kind == "race", processes=4)
    await store.start()
    work = Work(job, store, Random(job.name))
    await KINDS[job.kind](work)
    await store.close()
    state = store.state
    return json.dumps({"rows": work.rows, "state": asdict(state)})


if __name__ == "__main__":
    given = Job(**json.loads(sys.argv[1]))
    Path(given.out).write_text(uvloop.run(main(given)))
