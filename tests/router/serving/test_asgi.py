"""The plain ASGI front end, with servers that are slow, that leave, and that fail."""

import asyncio
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from router.asgi import AsgiApp
from router.config.decode import decode
from router.serving.asgi import AnswerCut, AsgiExchange, InferenceApp, Message
from router.serving.head import Budget
from tests.support.flow import LAST_PIECES, WHOLE, Flow, answers, hang, piece, plays, through
from tests.support.loops import run_strictly
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, chunk
from tests.support.raw_client import CHAT, STREAMED_CHAT, events_in
from tests.support.routers import config_text
from tests.support.scripted_server import until

CHATS = "/v1/chat/completions"
ENDLESS = STREAMED_CHAT.replace(b',"max_tokens":8', b"")


class Server:
    """One request as an ASGI server gives it to an app: a body in `parts`, then silence until it leaves."""

    def __init__(self, *parts: bytes, path: str = CHATS, **scope: object) -> None:
        headers = [(b"Content-Type", b"application/json"), (b"X-Request-ID", b"mine")]
        self.scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": path, "headers": headers, **scope,
        }  # fmt: skip
        self.left = asyncio.Event()
        self.room = asyncio.Semaphore(1_000_000)
        """How many messages more it takes."""
        self.pace_s = 0.0
        self.refuses: Exception | None = None
        self.sent: list[Message] = []
        self.received = 0
        self._parts = list(parts)

    async def receive(self) -> Message:
        self.received += 1
        if self._parts:
            part = self._parts.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(self._parts)}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.refuses is not None:
            raise self.refuses
        await self.room.acquire()
        await asyncio.sleep(self.pace_s)
        self.sent.append(message)

    async def run(self, app: InferenceApp) -> None:
        async with asyncio.timeout(20):
            await app(self.scope, self.receive, self.send)

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def complete(self) -> bool:
        """Whether the answer has an end, one, and at its end."""
        more = [message["more_body"] for message in self.sent[1:]]
        return more.count(False) == 1 and more[-1] is False


def app_of(flow: Flow, **budget: Any) -> InferenceApp:
    return InferenceApp(flow.router.inference, Budget(**budget))


def test_a_whole_answer() -> None:
    """The body may come in pieces and headers in any case; one start, a length, one end."""

    async def test(flow: Flow) -> None:
        server = Server(CHAT[:10], b"", CHAT[10:])
        await server.run(app_of(flow))
        assert server.status == 200
        assert server.headers[b"content-length"] == b"%d" % len(server.body)
        assert server.headers[b"x-request-id"] == b"mine"
        assert server.complete

    through(test, answers())


@pytest.mark.parametrize("name", [b"Authorization", b"X-Api-Key"])
def test_two_keys_are_no_key(name: bytes) -> None:
    """What reads the first and what reads the last must not see different callers; nor does `serve`."""

    async def test(flow: Flow) -> None:
        server = Server(CHAT)
        server.scope["headers"] += [(name, b"Bearer one"), (name.lower(), b"Bearer other")]
        await server.run(app_of(flow))
        assert server.status == 400
        assert name.lower() in server.body

    through(test, answers())


def test_a_stream_is_sent_as_it_comes() -> None:
    """Not when it is over."""
    go_on = asyncio.Event()

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(piece("one")))
        await go_on.wait()
        await connection.send(chunk(LAST_PIECES) + LAST_CHUNK)

    async def test(flow: Flow) -> None:
        server = Server(STREAMED_CHAT)
        running = asyncio.ensure_future(server.run(app_of(flow)))
        await until(lambda: b"one" in server.body if server.sent else False)
        go_on.set()
        await running
        assert b"content-length" not in server.headers
        assert events_in(server.body)[-1] == b"[DONE]"
        assert server.complete

    through(test, script)


@pytest.mark.parametrize("root", ["", "/llm", "/v1"])
def test_the_servers_root_path_is_no_part_of_the_path(root: str) -> None:
    """`uvicorn --root-path /llm`, or a mount below it."""

    async def test(flow: Flow) -> None:
        server = Server(CHAT, path=root + CHATS, root_path=root)
        await server.run(app_of(flow))
        assert server.status == 200

    through(test, answers())


def test_a_body_that_is_too_large() -> None:
    """413 as soon as it is, and no more of it is read."""

    async def test(flow: Flow) -> None:
        server = Server(*[b"x" * 100] * 50)
        await server.run(app_of(flow, max_body_bytes=1000))
        assert (server.status, server.received) == (413, 11)
        assert flow.events[0].outcome == "body_too_large"
        assert server.complete

    through(test, answers())


def test_a_body_that_does_not_come() -> None:
    """408 after `body_timeout_s`."""

    async def test(flow: Flow) -> None:
        server = Server()
        await server.run(app_of(flow, body_timeout_s=0.1))
        assert server.status == 408
        assert flow.events[0].outcome == "body_timeout"

    through(test, answers())


def test_a_client_that_leaves_before_its_body_is_there() -> None:
    """There is nobody to answer and nothing to tell of."""

    async def test(flow: Flow) -> None:
        server = Server()
        server.left.set()
        await server.run(app_of(flow))
        assert server.sent == []
        assert flow.events == []

    through(test, answers())


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_leaves(begun: bool) -> None:
    """The replica is told; nothing more is sent, and the app is done."""
    gone = asyncio.Event()

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(STREAM_HEAD + chunk(piece()) if begun else b"")
        await connection.closed_by_peer()
        gone.set()

    async def test(flow: Flow) -> None:
        server = Server(STREAMED_CHAT)
        running = asyncio.ensure_future(server.run(app_of(flow)))
        await until(lambda: len(server.sent) == 2 if begun else len(flow.router.watch) == 1)
        before = len(server.sent)
        server.left.set()
        await running
        await asyncio.wait_for(gone.wait(), 5)
        assert len(server.sent) == before
        assert flow.events[0].outcome == "client_left"

    through(test, script)


def test_a_server_that_says_by_an_error_that_the_client_has_gone() -> None:
    """As hypercorn does; the replica is told all the same."""

    async def test(flow: Flow) -> None:
        server = Server(STREAMED_CHAT)
        server.refuses = ConnectionResetError("gone")
        await server.run(app_of(flow))
        assert flow.events[0].outcome == "client_left"

    through(test, plays(STREAM_HEAD, chunk(piece()), then=hang))


def test_a_client_that_takes_nothing_more() -> None:
    """First the replica waits; after `write_stall_s` it is let go, and the app leaves the answer cut."""

    async def babble(connection: PeerConnection) -> None:
        while True:
            await connection.send(chunk(piece("x" * 10_000)))

    async def test(flow: Flow) -> None:
        server = Server(ENDLESS)
        server.room = asyncio.Semaphore(5)
        began = monotonic()
        await server.run(app_of(flow, write_stall_s=0.5))
        assert monotonic() - began >= 0.5
        assert len(server.sent) == 5
        assert not server.complete
        assert flow.events[0].outcome == "client_left"
        assert flow.events[0].bytes_out < 500_000

    through(test, plays(STREAM_HEAD, then=babble))


def test_a_client_that_is_slow_but_steady_gets_it_all() -> None:
    """What counts is that something is taken within `write_stall_s`, not when it is all taken."""
    big = WHOLE.replace(b"hello", b"x" * 1_000_000)

    async def test(flow: Flow) -> None:
        server = Server(CHAT)
        server.pace_s = 0.1
        began = monotonic()
        await server.run(app_of(flow, write_stall_s=0.5))
        assert monotonic() - began > 1
        assert server.complete
        assert len(server.body) == int(server.headers[b"content-length"]) > 1_000_000

    through(test, answers(big))


def test_the_replica_waits_and_goes_on_with_the_client() -> None:
    """Paused when much is waiting, resumed once when half of that has been taken."""

    async def run() -> None:
        told: list[str] = []
        server = Server()
        exchange = AsgiExchange(server.scope, b"", monotonic(), 60)
        exchange.on_pause, exchange.on_resume = lambda: told.append("pause"), lambda: told.append("resume")
        server.room = asyncio.Semaphore(0)
        delivering = asyncio.ensure_future(exchange.deliver(server.send))
        await asyncio.sleep(0)
        exchange.start(200, [], None)
        for _ in range(4):
            exchange.write(b"x" * 20_000)
        assert told == ["pause"]
        for _ in range(3):
            server.room.release()
        await until(lambda: len(server.sent) == 3)
        assert told == ["pause"]
        server.room.release()
        await until(lambda: len(told) == 2)
        assert told == ["pause", "resume"]
        for _ in range(4):
            server.room.release()
        exchange.finish()
        await delivering
        assert server.complete
        assert exchange.bytes_out == len(server.body) == 80_000

    run_strictly(run())


def test_a_cut_answer_is_an_error_for_the_server() -> None:
    """It must not be ended as if it were complete."""

    async def run() -> None:
        server = Server()
        exchange = AsgiExchange(server.scope, b"", monotonic(), 60)
        exchange.start(200, [], None)
        exchange.write(b"begun")
        exchange.abort()
        with pytest.raises(AnswerCut):
            await exchange.deliver(server.send)
        assert not server.complete

    run_strictly(run())


def test_nothing_is_sent_to_a_client_that_has_gone() -> None:
    """Whatever the flow still says; and it is told once."""

    async def run() -> None:
        told: list[str] = []
        server = Server()
        exchange = AsgiExchange(server.scope, b"", monotonic(), 60)
        exchange.on_disconnect = lambda: told.append("left")
        exchange.start(200, [], None)
        exchange.write(b"one")
        exchange.lost()
        exchange.lost()
        exchange.write(b"two")
        exchange.finish()
        await exchange.deliver(server.send)
        assert (server.sent, told, exchange.disconnected) == ([], ["left"], True)

    run_strictly(run())


def test_the_app_needs_its_lifespan(tmp_path: Path) -> None:
    """Without one it refuses to serve; a start that fails is said in the server's words."""

    async def run() -> None:
        config = config_text('url = "http://127.0.0.1:9", engine = "vllm"')
        app = AsgiApp(decode(config, "test.toml"))
        server = Server(CHAT)
        with pytest.raises(RuntimeError, match="lifespan"):
            await app(server.scope, server.receive, server.send)

        log = f'access_log = "{tmp_path}/no/such/directory.log"'
        app = AsgiApp(decode(config.replace('access_log = "off"', log), "test.toml"))
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "lifespan.startup"}

        async def send(message: Message) -> None:
            sent.append(message)

        await app({"type": "lifespan"}, receive, send)
        assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
        assert "directory.log" in sent[0]["message"]

    run_strictly(run())
