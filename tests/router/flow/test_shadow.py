"""Copies of requests: what they are, what becomes of them, and that nobody but their observer notices."""

import asyncio
import json
from collections import Counter
from random import Random

import pytest

from router.flow.shadow import KEPT_BYTES
from tests.support.exchanges import RecordedExchange
from tests.support.flow import (
    DONE,
    LAST_PIECES,
    WHOLE,
    answers,
    hang,
    piece,
    plays,
    reset,
    streamed,
    streams,
    whole,
)
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, Script, answer, chunk
from tests.support.raw_client import CHAT, STREAMED_CHAT
from tests.support.scripted_server import until
from tests.support.shadowing import ALL, ShadowFlow, beside

GREEDY = CHAT[:-1] + b',"temperature":0}'
GREEDY_STREAM = STREAMED_CHAT[:-1] + b',"temperature":0.0}'
HELLO = (piece("hel"), piece("lo"), LAST_PIECES)
ERROR = b'{"object":"error","message":"no","type":"BadRequestError","param":null,"code":400}'


def usage(prompt: int, completion: int) -> bytes:
    members = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "served", "choices": []}
    tokens = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return b"data: " + json.dumps({**members, "usage": tokens}).encode() + b"\n\n"


def said(content: str, prompt: int = 3, completion: int = 2) -> bytes:
    members = json.loads(WHOLE)
    members["choices"][0]["message"]["content"] = content
    members["usage"] |= {"prompt_tokens": prompt, "completion_tokens": completion}
    return json.dumps(members).encode()


def recording(requests: list[tuple[bytes, bytes]], script_answer: bytes) -> Script:
    """A replica that keeps what it is asked."""

    async def script(connection: PeerConnection) -> None:
        while True:
            requests.append(await connection.request())
            await connection.send(script_answer)

    return script


def stream_of(*frames: bytes) -> bytes:
    return STREAM_HEAD + b"".join(map(chunk, frames)) + LAST_CHUNK


# ---- what a copy is ----


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_copy_is_the_same_request_and_is_compared(stream: bool) -> None:
    """Streams as streams; under an id of its own, as vLLM wants ids of running requests to differ."""
    asked: list[tuple[bytes, bytes]] = []
    given = stream_of(*HELLO[:2], piece("", "stop"), usage(3, 2), DONE) if stream else answer(WHOLE)

    async def test(flow: ShadowFlow) -> None:
        exchange = RecordedExchange(body=STREAMED_CHAT if stream else CHAT, headers={"x-request-id": "mine"})
        event = await flow.serve(exchange)
        await flow.copies_over()
        assert (event.outcome, event.version, event.usage.prompt_tokens) == ("ok", "v1", 3)  # type: ignore[union-attr]
        assert flow.results == ["sent", "compared"]
        (client, client_body), (copy, copy_body) = asked
        assert b"x-request-id: mine-1\r\n" in client
        assert b"x-request-id: mine-shadow-1\r\n" in copy
        assert client_body == copy_body
        pair = flow.copied[1].pair
        assert pair is not None
        assert (pair.request_id, pair.served.prompt_tokens, pair.copy.prompt_tokens) == ("mine", 3, 3)
        assert (pair.served.finish_reason, pair.copy.finish_reason) == ("stop", "stop")
        assert (pair.served.output_tokens, pair.copy.output_tokens) == (2, 2)
        assert (pair.copy.time_to_first_token_s is not None, pair.copy.answer_s is not None) == (
            stream,
            not stream,
        )
        assert pair.texts is None

    script = recording(asked, given)
    beside(test, script, script)


def test_neither_the_clients_credentials_nor_its_trace_go_with_it() -> None:
    asked: list[tuple[bytes, bytes]] = []

    async def test(flow: ShadowFlow) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await flow.serve(
            RecordedExchange(body=CHAT, headers={"traceparent": trace, "authorization": "Bearer x"})
        )
        await flow.copies_over()
        client, copy = (head for head, _ in asked)
        assert trace.encode() in client
        assert b"traceparent" not in copy
        assert b"authorization" not in copy

    script = recording(asked, answer(WHOLE))
    beside(test, script, script)


def test_a_copy_is_sent_after_its_client_has_everything() -> None:
    """The client's answer is complete before the shadow version is so much as connected to."""

    async def test(flow: ShadowFlow) -> None:
        seen = []

        class Watching(RecordedExchange):
            def finish(self) -> None:
                super().finish()
                seen.append(flow.connections[1])

        await flow.serve(Watching(body=STREAMED_CHAT))
        assert seen == [0]
        await flow.copies_over()
        assert flow.connections == [1, 1]

    beside(test, streams(*HELLO), streams(*HELLO))


@pytest.mark.parametrize(
    ("path", "body", "fraction", "copied"),
    [
        ("/v1/chat/completions", CHAT, "1.0", 1),
        ("/v1/chat/completions", CHAT.replace(b'"m"', b'"m@v1"'), "1.0", 1),
        ("/v1/chat/completions", CHAT.replace(b'"m"', b'"m@v2"'), "1.0", 0),
        ("/v1/embeddings", b'{"model":"m","input":"x"}', "1.0", 0),
        ("/v1/chat/completions", CHAT, "1e-9", 0),
    ],
    ids=["plain", "pinned", "pinned to the shadow version", "embeddings", "hardly any"],
)
def test_which_requests_are_copied(path: str, body: bytes, fraction: str, copied: int) -> None:
    async def test(flow: ShadowFlow) -> None:
        assert (await flow.serve(RecordedExchange(path, body))).outcome == "ok"
        await flow.copies_over()
        assert flow.results.count("sent") == copied

    beside(test, answers(), answers(), shadow=f"fraction = {fraction}")


def test_so_many_are_copied_as_was_asked_for() -> None:
    """Drawn by chance: what clients choose, ids for instance, does not matter."""

    async def test(flow: ShadowFlow) -> None:
        flow.shadows._random = Random(1)
        for _ in range(400):
            await flow.serve(RecordedExchange(body=CHAT, headers={"x-request-id": "always-the-same"}))
            await flow.copies_over()
        assert 90 <= flow.results.count("compared") <= 150

    beside(test, answers(), answers(), shadow="fraction = 0.3")


def test_without_a_fraction_there_is_nothing_to_pay_for() -> None:
    """Neither a plan nor another dispatcher in the way."""
    from router.compose import Router
    from router.config.decode import decode
    from router.flow.dispatch import Dispatcher
    from tests.support.shadowing import shadow_text

    async def run() -> None:
        entry = 'url = "http://127.0.0.1:9", engine = "vllm"'
        router = Router(decode(shadow_text(entry, entry, shadow="fraction = 0.0")))
        assert router.shadows is None
        assert isinstance(router.inference._dispatcher, Dispatcher)
        await router.close()

    asyncio.run(run())


# ---- what differs ----


@pytest.mark.parametrize(
    ("body", "one", "other", "kinds"),
    [
        (GREEDY, answer(said("hello")), answer(said("hello")), set()),
        (GREEDY, answer(said("hello")), answer(said("help")), {"text"}),
        (CHAT, answer(said("hello")), answer(said("help", completion=9)), set()),
        (GREEDY, answer(said("a")), answer(said("a", completion=3)), {"output_tokens"}),
        (CHAT, answer(said("a")), answer(said("a", prompt=5)), {"prompt_tokens"}),
        (CHAT, answer(WHOLE), answer(WHOLE.replace(b'"stop"', b'"length"')), {"finish_reason"}),
        (CHAT, answer(WHOLE), answer(ERROR, status=b"400 Bad Request"), {"status"}),
        (CHAT, answer(ERROR, status=b"400 Bad Request"), answer(WHOLE), {"status"}),
        (CHAT, answer(ERROR, status=b"400 Bad Request"), answer(ERROR, status=b"400 Bad Request"), set()),
        (GREEDY_STREAM, stream_of(*HELLO), stream_of(*HELLO), set()),
        (GREEDY_STREAM, stream_of(*HELLO), stream_of(piece("he"), piece("lp"), LAST_PIECES), {"text"}),
        (STREAMED_CHAT, stream_of(*HELLO), stream_of(piece("he"), piece("lp"), LAST_PIECES), set()),
        (
            STREAMED_CHAT,
            stream_of(piece("x"), piece("", "stop"), usage(3, 2), DONE),
            stream_of(piece("x"), piece("", "length"), usage(4, 2), DONE),
            {"finish_reason", "prompt_tokens"},
        ),
    ],
)
def test_differences_are_found(body: bytes, one: bytes, other: bytes, kinds: set[str]) -> None:
    async def test(flow: ShadowFlow) -> None:
        await flow.serve(whole(body))
        await flow.copies_over()
        assert flow.results == ["sent", "compared"]
        ((key, tally),) = flow.router.shadow_counts.tallies.items()
        assert key == ("m", "v1", "v2")
        assert set(tally.pairs.differing) == kinds
        assert [set(example.differences) for example in tally.pairs.examples] == ([kinds] if kinds else [])

    beside(test, plays(one), plays(other))


def test_a_long_greedy_stream_is_compared_as_far_as_it_is_kept() -> None:
    """No more is held than may be, and what is beyond is no difference."""
    frames = [piece("x" * 2000) for _ in range(200)]

    async def test(flow: ShadowFlow) -> None:
        await flow.serve(whole(GREEDY_STREAM.replace(b'"max_tokens":8,', b"")))
        await flow.copies_over()
        pair = flow.copied[1].pair
        assert pair is not None
        assert pair.texts is not None
        assert pair.texts.equal
        assert 0.7 * KEPT_BYTES < pair.texts.compared < KEPT_BYTES

    beside(test, streams(*frames, LAST_PIECES), streams(*frames, piece("y"), LAST_PIECES))


# ---- what goes wrong with the copy ----


async def resets(connection: PeerConnection) -> None:
    await connection.request()
    connection.reset()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (plays(answer(b'{"error":"x"}', status=b"500 Internal Server Error")), "upstream_error"),
        (resets, "upstream_reset"),
        (plays(answer(b"{")), "upstream_protocol"),
        (plays(answer(said("x" * 3_000_000))), "upstream_protocol"),
    ],
    ids=["500", "reset", "no JSON", "too long"],
)
def test_a_copy_that_fails_is_the_replicas_failure_and_not_the_clients(script: Script, code: str) -> None:
    """It is counted, and the replica is looked at; its client is answered, once, and by one attempt."""

    async def test(flow: ShadowFlow) -> None:
        hastened = []
        flow.router.prober.hasten = hastened.append  # type: ignore[method-assign, assignment]
        exchange = whole()
        event = await flow.serve(exchange)
        assert (event.outcome, event.status, len(event.attempts), exchange.finished) == ("ok", 200, 1, 1)
        await flow.copies_over()
        assert flow.results == ["sent", "failed"]
        assert flow.copied[1].code == code
        assert [replica.identity.version for replica in hastened] == ["v2"]

    beside(test, answers(), script)


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    async def test(flow: ShadowFlow) -> None:
        exchange = streamed()
        await flow.serve(exchange)
        await flow.copies_over()
        assert exchange.text.endswith("data: [DONE]\n\n")
        assert (flow.results, flow.copied[1].code) == (["sent", "failed"], "upstream_reset")

    beside(test, streams(*HELLO), plays(STREAM_HEAD, chunk(HELLO[0]), then=reset))


def test_a_copy_is_given_up_after_its_time_and_nobody_is_blamed() -> None:
    """The version may just be slower."""

    async def test(flow: ShadowFlow) -> None:
        hastened: list[object] = []
        flow.router.prober.hasten = hastened.append  # type: ignore[method-assign, assignment]
        await flow.serve(whole())
        await flow.copies_over()
        assert (flow.results, flow.copied[1].code, hastened) == (["sent", "failed"], "total_timeout", [])

    beside(test, answers(), plays(then=hang), shadow=f"{ALL}\ntimeout_s = 0.05")


def test_a_version_that_is_down_gets_none() -> None:
    async def test(flow: ShadowFlow) -> None:
        (replica,) = flow.router.fleet.pools["m", "v2"].replicas
        replica.up = False
        await flow.serve(whole())
        assert [(event.result, event.code) for event in flow.copied] == [
            ("dropped_unavailable", "no_healthy_replica")
        ]
        assert flow.connections == [1, 0]

    beside(test, answers(), answers())


def test_a_defect_of_the_copy_is_logged_and_counted_and_stays_there() -> None:
    async def test(flow: ShadowFlow) -> None:
        async def defect(_: object) -> None:
            raise ZeroDivisionError

        flow.lane.dispatcher.dispatch = defect  # type: ignore[method-assign]
        assert (await flow.serve(whole())).outcome == "ok"
        await flow.copies_over()
        assert [event.code for event in flow.copied] == ["", "internal_error"]

    beside(test, answers(), answers(), may_say="a copy for the shadow version met a defect")


# ---- what goes wrong with the client ----


def test_of_a_client_that_leaves_no_copy_is_made() -> None:
    """There is nothing to compare it with."""

    async def test(flow: ShadowFlow) -> None:
        exchange = whole(GREEDY_STREAM)
        ended = flow.begin(exchange)
        await until(lambda: exchange.bytes_out > 0)
        assert flow.lane.held_bytes == KEPT_BYTES
        exchange.leave()
        await ended
        await flow.copies_over()
        assert flow.results == ["skipped"]
        assert flow.connections == [1, 0]

    beside(test, plays(STREAM_HEAD, chunk(HELLO[0]), then=hang), streams(*HELLO))


def test_of_a_request_that_failed_no_copy_is_made() -> None:
    """It might be what kills replicas."""

    async def test(flow: ShadowFlow) -> None:
        assert (await flow.serve(whole())).status == 502
        await flow.copies_over()
        assert flow.results == ["skipped"]

    beside(test, resets, answers())


# ---- too little of something ----


def test_no_more_are_open_than_may_be() -> None:
    """The rest is dropped, at once: nothing waits to be copied."""

    async def test(flow: ShadowFlow) -> None:
        for _ in range(6):
            assert (await flow.serve(whole())).outcome == "ok"
        assert Counter(flow.results) == {"sent": 2, "dropped_budget": 4}
        assert flow.shadows.open == 2
        await flow.shadows.close()
        assert Counter(flow.results)["stopped"] == 2

    beside(test, answers(), plays(then=hang), shadow=f"{ALL}\nmax_open = 2")


def test_no_more_is_held_than_may_be() -> None:
    """Bodies, what is kept of answers, and what whole answers may grow to."""
    long = GREEDY[:-1].replace(b'"hi"', b'"%b"' % (b"x" * 300_000)) + b"}"

    async def test(flow: ShadowFlow) -> None:
        for _ in range(6):
            assert (await flow.serve(whole(long))).outcome == "ok"
        found = Counter(flow.results)
        assert found["sent"] >= 1
        assert found["dropped_budget"] == 6 - found["sent"] > 0
        assert 0 < flow.lane.held_bytes <= 1024 * 1024
        await flow.shadows.close()

    beside(test, answers(), plays(then=hang), shadow=f"{ALL}\nmax_bytes = 1048576\nmax_open = 64")


def test_what_is_kept_of_clients_answers_is_bounded_too() -> None:
    """Where there is no room for it a stream is copied, and its text is not compared."""

    async def test(flow: ShadowFlow) -> None:
        exchanges = [whole(GREEDY_STREAM) for _ in range(10)]
        ended = [flow.begin(exchange) for exchange in exchanges]
        await until(lambda: all(exchange.bytes_out for exchange in exchanges))
        assert flow.lane.held_bytes == 4 * KEPT_BYTES
        for exchange in exchanges:
            exchange.leave()
        await asyncio.gather(*ended)

    beside(
        test, plays(STREAM_HEAD, chunk(HELLO[0]), then=hang), answers(), shadow=f"{ALL}\nmax_bytes = 1048576"
    )


def test_an_answer_that_is_too_long_to_have_twice_is_not_copied() -> None:
    async def test(flow: ShadowFlow) -> None:
        await flow.serve(whole())
        assert flow.results == ["dropped_budget"]

    beside(test, answers(said("x" * 1_100_000)), answers())


@pytest.mark.parametrize("full", ["v1", "v2"])
def test_copies_are_dropped_first_where_there_is_no_room(full: str) -> None:
    """Neither a version that is full nor one beside it gets more to do than clients ask for."""

    async def test(flow: ShadowFlow) -> None:
        (replica,) = flow.router.fleet.pools["m", full].replicas
        exchange = streamed()
        ended = flow.begin(exchange)
        await until(lambda: exchange.bytes_out > 0)
        replica.limit = 4.0
        replica.set_elsewhere(4)
        await ended
        replica.set_elsewhere(0)
        assert flow.results == ["dropped_saturated"]
        assert flow.connections == [1, 0]

    async def slowly(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(HELLO[0]))
        await asyncio.sleep(0.05)
        await connection.send(chunk(LAST_PIECES) + LAST_CHUNK)

    beside(test, slowly, streams(*HELLO))


def test_a_client_that_waits_for_the_shadow_version_gets_the_copies_room() -> None:
    """Its only place is taken by a copy that hangs; whoever asks for that version is served all the same."""

    async def hangs_first(connection: PeerConnection) -> None:
        head, _ = await connection.request()
        if b"-shadow-" in head:
            await connection.closed_by_peer()
            return
        await connection.send(answer(WHOLE))

    async def test(flow: ShadowFlow) -> None:
        await flow.serve(whole())
        await until(lambda: flow.connections == [1, 1])
        event = await flow.serve(whole(CHAT.replace(b'"m"', b'"m@v2"')))
        assert (event.outcome, event.version) == ("ok", "v2")
        assert flow.results == ["sent", "stopped"]

    beside(test, answers(), hangs_first, entries=("", ", max_in_flight = 1"))


# ---- whom it does not concern ----


def test_it_earns_no_retries_and_teaches_nothing_to_the_version_that_serves() -> None:
    """The purse of retries, the sizes and the policy of v1 are as if there were no copies."""
    outcomes: list[object] = []

    async def test(flow: ShadowFlow) -> None:
        serving, shadow = (flow.router.fleet.pools["m", version] for version in ("v1", "v2"))
        saved, before = shadow.retries._saved, serving.sizes._answer
        shadow.retries._saved = saved = saved - 1
        observed: list[object] = []
        serving._tell = observed.append
        shadow._tell = outcomes.append
        await flow.serve(whole())
        told, size = len(observed), serving.sizes._answer
        await flow.copies_over()
        assert (len(observed), serving.sizes._answer, shadow.retries._saved) == (told, size, saved)
        assert size != before
        assert outcomes, "the shadow version's own policy is told"

    beside(test, answers(), answers())


def test_a_version_that_is_not_there_any_more_gets_none() -> None:
    async def test(flow: ShadowFlow) -> None:
        fleet = flow.router.fleet
        fleet.routes = {name: route for name, route in fleet.routes.items() if route.version == "v1"}
        await flow.serve(whole())
        assert [(event.result, event.code) for event in flow.copied] == [
            ("dropped_unavailable", "version_retired")
        ]

    beside(test, answers(), answers())


def test_when_the_drain_is_over_copies_are_too() -> None:
    async def test(flow: ShadowFlow) -> None:
        await flow.serve(whole())
        await until(lambda: flow.connections == [1, 1])
        flow.router.end_open_requests()
        await flow.copies_over()
        assert flow.results == ["sent", "stopped"]

    beside(test, answers(), plays(then=hang))


def test_a_cancelled_copy_is_stopped_even_before_its_first_step() -> None:
    """And what it held is free."""

    async def test(flow: ShadowFlow) -> None:
        await flow.serve(whole(GREEDY))
        for task in flow.shadows._open:
            task.cancel()
        await flow.copies_over()
        assert flow.results == ["sent", "stopped"]
        assert flow.connections == [1, 0]

    beside(test, answers(), answers())


def test_while_the_router_drains_nothing_is_copied() -> None:
    async def test(flow: ShadowFlow) -> None:
        exchange = streamed()
        ended = flow.begin(exchange)
        await until(lambda: exchange.bytes_out > 0)
        flow.shadows._draining = lambda: True
        await ended
        await flow.serve(whole())
        assert flow.results == ["skipped"]

    async def slowly(connection: PeerConnection) -> None:
        while True:
            _, body = await connection.request()
            if b'"stream":true' not in body:
                await connection.send(answer(WHOLE))
                continue
            await connection.send(STREAM_HEAD + chunk(HELLO[0]))
            await asyncio.sleep(0.05)
            await connection.send(chunk(LAST_PIECES) + LAST_CHUNK)

    beside(test, slowly, answers())
