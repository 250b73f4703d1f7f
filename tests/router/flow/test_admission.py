"""Limits on the way of a request: what it is refused with, what it is charged, and that nothing stays taken."""

import asyncio
import contextlib
from collections.abc import Mapping

import pytest

from policies.limits.ask import ENDLESS, Ask, Slots
from policies.limits.rules import Subject
from router.observe.events import Finished
from tests.support.exchanges import RecordedExchange
from tests.support.flow import (
    LAST_PIECES,
    Flow,
    answers,
    hang,
    piece,
    plays,
    reset,
    streamed,
    streams,
    through,
    whole,
)
from tests.support.peers import STREAM_HEAD, PeerConnection, answer, chunk
from tests.support.raw_client import CHAT, STREAMED_CHAT
from tests.support.scripted_server import until

ANYBODY = Subject("anonymous", "anonymous", "", "m", "v1")
TOKENS = '[[limits]]\nname = "l"\ntokens_per_minute = 6000\nburst_s = 60\nconcurrency = 3'
"""It earns a token in 10 ms, so tests that take less than that see what they took."""
SLOW_TOKENS = TOKENS.replace("6000", "600").replace("burst_s = 60", "burst_s = 600")
REQUESTS = '[[limits]]\nname = "l"\nrequests_per_minute = 2\nburst_s = 60'
FAILING = answer(b'{"error":{"message":"no","code":500}}', status=b"500 Internal Server Error")


def guessed(body: bytes) -> int:
    """Tokens of a prompt before any answer has told: two in seven bytes."""
    return -(-len(body) * 2 // 7)


async def state(flow: Flow) -> Mapping[str, int]:
    """Units that are missing of each budget, and slots that are held."""
    board = flow.router.limits
    assert board is not None
    plan = board.rules.plan(ANYBODY)
    free = [bucket.budget._replace(cost_us=0) for bucket in plan.buckets]
    now = await board.store.look(Ask("", free, [Slots(key, ENDLESS) for key, _ in plan.slots]))
    missing = {
        bucket.kind: -(-backlog_us // bucket.rate.cost_us(1))
        for bucket, backlog_us in zip(plan.buckets, now.backlogs_us, strict=True)
    }
    # A look says what one more would make it.
    return missing | {"held": sum(now.held) - len(now.held)}


def test_what_is_used_is_charged_whatever_was_reserved() -> None:
    """The answer's usage is 3 + 2 tokens; some 26 were reserved."""

    async def test(flow: Flow) -> None:
        event = await flow.serve(whole())
        assert event.charged_tokens == 5
        assert event.reserved_tokens is not None
        assert event.reserved_tokens > 8
        assert event.limits == (("l", "admitted"),)
        assert await state(flow) == {"tokens": 5, "held": 0}

    through(test, answers(), more=SLOW_TOKENS)


def test_an_error_costs_nothing_and_its_request_counts_once() -> None:
    """Three replicas fail in turn: tokens come back, and one request was started."""
    limits = f'{SLOW_TOKENS}\n[[limits]]\nname = "r"\nrequests_per_minute = 6\nburst_s = 60'

    async def test(flow: Flow) -> None:
        event = await flow.serve(whole())
        assert len(event.attempts) == 3
        assert event.charged_tokens == 0
        assert await state(flow) == {"tokens": 0, "requests": 1, "held": 0}

    through(test, plays(FAILING), plays(FAILING), plays(FAILING), more=limits)


def test_only_the_attempt_that_won_is_charged() -> None:
    async def test(flow: Flow) -> None:
        event = await flow.serve(whole())
        assert (event.outcome, len(event.attempts), event.charged_tokens) == ("ok", 2, 5)
        assert await state(flow) == {"tokens": 5, "held": 0}

    through(test, plays(then=reset), answers(), more=SLOW_TOKENS)


def test_a_request_that_no_replica_was_asked_is_not_counted() -> None:
    async def test(flow: Flow) -> None:
        flow.router.fleet.replicas[0].up = False
        for _ in range(5):
            event = await flow.serve(whole())
            assert event.outcome == "no_healthy_replica"
        flow.router.fleet.replicas[0].up = True
        assert (await flow.serve(whole())).outcome == "ok"

    through(test, answers(), more=REQUESTS)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_pays_for_its_prompt_and_what_it_got(stream: bool) -> None:
    """Nothing but the prompt where no piece had come."""

    async def test(flow: Flow) -> None:
        exchange = streamed() if stream else whole()
        serving = flow.begin(exchange)
        if stream:
            await until(lambda: len(exchange.writes) > 0)
        else:
            await until(lambda: flow.peers[0].connections == 1)
        assert (await state(flow))["held"] == 1
        exchange.leave()
        await serving
        (event,) = flow.events
        assert event.outcome == "client_left"
        assert event.charged_tokens is not None
        assert 0 < event.charged_tokens < event.reserved_tokens
        assert (await state(flow))["held"] == 0

    frames = (STREAM_HEAD, chunk(piece("one"))) if stream else ()
    through(test, plays(*frames, then=hang), more=SLOW_TOKENS)


def test_a_stream_without_usage_is_charged_by_its_pieces() -> None:
    async def test(flow: Flow) -> None:
        event = await flow.serve(streamed())
        assert event.usage is None
        assert event.charged_tokens == guessed(STREAMED_CHAT) + 3

    through(test, streams(piece("a"), piece("b"), piece("c"), LAST_PIECES), more=SLOW_TOKENS)


def test_a_refusal_says_which_limit_and_when_and_takes_nothing() -> None:
    async def test(flow: Flow) -> None:
        outcomes = [(await flow.serve(whole())).outcome for _ in range(2)]
        assert outcomes == ["ok", "ok"]
        exchange = whole()
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (429, "rate_limit_exceeded")
        assert event.limits == [("l", "refused")]
        headers = exchange.answer_headers
        assert 29_000 < int(headers["retry-after-ms"]) <= 33_000
        assert int(headers["retry-after"]) * 1000 >= int(headers["retry-after-ms"])
        assert headers["x-should-retry"] == "true"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert "'l'" in exchange.text
        assert event.attempts == []
        assert flow.connections == [1]
        assert (await state(flow))["requests"] == 2

    through(test, answers(), more=REQUESTS)


def test_more_than_a_full_bucket_holds_is_no_matter_of_waiting() -> None:
    async def test(flow: Flow) -> None:
        exchange = whole(CHAT.replace(b"hi", b"hi " * 4000))
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (400, "request_exceeds_limit")
        assert exchange.answer_headers["x-should-retry"] == "false"
        assert event.limits == [("l", "exceeds")]
        assert await state(flow) == {"tokens": 0, "held": 0}

    through(test, answers(), more=TOKENS.replace("burst_s = 60", "burst_s = 3"))


def test_slots_are_given_back_and_their_refusal_does_not_promise_a_time() -> None:
    async def test(flow: Flow) -> None:
        open_ones = [streamed() for _ in range(3)]
        serving = [flow.begin(exchange) for exchange in open_ones]
        await until(lambda: all(exchange.writes for exchange in open_ones))
        refused = whole()
        assert (await flow.serve(refused)).outcome == "rate_limit_exceeded"
        assert "3 requests are open" in refused.text
        for exchange in open_ones:
            exchange.leave()
        await asyncio.gather(*serving)
        assert (await state(flow))["held"] == 0

    through(test, plays(STREAM_HEAD, chunk(piece("x")), then=hang), more=TOKENS)


def test_answers_tell_what_is_left() -> None:
    async def test(flow: Flow) -> None:
        exchange = whole()
        await flow.serve(exchange)
        headers = exchange.answer_headers
        assert headers["x-ratelimit-limit-tokens"] == "6000"
        assert 5900 < int(headers["x-ratelimit-remaining-tokens"]) < 6000
        assert headers["ratelimit-policy"] == '"l-tokens";q=6000;qu="turnout-tokens";w=60'
        assert headers["ratelimit"].startswith('"l-tokens";r=')

    through(test, answers(), more=TOKENS)


def test_users_have_budgets_of_their_own() -> None:
    limits = REQUESTS + '\nper = ["user"]'

    async def outcome(flow: Flow, user: bytes) -> str:
        body = CHAT[:-1] + b',"user":"%b"}' % user
        return (await flow.serve(RecordedExchange(body=body))).outcome

    async def test(flow: Flow) -> None:
        said = [await outcome(flow, user) for user in (b"alice", b"alice", b"alice", b"bob")]
        assert said == ["ok", "ok", "rate_limit_exceeded", "ok"]

    through(test, answers(), more=limits)


# ---- defects of the router's own ----


class Uncounted(RecordedExchange):
    """Its bytes cannot be counted once it is answered: a defect where what was delivered is looked at."""

    @property
    def bytes_out(self) -> int:
        if self.finished:
            raise RuntimeError("a defect")
        return 0

    @bytes_out.setter
    def bytes_out(self, count: int) -> None:
        """Counted nowhere."""


def test_a_request_whose_use_cannot_be_told_holds_nothing() -> None:
    """It is charged what was reserved, and its slot is free."""

    async def test(flow: Flow) -> None:
        with pytest.raises(RuntimeError, match="a defect"):
            await flow.router.inference.serve(Uncounted(body=CHAT))
        missing = await state(flow)
        assert missing["held"] == 0
        assert guessed(CHAT) < missing["tokens"] <= guessed(CHAT) + 8

    through(test, answers(), more=SLOW_TOKENS)


# ---- streams that outgrow what was reserved ----


STOP = '[[limits]]\nname = "l"\ntokens_per_minute = 60\nburst_s = 300\nstream_overrun = "stop"'
LONG = CHAT.replace(b'"max_tokens":8', b'"max_tokens":4000')[:-1] + (
    b',"stream":true,"stream_options":{"include_usage":true}}'
)


async def long_stream(flow: Flow) -> tuple[RecordedExchange, Finished]:
    exchange = RecordedExchange(body=LONG)
    return exchange, await flow.serve(exchange)


def test_a_stream_ends_where_the_budget_does() -> None:
    """A bucket of 300 tokens, a prompt of some 26, a stream without an end."""

    async def test(flow: Flow) -> None:
        exchange, event = await long_stream(flow)
        assert exchange.answer_headers["x-turnout-stream-limit"] == "l"
        assert exchange.text.endswith("data: [DONE]\n\n")
        assert '"finish_reason":"length"' in exchange.text
        assert '"estimated":true' in exchange.text
        assert event.outcome == "ok"
        assert event.finish_reason == "length"
        assert event.limits == [("l", "stopped")]
        assert event.charged_tokens is not None
        assert 250 <= event.charged_tokens <= 305
        missing = (await state(flow))["tokens"]
        assert event.charged_tokens - 5 <= missing <= event.charged_tokens

    async def endless(connection: PeerConnection) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await connection.send(chunk(piece("x")))
                await asyncio.sleep(0.001)

    through(test, plays(STREAM_HEAD, then=endless), more=STOP)


def test_a_stream_within_its_budget_is_left_alone() -> None:
    async def test(flow: Flow) -> None:
        exchange, event = await long_stream(flow)
        assert event.limits == (("l", "admitted"),)
        assert '"finish_reason":"stop"' in exchange.text

    through(test, streams(*[piece("x") for _ in range(100)], LAST_PIECES), more=STOP)


def test_a_stream_that_nothing_can_end_is_not_said_to_be_bounded() -> None:
    """`/v1/messages` and `/v1/responses` end as their engine ends them: what they use is owed."""
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'
    start = b'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":9}}}\n\n'
    used = b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":400}}\n\n'
    stop = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    async def test(flow: Flow) -> None:
        body = b'{"model":"m","stream":true,"max_tokens":900,"messages":[{"role":"user","content":"hi"}]}'
        exchange = RecordedExchange("/v1/messages", body)
        event = await flow.serve(exchange)
        assert "x-turnout-stream-limit" not in exchange.answer_headers
        assert (event.outcome, event.limits, event.charged_tokens) == ("ok", (("l", "admitted"),), 409)

    through(test, streams(start, *(400 * [delta]), used, stop), more=STOP)


def test_without_stop_a_stream_runs_into_debt() -> None:
    async def test(flow: Flow) -> None:
        exchange, event = await long_stream(flow)
        assert "x-turnout-stream-limit" not in exchange.answer_headers
        assert event.charged_tokens == guessed(LONG) + 600
        assert (await state(flow))["tokens"] > 600

    script = streams(*[piece("x") for _ in range(600)], LAST_PIECES)
    through(test, script, more=STOP.replace("stop", "debt"))
