"""What limits hold at the end is what was used: through clients that leave, replicas that fail, and retries."""

import asyncio
import contextlib
from collections import Counter
from random import Random

import pytest

from policies.limits.ask import ENDLESS, Ask, Slots
from router.observe.events import Finished
from tests.support.loops import run_strictly
from tests.support.raw_client import CHAT, STREAMED_CHAT, post, raw_client
from tests.support.redis_server import redis_server
from tests.support.scripted_server import until
from tests.support.simulated import RunningFleet, simulated_fleet

LIMITS = """
[[limits]]
name = "tokens"
per = ["model"]
tokens_per_minute = 60
burst_s = 10000000
[[limits]]
name = "open"
per = ["tenant"]
concurrency = 1000
"""
"""A token a second, and room for ten million: the bucket tells what was used, less the seconds that went by."""


async def crowd(fleet: RunningFleet, count: int) -> None:
    """A fifth leave, at any moment; a tenth of the attempts fail, before their first token or after."""
    random, numbers = Random(3), iter(range(count))

    async def come() -> None:
        for _ in numbers:
            body = random.choice((CHAT, STREAMED_CHAT)).replace(b'"max_tokens":8', b'"max_tokens":16')
            async with raw_client(fleet.running.port) as client:
                await client.send(post(body))
                if random.random() < 0.2:
                    await asyncio.sleep(random.choice((0, random.uniform(0, 0.02))))
                    client.reset()
                else:
                    with contextlib.suppress(asyncio.IncompleteReadError):
                        await client.answer()

    await asyncio.gather(*(come() for _ in range(20)))


async def held(fleet: RunningFleet) -> tuple[float, int]:
    """Tokens that the budget misses, and slots that are taken."""
    board = fleet.running.router.limits
    assert board is not None
    (subject,) = board.rules.subjects
    plan = board.rules.plan(subject)
    free = [bucket.budget._replace(cost_us=0) for bucket in plan.buckets]
    now = await board.store.look(Ask("", free, [Slots(key, ENDLESS) for key, _ in plan.slots]))
    return now.backlogs_us[0] / 1e6, now.held[0] - 1


@pytest.mark.parametrize(
    "count", [300, pytest.param(5000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
@pytest.mark.parametrize("place", ["here", "redis"])
def test_what_is_charged_is_what_was_used(place: str, count: int) -> None:
    events: list[Finished] = []

    async def run(more: str) -> None:
        async with simulated_fleet("vllm", "vllm", more=LIMITS + more) as fleet:
            fleet.running.router.inference._observer = events.append
            began = asyncio.get_running_loop().time()
            for engine in fleet.engines:
                engine.faults.set("reset;p=0.05", "status=500;p=0.03", "error@5;p=0.02", seed=1)
            await crowd(fleet, count)
            await until(lambda: fleet.running.router.front_end.open_requests == 0)
            board = fleet.running.router.limits
            assert board is not None
            await asyncio.sleep(0.05)
            await until(lambda: not board.store.state.unsettled)
            missing, taken = await held(fleet)
            elapsed_s = asyncio.get_running_loop().time() - began
            charged = sum(event.charged_tokens or 0 for event in events)
            assert taken == 0
            assert charged - elapsed_s - 0.1 <= missing <= charged
            assert board.store.state.unknown == board.store.state.dropped == 0

    if place == "here":
        run_strictly(run(""))
    else:
        with redis_server() as server:
            run_strictly(run(f'[redis]\nurl = "{server.url}"\ntimeout_ms = 5000\n'))
    outcomes = Counter(event.outcome for event in events)
    assert outcomes["client_left"] > count / 20
    assert sum(len(event.attempts) > 1 for event in events) > count / 50
    for event in events:
        if event.outcome == "ok":
            assert event.usage is not None
            assert event.charged_tokens == event.usage.prompt_tokens + event.usage.completion_tokens
    print(f"\n{dict(outcomes)}, charged {sum(event.charged_tokens or 0 for event in events)}")
