"""The end of a router process: settling, draining, last words, and the second signal."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.loops import run_strictly
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, Peer, PeerConnection, answer, chunk, scripted_peer
from tests.support.raw_client import CHAT, STREAMED_CHAT, RawClient, events_in, get, post, raw_client
from tests.support.routers import RunningRouter, config_text, running_router
from tests.support.scripted_server import until

PIECE = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
LAST_PIECE = PIECE.replace(b'"finish_reason":null', b'"finish_reason":"stop"') + b"data: [DONE]\n\n"
WHOLE = b'{"id":"1","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}'


class Fleet:
    """A replica that begins every stream, and ends it when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.begun = 0
        self.left = 0

    async def script(self, connection: PeerConnection) -> None:
        while True:
            head, body = await connection.request()
            if head.startswith(b"GET "):
                await connection.send(answer(b""))
                continue
            self.begun += 1
            streams = b'"stream":true' in body
            if streams:
                await connection.send(STREAM_HEAD + chunk(PIECE))
            leaving = asyncio.ensure_future(connection.reader.read(1))
            going_on = asyncio.ensure_future(self.go_on.wait())
            await asyncio.wait({leaving, going_on}, return_when=asyncio.FIRST_COMPLETED)
            going_on.cancel()
            if leaving.done():
                self.left += 1
                return
            leaving.cancel()
            await connection.send(chunk(LAST_PIECE) + LAST_CHUNK if streams else answer(WHOLE))
            return


def draining(
    test: Callable[[RunningRouter, Fleet], Awaitable[None]],
    *,
    settle_s: float = 0,
    drain_timeout_s: float = 30,
) -> None:
    async def run() -> None:
        fleet = Fleet()
        async with scripted_peer(fleet.script) as peer:
            server = f"settle_s = {settle_s}\ndrain_timeout_s = {drain_timeout_s}"
            text = _config(peer, server).replace("settle_s = 0\n", "", 1)
            async with running_router(text) as running:
                await test(running, fleet)

    run_strictly(run())


def _config(peer: Peer, server: str) -> str:
    health = "[health]\ninterval_s = 60"
    return config_text(f'url = "{peer.url}", engine = "vllm"', server=server, more=health)


@contextlib.asynccontextmanager
async def streaming(running: RunningRouter) -> AsyncIterator[RawClient]:
    """A client that has the first piece of its stream."""
    async with raw_client(running.port) as client:
        await client.send(post(STREAMED_CHAT))
        await client.first_piece()
        yield client


async def rest_of(client: RawClient) -> list[bytes]:
    """The events that are still to come; fails unless the body ends with correct framing."""
    return events_in(b"".join([piece async for piece in client.chunks()]))


async def refuses_connections(port: int) -> bool:
    try:
        async with raw_client(port):
            return False
    except OSError:
        return True


async def until_refused(port: int) -> None:
    async with asyncio.timeout(10):
        while not await refuses_connections(port):
            await asyncio.sleep(0.02)


def test_while_settling_the_router_is_not_ready_and_still_serves() -> None:
    """Load balancers look away first; what they still send is answered, and its connection closed."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        fleet.go_on.set()
        async with raw_client(running.port) as client:
            await client.send(get(b"/readyz"))
            assert (await client.answer()).status == 200
        running.process.stop()
        await until(lambda: running.router.front_end.draining)
        async with raw_client(running.port) as client:
            await client.send(get(b"/readyz"))
            ready = await client.answer()
            assert (ready.status, ready.body) == (503, b"draining\n")
        async with raw_client(running.port) as client:
            await client.send(get(b"/livez"))
            assert (await client.answer()).status == 200
        async with raw_client(running.port) as client:
            await client.send(post())
            given = await client.answer()
            assert (given.status, given.headers["connection"]) == (200, "close")
            assert await client.closed() == b""

    draining(test, settle_s=30)


def test_open_streams_finish_and_idle_connections_are_closed() -> None:
    """No new connections; the stream that is under way goes on to its `[DONE]`."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        async with streaming(running) as client, raw_client(running.port) as idle:
            running.process.stop()
            assert await idle.closed() == b""
            await until_refused(running.port)
            fleet.go_on.set()
            assert (await rest_of(client))[-1] == b"[DONE]"
            assert await client.closed() == b""

    draining(test)


def test_a_request_that_is_arriving_is_answered() -> None:
    """On a connection whose request has begun, and on one that was accepted last and has not said anything yet."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        fleet.go_on.set()
        request = post(CHAT)
        async with raw_client(running.port) as slow, raw_client(running.port) as new:
            await slow.send(request[:20])
            await until(lambda: running.router.front_end.open_connections == 2)
            running.process.stop()
            await until_refused(running.port)
            await new.send(request)
            await slow.send(request[20:])
            for client in (new, slow):
                assert (await client.answer()).status == 200
                assert await client.closed() == b""

    draining(test)


def test_a_whole_answer_under_way_is_given() -> None:
    """The same where nothing has reached the client yet."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        async with raw_client(running.port) as client:
            await client.send(post(CHAT))
            await until(lambda: fleet.begun == 1)
            running.process.stop()
            await until_refused(running.port)
            fleet.go_on.set()
            assert (await client.answer()).status == 200
            assert await client.closed() == b""

    draining(test)


def test_after_the_drain_open_requests_end_with_a_retryable_error() -> None:
    """Streams with one frame, whole answers with a 503; the replica is told."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        async with streaming(running) as client, raw_client(running.port) as waiting:
            await waiting.send(post(CHAT))
            await until(lambda: fleet.begun == 2)
            running.process.stop()
            events = await rest_of(client)
            assert [json.loads(event)["error"]["code"] for event in events] == ["router_draining"]
            assert await client.closed() == b""
            refused = await waiting.answer()
            assert (refused.status, refused.code) == (503, "router_draining")
            assert refused.headers["x-should-retry"] == "true"
            await until(lambda: fleet.left == 2)

    draining(test, drain_timeout_s=0.2)


@pytest.mark.parametrize("settle_s", [0, 60])
def test_a_second_signal_ends_it_at_once(settle_s: float) -> None:
    """Neither the settling nor the drain is waited for; clients still hear why."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        async with streaming(running) as client:
            running.process.stop()
            await until(lambda: running.router.front_end.draining)
            running.process.stop()
            (event,) = await rest_of(client)
            assert json.loads(event)["error"]["code"] == "router_draining"
            await until_refused(running.port)

    draining(test, settle_s=settle_s, drain_timeout_s=600)


def test_a_client_that_does_not_read_cannot_hold_up_the_end() -> None:
    """Its connection is cut after the last words."""

    async def test(running: RunningRouter, fleet: Fleet) -> None:
        async with raw_client(running.port, receive_buffer=4096) as client:
            await client.send(post(STREAMED_CHAT))
            await client.first_piece()
            (connection,) = running.router.front_end._own
            connection.write(b"x" * 20_000_000)  # type: ignore[attr-defined]
            running.process.stop()
            running.process.stop()
            await until(lambda: not running.router.front_end.open_connections)

    draining(test)


async def _start(config: Path, *, expect: bytes) -> asyncio.subprocess.Process:
    """`turnout serve` in a process of its own, from the moment it says what is expected."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "router", "serve", "--config", str(config),
        stderr=asyncio.subprocess.PIPE, env={**os.environ},
    )  # fmt: skip
    assert child.stderr is not None
    async with asyncio.timeout(30):
        while line := await child.stderr.readline():
            if expect in line:
                return child
    raise AssertionError("turnout serve has ended early")


@pytest.mark.parametrize(("signals", "code"), [(1, 0), (2, 130)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_exit_codes(tmp_path: Path, number: signal.Signals, signals: int, code: int) -> None:
    """0 after a clean end, 130 after a hurried one, and nothing else is said."""

    async def run() -> None:
        fleet = Fleet()
        async with scripted_peer(fleet.script) as peer:
            config = tmp_path / "turnout.toml"
            settle_s = 0 if signals == 1 else 60
            text = _config(peer, "").replace("settle_s = 0\n", f"settle_s = {settle_s}\n")
            await asyncio.to_thread(config.write_text, text)
            child = await _start(config, expect=b"turnout serves at")
            assert child.stderr is not None
            for _ in range(signals):
                child.send_signal(number)
                await asyncio.sleep(0.3)
            async with asyncio.timeout(20):
                said = await child.stderr.read()
                assert await child.wait() == code
            assert b"Traceback" not in said

    run_strictly(run())


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """One line that says so, exit code 1, no traceback."""

    async def run() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            text = config_text('url = "http://127.0.0.1:9", engine = "vllm"')
            config = tmp_path / "turnout.toml"
            port = taken.getsockname()[1]
            await asyncio.to_thread(
                config.write_text, text.replace("[server]\nport = 0", f"[server]\nport = {port}")
            )
            child = await _start(config, expect=b"address already in use")
            assert child.stderr is not None
            async with asyncio.timeout(20):
                said = await child.stderr.read()
                assert await child.wait() == 1
            assert b"Traceback" not in said, said.decode()

    run_strictly(run())
