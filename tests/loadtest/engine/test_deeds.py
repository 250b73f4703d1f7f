import asyncio
import contextlib
import json
from typing import Any

import pytest

from loadtest.engine.server import RunningEngine
from tests.support.engine_client import Reply, engine, get, opened, post, read_chunk, until

STREAM = {"prompt": "Hi", "max_tokens": 6, "ignore_eos": True, "stream": True}
WHOLE = {**STREAM, "stream": False}


async def faulty(running: RunningEngine, fault: str, body: object = STREAM) -> Reply:
    return await post(running, "/v1/completions", body, {"x-fault": fault})


def struck(fault: str, body: object = STREAM) -> tuple[Reply, RunningEngine]:
    """The answer to one request with a fault, and the replica after it."""

    async def main() -> tuple[Reply, RunningEngine]:
        async with engine("vllm") as running:
            reply = await faulty(running, fault, body)
            assert running.log[0].faults == [fault]
            assert [(event.fault, event.path) for event in running.faults.events] == [
                (fault, "/v1/completions")
            ]
            await until(lambda: running.core.stats().running == 0)
            assert running.core.stats().blocks_used == 0
            assert (await post(running, "/v1/completions", WHOLE)).status == 200
            return reply, running

    return asyncio.run(main())


def breaking(fault: str, body: object = STREAM) -> BaseException:
    """The error that a client sees who gets no head at all."""
    try:
        struck(fault, body)
    except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        return error
    raise AssertionError("an answer came")


def words(reply: Reply) -> int:
    return sum(bool(event["choices"][0]["text"]) for event in reply.events() if event.get("choices"))


@pytest.mark.parametrize("body", [STREAM, WHOLE])
def test_status_with_the_dialects_own_body(body: object) -> None:
    """The status comes instead of an answer, and the engine is never asked."""
    reply, _ = struck("status=503", body)
    assert reply.status == 503 and reply.whole
    assert reply.json()["error"]["code"] == 503


def test_reset_before_the_head() -> None:
    """The connection is reset before any byte."""
    assert isinstance(breaking("reset"), ConnectionResetError)
    assert isinstance(breaking("reset@3", WHOLE), ConnectionResetError)


def test_reset_after_the_head() -> None:
    """The status line arrives, then the reset."""
    reply, _ = struck("reset@head")
    assert (reply.status, reply.chunks, reply.whole) == (200, [], False)


def test_reset_after_tokens() -> None:
    """Exactly so many tokens arrive before the reset."""
    reply, _ = struck("reset@4")
    assert (words(reply), reply.whole) == (4, False)


def test_half_close() -> None:
    """The server's end comes in the middle of the body; the client may still write."""
    assert isinstance(breaking("half_close"), asyncio.IncompleteReadError)
    reply, _ = struck("half_close@2")
    assert (words(reply), reply.whole) == (2, False)


def test_end_early_in_good_form() -> None:
    """The body is whole as HTTP goes, but has neither finish reason nor `[DONE]`."""
    reply, _ = struck("end@3")
    assert (words(reply), reply.whole) == (3, True)
    assert b"[DONE]" not in reply.body and b'"finish_reason":"' not in reply.body


def test_truncated_chunk() -> None:
    """A chunk is announced that never comes."""
    reply, _ = struck("truncate_chunk@2")
    assert (words(reply), reply.whole) == (2, False)


def test_error_inside_the_stream() -> None:
    """After so many tokens the dialect's error event and whatever the engine sends after it."""
    reply, _ = struck("error@2")
    assert words(reply) == 2
    assert reply.body.endswith(b'"param": null, "code": 500}}\n\ndata: [DONE]\n\n')


def test_error_before_the_first_token() -> None:
    """The very first event is the error, though the status was 200."""
    reply, _ = struck("error")
    assert reply.status == 200 and reply.chunks[0].startswith(b'data: {"error": ')


@pytest.mark.parametrize("fault", ["error", "error@3"])
def test_error_of_a_whole_answer(fault: str) -> None:
    """Nothing was sent yet, so it is an honest 500."""
    reply, _ = struck(fault, WHOLE)
    assert (reply.status, reply.json()["error"]["type"]) == (500, "InternalServerError")


def test_abort_after_tokens() -> None:
    """The engine's abort ends the stream like any other end."""
    reply, running = struck("abort@2")
    assert words(reply) == 2
    assert reply.events()[-1]["choices"][0]["finish_reason"] == "abort"
    assert reply.body.endswith(b"data: [DONE]\n\n")
    assert running.core.stats().finished["abort"] == 1


@pytest.mark.parametrize("fault", ["abort", "abort@2"])
def test_abort_of_a_whole_answer(fault: str) -> None:
    """It is a 200 that says `abort`."""
    reply, _ = struck(fault, WHOLE)
    assert (reply.status, reply.json()["choices"][0]["finish_reason"]) == (200, "abort")


def test_missing_done() -> None:
    """Everything but the end marker."""

    async def main() -> None:
        async with engine("vllm") as running:
            reply = await faulty(running, "no_done")
            assert reply.whole and b"[DONE]" not in reply.body
            assert reply.events()[-1]["choices"][0]["finish_reason"] == "length"

    asyncio.run(main())


def test_junk_instead_of_http() -> None:
    """Bytes that no HTTP client can take for an answer."""

    async def main() -> bytes:
        async with engine("vllm") as running:
            reader, writer = await asyncio.open_connection(running.host, running.port)
            writer.write(
                b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nx-fault: junk\r\ncontent-length: 0\r\n\r\n"
            )
            data = await reader.read()
            writer.close()
            return data

    data = asyncio.run(main())
    assert data and not data.startswith(b"HTTP/")


def test_oversize_head() -> None:
    """A head far above what clients accept."""
    assert isinstance(breaking("oversize_head"), asyncio.LimitOverrunError)


def test_extra_bytes_after_the_answer() -> None:
    """A second answer that nobody asked for, on a connection that stays open."""

    async def main() -> None:
        async with engine("vllm") as running:
            body = json.dumps(WHOLE).encode()
            headers = {"content-type": "application/json", "x-fault": "extra_bytes"}
            async with opened(running, "POST", "/v1/completions", body, headers) as (reply, reader, _):
                await reader.readexactly(int(reply.headers["content-length"]))
                assert (await reader.readuntil(b"extra")).startswith(b"HTTP/1.1 200 OK")
                assert len(running.connections) == 1

    asyncio.run(main())


@pytest.mark.parametrize(("fault", "arrived"), [("hang@head", 0), ("hang@2", 2)])
def test_hang_after_the_beginning(fault: str, arrived: int) -> None:
    """What was sent arrives, then nothing at all, until the client gives up."""

    async def main() -> None:
        async with engine("vllm") as running:
            headers = {"content-type": "application/json", "x-fault": fault}
            async with opened(running, "POST", "/v1/completions", json.dumps(STREAM).encode(), headers) as (
                reply,
                reader,
                _,
            ):
                chunks = [await read_chunk(reader) for _ in range(arrived)]
                assert reply.status == 200 and all(chunks)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.1)
            await until(lambda: running.log[0].client_closed_s is not None)

    asyncio.run(main())


def test_hang_before_the_head() -> None:
    """Accepted, read, never answered; the log shows when the client gave up."""

    async def main() -> None:
        async with engine("vllm") as running:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(faulty(running, "hang"), 0.1)
            await until(lambda: running.log[0].client_closed_s is not None)
            assert running.log[0].first_byte_s is None

    asyncio.run(main())


def test_hang_for_a_while() -> None:
    """After the pause everything comes, and comes whole."""
    reply, _ = struck("hang=0.1@2")
    assert (words(reply), reply.whole) == (6, True)


def test_drip() -> None:
    """Byte by byte, but all of it."""

    async def main() -> None:
        async with engine("vllm") as running:
            loop = asyncio.get_running_loop()
            began = loop.time()
            reply = await faulty(running, "drip=0.001@5", {**STREAM, "max_tokens": 6})
            assert reply.whole and words(reply) == 6
            assert loop.time() - began > 0.2

    asyncio.run(main())


def test_a_dying_replica() -> None:
    """All its connections are reset and nobody listens, until it is started again."""

    async def main() -> None:
        async with engine("vllm", speed=1.0) as running:
            other = asyncio.create_task(post(running, "/v1/completions", {**STREAM, "max_tokens": 5_000}))
            await until(lambda: running.core.stats().running == 1)
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await faulty(running, "die")
            assert not (await other).whole
            assert running.log[0].ended_s is not None and running.log[0].client_closed_s is None
            with pytest.raises(ConnectionRefusedError):
                await get(running, "/health")

    asyncio.run(main())


def on_port(*faults: str) -> Any:
    """A replica whose port has these faults."""

    @contextlib.asynccontextmanager
    async def made() -> Any:
        async with engine("vllm") as running:
            running.faults.set(*faults)
            yield running

    return made()


def test_refused_connections_come_back() -> None:
    """Nobody listens for the given time; then the same port answers again."""

    async def main() -> None:
        async with on_port("refuse=0.1") as running:
            port = running.port
            with pytest.raises(ConnectionRefusedError):
                await get(running, "/health")
            await until(lambda: running.listening)
            assert running.port == port
            assert (await get(running, "/health")).status == 200

    asyncio.run(main())


def test_refusal_can_be_lifted() -> None:
    """Clearing the script listens again; requests that run go on meanwhile."""

    async def main() -> None:
        async with engine("vllm", speed=2.0) as running:
            stream = asyncio.create_task(post(running, "/v1/completions", {**STREAM, "max_tokens": 1_000}))
            await until(lambda: running.core.stats().running == 1)
            running.faults.set("refuse")
            with pytest.raises(ConnectionRefusedError):
                await get(running, "/health")
            running.faults.clear()
            await until(lambda: running.listening)
            assert (await get(running, "/health")).status == 200
            running.core.slowdown = 0.01
            assert (await stream).whole

    asyncio.run(main())


def test_black_hole() -> None:
    """Connections are accepted and then nothing, not even for health."""

    async def main() -> None:
        async with on_port("black_hole") as running:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(get(running, "/health"), 0.1)
            assert len(running.log) == 0
            assert running.faults.events[0].fault == "black_hole"

    asyncio.run(main())


def test_health_down_and_health_hang() -> None:
    """Health fails in its own two ways while generation works."""

    async def main() -> None:
        async with on_port("health_down") as running:
            assert (await get(running, "/health")).status == 503
            assert (await post(running, "/v1/completions", WHOLE)).status == 200
            running.faults.set("health_hang")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(get(running, "/health"), 0.1)
            running.faults.clear()
            assert (await get(running, "/health")).status == 200

    asyncio.run(main())


def test_stall_keeps_health_good() -> None:
    """The engine hangs behind a healthy server; requests finish when it goes on."""

    async def main() -> None:
        async with on_port("stall") as running:
            waiting = asyncio.create_task(post(running, "/v1/completions", WHOLE))
            await until(lambda: running.core.stats().waiting == 1)
            assert (await get(running, "/health")).status == 200
            assert running.core.stats().steps == 0
            running.faults.clear()
            assert (await waiting).status == 200

    asyncio.run(main())


def test_a_dead_engine_behind_a_live_server() -> None:
    """Health says 503, requests get the dialect's 500; clearing brings it back."""

    async def main() -> None:
        async with on_port("dead") as running:
            assert (await get(running, "/health")).status == 503
            reply = await post(running, "/v1/completions", WHOLE)
            assert (reply.status, reply.json()["error"]["type"]) == (500, "InternalServerError")
            running.faults.clear()
            assert (await post(running, "/v1/completions", WHOLE)).status == 200

    asyncio.run(main())


def test_slow_port() -> None:
    """Every step takes so many times as long."""

    async def main() -> None:
        async with on_port("slow=30") as running:
            await post(running, "/v1/completions", WHOLE)
            slow = running.core.stats().busy_s
            running.faults.clear()
            await post(running, "/v1/completions", WHOLE)
            assert slow > 20 * (running.core.stats().busy_s - slow)

    asyncio.run(main())


def test_port_scripts_hit_requests() -> None:
    """A fault of the port needs no marker and ends after its times."""

    async def main() -> None:
        async with on_port("status=500;times=2") as running:
            statuses = [(await post(running, "/v1/completions", WHOLE)).status for _ in range(3)]
            assert statuses == [500, 500, 200]

    asyncio.run(main())


def test_marker_in_the_prompt() -> None:
    """The body can carry the fault, for clients that cannot send headers."""

    async def main() -> None:
        async with engine("vllm") as running:
            reply = await post(running, "/v1/completions", {**STREAM, "prompt": "x [[fault:end@1]]"})
            assert words(reply) == 1
            bad = await post(running, "/v1/completions", {**STREAM, "prompt": "[[fault:nonsense]]"})
            assert bad.status == 400 and "nonsense" in bad.text

    asyncio.run(main())
