import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncIterator

import pytest

from loadtest.engine.request_log import ExchangeRecord
from loadtest.engine.server import RunningEngine, engine_options, serve_engine
from tests.support.engine_client import call, engine, get, opened, post, read_chunk, until

STREAM = {"prompt": "Hi", "max_tokens": 5, "ignore_eos": True, "stream": True}
LONG = {**STREAM, "max_tokens": 8_000}


def raw(path: str, body: object, *more: str) -> bytes:
    """One request's bytes."""
    content = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *more]
    return "\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content


@contextlib.asynccontextmanager
async def connected(
    running: RunningEngine,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(running.host, running.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """The body of one chunked or sized answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head:
        parts = []
        while chunk := await read_chunk(reader):
            parts.append(chunk)
        return b"".join(parts)
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


def test_one_chunk_per_event() -> None:
    """Streams are chunked with one event in each chunk, the way uvicorn sends them."""

    async def main() -> None:
        async with engine("vllm") as running:
            reply = await post(running, "/v1/completions", STREAM)
            assert reply.whole and len(reply.chunks) == 6
            assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in reply.chunks)
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert reply.headers["server"] == "uvicorn"

    asyncio.run(main())


def test_requests_of_one_connection_are_answered_in_order() -> None:
    """Pipelined requests wait for each other, whatever they cost."""

    async def main() -> None:
        async with engine("vllm") as running, connected(running) as (reader, writer):
            tokenize = raw("/tokenize", {"prompt": "abc"})
            writer.write(raw("/v1/completions", STREAM) + tokenize + raw("/v1/completions", {"prompt": "Hi"}))
            assert (await read_answer(reader)).endswith(b"data: [DONE]\n\n")
            assert json.loads(await read_answer(reader))["count"] == 1
            assert json.loads(await read_answer(reader))["object"] == "text_completion"
            assert [record.connection for record in running.log] == [0, 0, 0]

    asyncio.run(main())


def test_request_bytes_may_arrive_one_by_one_and_chunked() -> None:
    """Neither the split of the bytes nor the framing of the body matters."""

    async def main() -> None:
        async with engine("vllm") as running, connected(running) as (reader, writer):
            content = b'{"prompt":"abc"}'
            head = b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            body = b"Transfer-Encoding: chunked\r\n\r\n8\r\n" + content[:8] + b"\r\n8\r\n" + content[8:]
            for byte in head + body + b"\r\n0\r\n\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
            assert json.loads(await read_answer(reader))["count"] == 1
            assert running.log[0].request.body == content

    asyncio.run(main())


def test_an_expecting_client_is_told_to_continue() -> None:
    """`Expect: 100-continue` gets its interim answer before the body is sent."""

    async def main() -> None:
        async with engine("vllm") as running, connected(running) as (reader, writer):
            whole = raw("/tokenize", {"prompt": "abc"}, "Expect: 100-continue")
            head, _, body = whole.partition(b"\r\n\r\n")
            writer.write(head + b"\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(body)
            assert json.loads(await read_answer(reader))["count"] == 1

    asyncio.run(main())


def test_what_is_not_http_gets_uvicorns_answer() -> None:
    """Plain text 400, and the connection is closed."""

    async def main() -> None:
        async with engine("vllm") as running, connected(running) as (reader, writer):
            writer.write(b"\x16\x03\x01 hello\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert answer.endswith(b"Invalid HTTP request received.")

    asyncio.run(main())


def test_idle_connections_are_closed_busy_ones_are_not() -> None:
    """The keep-alive limit counts from the end of an answer, and only while nothing comes."""

    async def main() -> None:
        options = {"keep_alive_s": 0.15}
        async with (
            engine("vllm", speed=20.0, extra=options) as running,
            connected(running) as (reader, writer),
        ):
            for _ in range(2):
                writer.write(raw("/v1/completions", {**STREAM, "max_tokens": 700}))
                assert (await read_answer(reader)).endswith(b"data: [DONE]\n\n")
            assert await asyncio.wait_for(reader.read(), 3) == b""
            record = running.log[-1]
            assert record.ended_s is not None and time.monotonic() - record.ended_s >= 0.14

    asyncio.run(main())


def test_connection_close_is_honoured() -> None:
    """A client that wants no second request gets the end of the connection."""

    async def main() -> None:
        async with engine("vllm") as running, connected(running) as (reader, writer):
            writer.write(raw("/tokenize", {"prompt": "abc"}, "Connection: close"))
            assert b"connection: close\r\n" in await asyncio.wait_for(reader.read(), 3)

    asyncio.run(main())


def test_unknown_paths_and_methods() -> None:
    """404 and 405 in the words of the framework that the dialect is written in."""

    async def main() -> None:
        async with engine("vllm") as running:
            missing, wrong = await post(running, "/v9"), await get(running, "/v1/completions")
            assert (missing.status, wrong.status) == (404, 405)
            assert missing.json() == {"detail": "Not Found"}
            assert wrong.json() == {"detail": "Method Not Allowed"}

    asyncio.run(main())


def test_the_log_has_what_was_received_and_when() -> None:
    """Headers as they came, body bytes, and times in their order."""

    async def main() -> None:
        async with engine("vllm") as running:
            await call(
                running,
                "POST",
                "/v1/completions?a=1&b=",
                json.dumps(STREAM).encode(),
                {"Content-Type": "application/json", "X-Twice": "1", "x-twice": "2"},
            )
            record = running.log[0]
            assert (record.request.path, dict(record.request.query)) == (
                "/v1/completions",
                {"a": "1", "b": ""},
            )
            assert ("X-Twice", "1") in record.raw_headers and record.request.headers["x-twice"] == "2"
            assert json.loads(record.request.body) == STREAM
            assert (record.status, record.tokens, record.faults) == (200, 5, [])
            assert record.first_byte_s is not None and record.ended_s is not None
            assert record.arrived_s <= record.first_byte_s <= record.ended_s
            assert record.client_closed_s is None

    asyncio.run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine_at_once(stream: bool) -> None:
    """vLLM aborts on disconnect, streaming or not; the log says when it was seen."""

    async def main() -> None:
        async with engine("vllm", speed=1.0) as running:
            async with connected(running) as (_, writer):
                writer.write(raw("/v1/completions", {**LONG, "stream": stream}))
                await until(lambda: running.core.stats().running == 1)
            await until(lambda: running.core.stats().running == 0)
            record: ExchangeRecord = running.log[0]
            assert record.client_closed_s is not None and record.noticed_s is not None
            assert record.noticed_s - record.client_closed_s < 0.05
            assert running.core.stats().finished["abort"] == 1
            assert running.core.stats().blocks_used == 0

    asyncio.run(main())


def test_a_half_closed_client_has_left() -> None:
    """As under uvicorn, the end of the client's bytes is the end of the client."""

    async def main() -> None:
        async with engine("vllm", speed=1.0) as running, connected(running) as (_, writer):
            writer.write(raw("/v1/completions", LONG))
            writer.write_eof()
            await until(lambda: len(running.log) == 1 and running.log[0].noticed_s is not None)

    asyncio.run(main())


def test_waiting_requests_of_a_closed_connection_are_dropped() -> None:
    """What was pipelined behind an aborted request is never begun."""

    async def main() -> None:
        async with engine("vllm", speed=1.0) as running:
            async with connected(running) as (_, writer):
                writer.write(raw("/v1/completions", LONG) * 2)
                await until(lambda: running.core.stats().running == 1)
            await until(lambda: not running.connections)
            assert running.core.stats().running == 0 and len(running.log) == 1

    asyncio.run(main())


def test_shutdown_aborts_or_drains() -> None:
    """Without a drain time running streams end with `abort` and `[DONE]`; with one they end by themselves."""

    async def stopped(drain_s: float, tokens: int) -> bytes:
        async with engine("vllm", speed=10.0) as running:
            body = json.dumps({**STREAM, "max_tokens": tokens}).encode()
            headers = {"content-type": "application/json"}
            async with opened(running, "POST", "/v1/completions", body, headers) as (_, reader, __):
                first = await read_chunk(reader)
                shutdown = asyncio.create_task(running.shutdown(drain_s))
                text = first or b""
                while chunk := await read_chunk(reader):
                    text += chunk
                await shutdown
                assert not running.listening and not running.connections
                return text

    aborted, drained = asyncio.run(stopped(0.0, 8_000)), asyncio.run(stopped(10.0, 300))
    assert b'"finish_reason":"abort"' in aborted and aborted.endswith(b"data: [DONE]\n\n")
    assert b'"finish_reason":"length"' in drained and drained.count(b"data: ") == 301


def test_many_replicas_in_one_process() -> None:
    """Each has its port, its engine and its log; equal weights answer equally, others differently."""

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            replicas = [
                await stack.enter_async_context(
                    await serve_engine(engine_options("vllm", speed=200.0, seed=seed))
                )
                for seed in (0, 0, 1)
            ]
            texts = [
                (await post(one, "/v1/completions", {"prompt": "Hi"})).json()["choices"] for one in replicas
            ]
            assert texts[0] == texts[1] != texts[2]
            assert len({one.port for one in replicas}) == 3
            assert [len(one.log) for one in replicas] == [1, 1, 1]

    asyncio.run(main())


def test_a_restart_is_a_new_process_on_the_same_port() -> None:
    """What ran is reset; counters begin at zero and the cache is cold."""

    async def main() -> None:
        async with engine("vllm", speed=1.0) as running:
            port = running.port
            stream = asyncio.create_task(post(running, "/v1/completions", LONG))
            await until(lambda: running.core.stats().generation_tokens > 2)
            await running.restart()
            assert not (await stream).whole
            assert running.port == port
            stats = running.core.stats()
            assert (stats.steps, stats.generation_tokens, running.core.cache.cached) == (0, 0, 0)
            assert (await post(running, "/v1/completions", STREAM)).whole

    asyncio.run(main())


def test_another_model_may_take_its_place() -> None:
    """By itself, and when another process orders it."""

    async def main() -> None:
        async with engine("vllm") as running:
            port = running.port
            await running.restart(dataclasses.replace(running.options, model="other"))
            assert await names(running) == ["other"]
            order = {"model": "third", "extra": {"version": "0.40.0"}}
            assert (await post(running, "/_sim/restart", order)).status == 202
            async with asyncio.timeout(10):
                while running.options.model != "third" or not running.listening:
                    await asyncio.sleep(0.01)
            assert await names(running) == ["third"]
            assert (await get(running, "/version")).json() == {"version": "0.40.0"}
            assert running.port == port
            assert (await post(running, "/_sim/restart", {"modell": "x"})).status == 400

    asyncio.run(main())


async def names(running: RunningEngine) -> list[str]:
    return [card["id"] for card in (await get(running, "/v1/models")).json()["data"]]


def test_a_mistake_in_a_handler_is_reported_and_answered() -> None:
    """A simulation that fails says so instead of hanging its client."""

    async def main() -> None:
        async with engine("vllm") as running:
            reports: list[str] = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: reports.append(str(context["message"])))
            running.core.submit = None  # type: ignore[assignment,method-assign]
            reply = await post(running, "/v1/completions", {"prompt": "Hi"})
            assert (reply.status, reply.text) == (500, "Internal Server Error")
            assert reports == ["handler of /v1/completions failed"]

    asyncio.run(main())


def test_unknown_dialects_are_refused() -> None:
    """By name, before anything is opened."""
    with pytest.raises(KeyError, match="nope"):
        engine_options("nope")
