"""Against one simulated engine, without a router."""

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from loadtest.drive.client import Answer, Clients, ask, clients_of, usage_in
from loadtest.drive.engines import MODEL, options_of
from loadtest.drive.prompts import bodies_of
from loadtest.engine.server import serve_engine
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.results import Served
from loadtest.simulate.setup import ReplicaSetup
from loadtest.simulate.transcript import Transcript
from loadtest.simulate.workload import Call, Session, Workload

SIZE = 32


def two_turns() -> Workload:
    """The second begins with the first and its answer: three blocks, and the token that is sampled last."""
    text = Transcript(SIZE)
    text.append(1, 2 * SIZE)
    first = text.prompt
    text.append(2, SIZE + 1)
    answer = text.prompt.blocks
    text.append(3, 10)
    calls = [Call(first, SIZE + 1, 0.0, answer), Call(text.prompt, 4, 0.02)]
    return Workload("turns", [Session(0.01, calls, "s")], SIZE)


async def played(workload: Workload, replica: ReplicaSetup, tell: Callable[[], object]) -> list[Served]:
    async with await serve_engine(options_of(replica, SIZE)) as engine, clients_of(engine.url) as client:
        clients = Clients(client, monotonic(), tell)
        await clients.play(workload, bodies_of(workload, MODEL))
        return clients.served


def test_a_session_is_served_in_its_order_with_the_engines_counts() -> None:
    told: list[None] = []
    fast = ReplicaSetup("r0", HARDWARE["8b-h100"], slowdown=0.1)
    first, second = asyncio.run(played(two_turns(), fast, lambda: told.append(None)))
    assert (first.prompt_tokens, first.cached_tokens, first.completion_tokens) == (64, 0, SIZE + 1)
    assert (second.prompt_tokens, second.cached_tokens, second.completion_tokens) == (107, 3 * SIZE, 4)
    assert first.ok and second.ok and len(told) == 2
    assert first.at == pytest.approx(0.01) and second.at >= first.ended_at + 0.02 - 1e-6
    for one in (first, second):
        assert one.first_token_at is not None
        assert one.at <= one.dispatched_at + 1e-6
        assert one.dispatched_at < one.first_token_at < one.ended_at


async def asked(body: bytes, *, listens: bool) -> Answer:
    async with await serve_engine(options_of(ReplicaSetup("r0", HARDWARE["8b-h100"]), SIZE)) as engine:
        if not listens:
            engine.stop_listening()
        async with clients_of(engine.url) as client:
            return await ask(client, {"content-type": "application/json"}, body)


@pytest.mark.parametrize("listens", [True, False], ids=["refused", "nobody there"])
def test_a_request_that_fails_has_no_first_token(listens: bool) -> None:
    answer = asyncio.run(asked(b'{"model": "nobody", "prompt": "x"}', listens=listens))
    assert answer.first_at is None and answer.usage is None


TEXT = b'data: {"choices": [{"text": " bada", "finish_reason": null}]}\n\n'
END = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n'
USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
DONE = b"data: [DONE]\n\n"


def test_a_whole_stream_says_what_was_used() -> None:
    usage = usage_in(TEXT + END + USAGE + DONE)
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details) == (7, 2, None)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        TEXT + END + USAGE,
        TEXT + TEXT + USAGE + DONE,
        TEXT + b'data: {"error": {"message": "gone"}}\n\n',
        END + b"data: {broken\n\n" + DONE,
    ],
    ids=["nothing", "no end", "no finish reason", "an error", "no json"],
)
def test_a_stream_that_is_not_whole_says_nothing(stream: bytes) -> None:
    assert usage_in(stream) is None
