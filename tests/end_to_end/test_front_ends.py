"""What clients rely on, under every front end: the direct one on both event loops, uvicorn, granian."""

import asyncio
import itertools
import json
from collections.abc import Iterator

import pytest

from tests.support.front_ends import KINDS, Stage, Theatre
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, chunk
from tests.support.raw_client import CHAT, STREAMED_CHAT, RawAnswer, events_in, get, post
from tests.support.scripted_server import until

CHATS = "/v1/chat/completions"
PEER = CHAT.replace(b'"m"', b'"peer"')
STREAMED_PEER = STREAMED_CHAT.replace(b'"m"', b'"peer"').replace(b',"max_tokens":8', b"")
SOLO = CHAT.replace(b'"m"', b'"solo"')
STREAMED_SOLO = STREAMED_CHAT.replace(b'"m"', b'"solo"')
LONG = STREAMED_SOLO.replace(b'"max_tokens":8', b'"max_tokens":4000,"ignore_eos":true')


@pytest.fixture(scope="module", params=KINDS)
def theatre(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    with Theatre(request.param, tmp_path_factory.mktemp(request.param)) as theatre:
        yield theatre


def frame(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    members = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "served"}
    return b"data: " + json.dumps({**members, "choices": [choice]}).encode() + b"\n\n"


def content(events: list[bytes]) -> str:
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def ask(stage: Stage, request: bytes) -> RawAnswer:
    async with stage.connect() as client:
        await client.send(request)
        return await client.answer()


def test_whole_answers_and_streams_say_the_same(theatre: Theatre) -> None:
    """The contract's headers, the public name, one text; a stream ends with `[DONE]`."""

    async def test(stage: Stage) -> None:
        whole = await ask(stage, post(headers=b"x-request-id: mine\r\n"))
        streamed = await ask(stage, post(STREAMED_CHAT))
        assert (whole.status, streamed.status) == (200, 200)
        for given in (whole, streamed):
            assert given.headers["x-turnout-model"] == "m"
            assert given.headers["x-turnout-version"] == "v1"
            assert given.headers["x-turnout-replica"].startswith("127.0.0.1:")
            assert given.headers["x-turnout-attempts"] == "1"
            assert float(given.headers["x-turnout-overhead-ms"]) >= 0
        assert whole.headers["x-request-id"] == "mine"
        assert whole.headers["content-type"] == "application/json"
        assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert streamed.headers["cache-control"] == "no-cache"
        assert streamed.headers["x-accel-buffering"] == "no"
        assert streamed.events[-1] == b"[DONE]"
        assert all(json.loads(event)["model"] == "m" for event in streamed.events[:-1])
        assert content(streamed.events) == json.loads(whole.body)["choices"][0]["message"]["content"]

    theatre.run(test)


def test_a_connection_is_kept_through_answers_streams_and_refusals(theatre: Theatre) -> None:
    """Nothing that was framed soundly costs the client its connection."""

    async def test(stage: Stage) -> None:
        async with stage.connect() as client:
            for _ in range(2):
                for request, status in [
                    (post(), 200),
                    (post(STREAMED_CHAT), 200),
                    (post(b"{"), 400),
                    (post(CHAT.replace(b'"m"', b'"nobody"')), 404),
                    (post(content_type=b"text/plain"), 415),
                    (get(b"/v1/models"), 200),
                    (get(b"/nowhere"), 404),
                ]:
                    await client.send(request)
                    assert (await client.answer()).status == status

    theatre.run(test)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (post(b"{"), 400, "invalid_json"),
        (post(b"[]"), 400, "invalid_request"),
        (post(b'{"model":"m"}'), 400, "invalid_request"),
        (post(CHAT.replace(b'"m"', b'"nobody"')), 404, "model_not_found"),
        (post(content_type=b"text/plain"), 415, "unsupported_media_type"),
        (post(headers=b"content-encoding: gzip\r\n"), 415, "unsupported_media_type"),
        (post(CHAT[:-1] + b',"padding":"%b"}' % (b"x" * 70_000)), 413, "body_too_large"),
        (get(b"/nowhere"), 404, "not_found"),
        (post(path=b"/v1/chat/completions/"), 404, "not_found"),
        (get(b"/v1/chat/completions"), 405, "method_not_allowed"),
        (post(path=b"/v1/models"), 405, "method_not_allowed"),
        (get(b"/v1/models/nobody"), 404, "model_not_found"),
        (post(b'{"model":"m","query":"q","documents":["d"]}', path=b"/nowhere"), 404, "not_found"),
    ],
)
def test_errors_have_the_contracts_status_and_code(
    theatre: Theatre, request_bytes: bytes, status: int, code: str
) -> None:
    """The same object everywhere, and SDKs are told not to try again."""

    async def test(stage: Stage) -> None:
        given = await ask(stage, request_bytes)
        assert (given.status, given.code) == (status, code)
        assert given.headers["x-should-retry"] == "false"
        assert given.headers["content-type"] == "application/json"
        assert set(json.loads(given.body)["error"]) == {"message", "type", "param", "code"}
        if status == 405:
            assert given.headers["allow"] in ("POST", "GET, HEAD", "HEAD, GET")

    theatre.run(test)


def test_pages(theatre: Theatre) -> None:
    """Liveness, readiness, and the models by all their names."""

    async def test(stage: Stage) -> None:
        assert (await ask(stage, get(b"/livez"))).body == b"alive\n"
        assert (await ask(stage, get(b"/readyz"))).status == 200
        assert (await ask(stage, get(b"/health"))).status == 200
        models = json.loads((await ask(stage, get(b"/v1/models"))).body)
        assert {model["id"] for model in models["data"]} >= {"m", "m@v1", "solo", "peer"}
        one = json.loads((await ask(stage, get(b"/v1/models/m@v1"))).body)
        assert (one["id"], one["root"], one["object"]) == ("m@v1", "m", "model")

    theatre.run(test)


def test_a_query_string_changes_nothing(theatre: Theatre) -> None:
    """Some SDKs add a version there."""

    async def test(stage: Stage) -> None:
        assert (await ask(stage, post(path=b"/v1/chat/completions?api-version=1"))).status == 200

    theatre.run(test)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_request_may_come_in_pieces(theatre: Theatre, size: int) -> None:
    """Head and body, byte by byte too."""

    async def test(stage: Stage) -> None:
        async with stage.connect() as client:
            data = post(STREAMED_CHAT)
            for at in range(0, len(data), size):
                await client.send(data[at : at + size])
                await asyncio.sleep(0)
            assert (await client.answer()).events[-1] == b"[DONE]"

    theatre.run(test)


def test_chunked_requests(theatre: Theatre) -> None:
    """A body without a length is read all the same."""

    async def test(stage: Stage) -> None:
        head = post(b"").replace(b"content-length: 0", b"transfer-encoding: chunked")
        given = await ask(stage, head + chunk(CHAT[:9]) + chunk(CHAT[9:]) + LAST_CHUNK)
        assert given.status == 200

    theatre.run(test)


def test_a_body_that_never_comes(theatre: Theatre) -> None:
    """408, and the client may try again."""

    async def test(stage: Stage) -> None:
        given = await ask(stage, post()[:-5])
        assert (given.status, given.code) == (408, "body_timeout")
        assert given.headers["x-should-retry"] == "true"

    theatre.run(test)


def test_http_1_0_gets_a_stream_without_chunks(theatre: Theatre) -> None:
    """It ends where the connection does."""

    async def test(stage: Stage) -> None:
        async with stage.connect() as client:
            await client.send(post(STREAMED_CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"))
            _status, headers = await client.head()
            if stage.kind == "uvicorn":
                pytest.skip("uvicorn sends chunks to HTTP/1.0 clients")
            assert "transfer-encoding" not in headers
            assert events_in(await client.closed())[-1] == b"[DONE]"

    theatre.run(test)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["reset", "status=500", "junk", "error", "end@head"])
def test_a_failing_replica_is_not_seen(theatre: Theatre, fault: str, stream: bool) -> None:
    """Whatever happens before the first token happens to the router only."""

    async def test(stage: Stage) -> None:
        if not stream and fault == "end@head":
            return
        stage.engines[0].faults.set(fault)
        attempts = []
        for _ in range(2):
            given = await ask(stage, post(STREAMED_CHAT if stream else CHAT))
            assert given.status == 200
            attempts.append(given.headers["x-turnout-attempts"])
        assert sorted(attempts) == ["1", "2"]

    theatre.run(test)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("reset", 502, "upstream_reset"),
        ("junk", 502, "upstream_protocol"),
        ("status=500", 502, "upstream_error"),
        ("status=503", 503, "overloaded"),
        ("hang", 504, "first_token_timeout"),
    ],
)
def test_when_nobody_can_answer(theatre: Theatre, fault: str, status: int, code: str) -> None:
    """The contract's status, no stream is begun, and the SDK may try again."""

    async def test(stage: Stage) -> None:
        stage.solo.faults.set(fault)
        given = await ask(stage, post(STREAMED_SOLO))
        assert (given.status, given.code) == (status, code)
        assert given.headers["x-should-retry"] == "true"
        assert given.headers["content-type"] == "application/json"
        if status == 503:
            assert int(given.headers["retry-after"]) >= 1
            assert int(given.headers["retry-after-ms"]) >= 1

    theatre.run(test)


@pytest.mark.parametrize("fault", ["reset@3", "error@3", "abort@3", "end@3", "hang@3"])
def test_a_failure_in_mid_stream_is_one_error_frame(theatre: Theatre, fault: str) -> None:
    """The tokens that came, one error, no `[DONE]`, correct framing; the connection is still good."""

    async def test(stage: Stage) -> None:
        async with stage.connect() as client:
            stage.solo.faults.set(fault)
            await client.send(post(STREAMED_SOLO))
            given = await client.answer()
            *begun, last = given.events
            assert given.status == 200
            assert begun
            assert b"[DONE]" not in begun
            assert not any("error" in json.loads(event) for event in begun)
            code = json.loads(last)["error"]["code"]
            assert code in {"upstream_reset", "upstream_error", "between_tokens_timeout"}
            stage.solo.faults.clear()
            await client.send(post(SOLO))
            assert (await client.answer()).status == 200

    theatre.run(test)


@pytest.mark.parametrize("how", ["reset", "leave"])
@pytest.mark.parametrize("when", ["before_the_head", "in_the_stream"])
def test_a_client_that_leaves_ends_its_generation(theatre: Theatre, when: str, how: str) -> None:
    """The engine sees its connection closed, long before the answer would have been complete."""

    async def test(stage: Stage) -> None:
        stage.solo.log.clear()
        if when == "before_the_head":
            stage.solo.faults.set("hang")
        async with stage.connect() as client:
            await client.send(post(LONG))
            if when == "in_the_stream":
                await client.first_piece()
            else:
                await until(lambda: bool(stage.solo.log.of(CHATS)))
            getattr(client, how)()
        record = stage.solo.log.of(CHATS)[0]
        await until(lambda: record.client_closed_s is not None)
        assert record.tokens < 4000

    theatre.run(test)


def test_a_whole_answer_that_nobody_waits_for_is_not_made(theatre: Theatre) -> None:
    """The same where nothing is streamed."""

    async def test(stage: Stage) -> None:
        stage.solo.log.clear()
        async with stage.connect() as client:
            await client.send(post(LONG.replace(b',"stream":true', b"")))
            await until(lambda: bool(stage.solo.log.of(CHATS)))
            client.leave()
        record = stage.solo.log.of(CHATS)[0]
        await until(lambda: record.client_closed_s is not None)

    theatre.run(test)


class Flood:
    """A replica that sends big frames as fast as they are taken, and counts them."""

    def __init__(self) -> None:
        self.sent = 0
        self.over = False
        self.frame = chunk(frame("x" * 16_000))

    async def play(self, connection: PeerConnection) -> None:
        try:
            await connection.send(STREAM_HEAD)
            while True:
                await connection.send(self.frame)
                self.sent += len(self.frame)
        finally:
            self.over = True

    async def stands(self) -> int:
        """What has been sent when nothing more is taken, bytes."""
        before = -1
        while before != self.sent:
            before = self.sent
            await asyncio.sleep(0.2)
        return self.sent


def test_a_client_that_does_not_read_holds_up_its_replica(theatre: Theatre) -> None:
    """What is under way stays bounded, others are served, and reading on gets the rest."""

    async def test(stage: Stage) -> None:
        flood = Flood()
        stage.play = flood.play
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(post(STREAMED_PEER))
            await client.first_piece()
            stood = await flood.stands()
            assert stood < 16 * 1024 * 1024  # the kernels' buffers, for the most part
            assert (await ask(stage, post())).status == 200
            taken = 0
            async for piece in client.chunks():
                taken += len(piece)
                if taken > stood + 1_000_000:
                    break
        await until(lambda: flood.over)

    theatre.run(test)


def test_a_client_that_never_reads_is_cut_off(theatre: Theatre) -> None:
    """After `write_stall_s` its replica is free again."""

    async def test(stage: Stage) -> None:
        flood = Flood()
        stage.play = flood.play
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(post(STREAMED_PEER))
            await client.first_piece()
            await flood.stands()
            await until(lambda: flood.over)

    # uvicorn has no other way to be told that a connection is to be closed.
    theatre.run(test, may_say="returned without completing response")


def test_a_replica_is_not_blamed_for_a_client_that_does_not_read(theatre: Theatre) -> None:
    """A pause longer than `between_tokens_s`, and the stream goes on as if nothing had been."""

    async def test(stage: Stage) -> None:
        flood = Flood()
        stage.play = flood.play
        async with stage.connect(receive_buffer=8192) as client:
            await client.send(post(STREAMED_PEER))
            await client.first_piece()
            stood = await flood.stands()
            taken = 0
            async for piece in client.chunks():
                # Something is taken within every `write_stall_s`, but hardly anything.
                if taken < 80_000:
                    await asyncio.sleep(0.2)
                assert b"error" not in piece
                taken += len(piece)
                if taken > stood:
                    break

    theatre.run(test)


def test_many_streams_side_by_side(theatre: Theatre) -> None:
    """Fifty at once: each is whole, and none has a piece of another."""

    async def test(stage: Stage) -> None:
        numbers = itertools.count()

        async def play(connection: PeerConnection) -> None:
            name = f"s{next(numbers)}"
            await connection.send(STREAM_HEAD)
            for number in range(10):
                await connection.send(chunk(frame(f"{name}-{number} ")))
                await asyncio.sleep(0.001)
            await connection.send(chunk(frame("", "stop")) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

        stage.play = play
        answers = await asyncio.gather(*(ask(stage, post(STREAMED_PEER)) for _ in range(50)))
        texts = {content(given.events) for given in answers}
        assert texts == {"".join(f"s{s}-{n} " for n in range(10)) for s in range(50)}
        assert all(given.events[-1] == b"[DONE]" for given in answers)

    theatre.run(test)
