"""One token of a prompt: what is sent, how it ends, and that nothing is kept of it but what policies are told."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from itertools import count

import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import Dispatched, Done
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.fleet.replicas import Replica
from router.flow.one_token import OneTokenAsker, one_token
from tests.support.flow import WHOLE, Flow, answers, hang, plays, reset, through
from tests.support.peers import Script, answer
from tests.support.scripted_server import until

ASKED = {
    "model": "m",
    "messages": [{"role": "user", "content": "hello " * 500}],
    "cache_salt": "s",
    "user": "u",
    "tools": [{"type": "function", "function": {"name": "f"}}],
}
MORE = {
    "stream": True,
    "stream_options": {"include_usage": True},
    "max_completion_tokens": 900,
    "max_tokens": 900,
    "min_tokens": 5,
    "n": 3,
    "logprobs": True,
    "top_logprobs": 2,
    "response_format": {"type": "json_object"},
}


def request(**members: object) -> InferenceRequest:
    body = json.dumps({**ASKED, **members}).encode()
    headers = {"content-type": "application/json"}
    return read_request(Endpoint.CHAT, "id", headers, body, RequestRules())


def test_all_that_makes_the_prompt_stays() -> None:
    """To the byte where it can; what asks for more than a token goes."""
    asked, given = request(**MORE), one_token(request(**MORE))
    assert json.loads(given.body) == {**ASKED, "max_tokens": 1, "stream": False}
    assert bytes(given.members["messages"]) == bytes(asked.members["messages"])
    assert (given.stream, given.n, given.max_tokens, given.include_usage) == (False, 1, 1, False)
    assert given.needs == {"chat", "tools"}


class Asking:
    """One question to the only replica of a flow, and what others were told of it."""

    def __init__(self, flow: Flow, timeout_s: float) -> None:
        self.told: list[object] = []
        self.failed: list[Replica] = []
        self.flow = flow
        (self.pool,) = flow.router.fleet.pools.values()
        (self.replica,) = self.pool.replicas
        self.pool.share(self.told.append, count(1))
        self.asker = OneTokenAsker(flow.router.upstreams, timeout_s, self.failed.append)

    async def ask(self) -> Ending:
        given = one_token(request())
        return await self.asker.ask(self.pool, self.replica, given, self.pool.facts(request()))

    @property
    def outcome(self) -> Outcome | None:
        *_, done = self.told
        assert isinstance(done, Done)
        return done.outcome


def asking(test: Callable[[Asking], Awaitable[None]], script: Script, timeout_s: float = 20.0) -> None:
    async def run(flow: Flow) -> None:
        it = Asking(flow, timeout_s)
        await test(it)
        assert it.replica.in_flight == it.replica.waiting == 0
        assert flow.events == [], "no client had a part in it"
        assert it.replica.meter.read(0, 0).answers == 0

    through(run, script, policy="expected_latency")


def test_policies_are_told_as_of_any_request() -> None:
    """Of all but the token: answers are not as short as this."""

    async def test(it: Asking) -> None:
        assert await it.ask() is Ending.COMPLETED
        (sent, _) = it.told
        assert isinstance(sent, Dispatched)
        prompt = it.pool.facts(request()).prompt
        assert sent.prompt is not None
        assert prompt is not None
        assert sent.prompt.blocks == prompt.blocks
        assert not sent.streamed
        assert it.outcome is not None
        assert (it.outcome.prompt_tokens, it.outcome.completion_tokens) == (3, None)
        assert it.failed == []

    asking(test, answers())


@pytest.mark.parametrize(
    ("script", "ending", "blamed"),
    [
        (plays(answer(b"{}", status=b"500 No")), Ending.FAILED, True),
        (plays(answer(b"{}")), Ending.FAILED, True),
        (plays(answer(WHOLE)[:-1], then=reset), Ending.FAILED, True),
        (plays(answer(b'"' + b"x" * 2_000_000 + b'"')), Ending.FAILED, True),
        (plays(answer(b"{}", status=b"429 Busy")), Ending.SATURATED, False),
        (plays(answer(b'{"error": {"message": "no"}}', status=b"400 No")), Ending.CLIENT_ERROR, False),
    ],
)
def test_how_it_fails(script: Script, ending: Ending, blamed: bool) -> None:
    async def test(it: Asking) -> None:
        assert await it.ask() is ending
        assert it.outcome is not None
        assert it.outcome.ending is ending
        assert it.failed == [it.replica] * blamed

    asking(test, script)


def test_it_does_not_wait_for_ever() -> None:
    async def test(it: Asking) -> None:
        assert await it.ask() is Ending.TIMED_OUT
        assert it.failed == [it.replica]

    asking(test, plays(then=hang), timeout_s=0.1)


def test_who_stops_it_hangs_up() -> None:
    """The engine need not go on, and is not blamed."""
    left = asyncio.Event()

    async def script(connection: object) -> None:
        await plays(then=hang)(connection)  # type: ignore[arg-type]
        left.set()

    async def test(it: Asking) -> None:
        task = asyncio.create_task(it.ask())
        await until(lambda: it.replica.in_flight == 1 and it.flow.connections == [1])
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        await asyncio.wait_for(left.wait(), 10)
        assert it.outcome is not None
        assert it.outcome.ending is Ending.CLIENT_LEFT
        assert it.failed == []

    asking(test, script)
