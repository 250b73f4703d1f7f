"""The direct front end, byte by byte over real sockets, in front of a scripted replica."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from tests.support.peers import LAST_CHUNK, STREAM_HEAD, PeerConnection, Script, answer, chunk, scripted_peer
from tests.support.routers import RunningRouter, config_text, running_router

CHAT = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
COMPLETE = b'{"id":"1","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"total_tokens":2,"completion_tokens":1}}'


def post(body: bytes = CHAT, *, path: bytes = b"/v1/chat/completions", headers: bytes = b"") -> bytes:
    return (
        b"POST %b HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n%b"
        % (path, headers, len(body), body)
    )


async def echo_replica(connection: PeerConnection) -> None:
    """Answers every inference POST with a completion, everything else with 200."""
    while True:
        head, _body = await connection.request()
        if head.startswith(b"POST "):
            await connection.send(answer(COMPLETE))
        else:
            await connection.send(answer(b""))


class Client:
    """A raw client connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)
        }
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        else:
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(lines[0].split(" ")[1]), headers, body

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def closed(self) -> bytes:
        """What still comes before the server closes."""
        return await asyncio.wait_for(self.reader.read(), 5)


def code_of(body: bytes) -> str:
    code: str = msgspec.json.decode(body)["error"]["code"]
    return code


def through(
    test: Callable[[RunningRouter, Callable[[], Awaitable[Client]]], Awaitable[None]],
    *,
    script: Script = echo_replica,
    server: str = "",
    more: str = "",
) -> None:
    async def run() -> None:
        async with scripted_peer(script) as peer:
            text = config_text(f'url = "{peer.url}", engine = "vllm"', server=server, more=more)
            async with running_router(text) as running:
                clients: list[Client] = []

                async def connect() -> Client:
                    clients.append(Client(*await asyncio.open_connection("127.0.0.1", running.port)))
                    return clients[-1]

                try:
                    await test(running, connect)
                finally:
                    for client in clients:
                        await client.close()

    asyncio.run(run())


def test_one_connection_serves_many_requests() -> None:
    """Keep-alive, and the answer's own headers."""

    async def test(running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        for number in range(5):
            await client.send(post(headers=b"x-request-id: r-%d\r\n" % number))
            status, headers, body = await client.answer()
            assert status == 200
            assert msgspec.json.decode(body)["model"] == "m"
            assert headers["x-request-id"] == f"r-{number}"
            assert headers["x-turnout-model"] == "m"
            assert headers["x-turnout-version"] == "v1"
            assert headers["x-turnout-replica"].startswith("127.0.0.1:")
            assert headers["x-turnout-attempts"] == "1"
            assert float(headers["x-turnout-overhead-ms"]) >= 0
        assert running.router.front_end.open_connections == 1

    through(test)


@pytest.mark.parametrize("size", [1, 2, 5, 50])
def test_a_request_may_arrive_in_any_pieces(size: int) -> None:
    """Byte by byte too, head and body."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        data = post()
        for at in range(0, len(data), size):
            await client.send(data[at : at + size])
            await asyncio.sleep(0)
        assert (await client.answer())[0] == 200

    through(test)


def test_chunked_requests_are_served_and_the_connection_closed() -> None:
    """Where the next message would begin is not known."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        await client.send(head + chunk(CHAT[:10]) + chunk(CHAT[10:]) + LAST_CHUNK)
        status, headers, _body = await client.answer()
        assert (status, headers["connection"]) == (200, "close")
        assert await client.closed() == b""

    through(test)


def test_pipelined_requests_are_answered_in_order() -> None:
    """Sixteen at once, one at a time."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        await client.send(b"".join(post(headers=b"x-request-id: p-%d\r\n" % i) for i in range(16)))
        for number in range(16):
            status, headers, _body = await client.answer()
            assert (status, headers["x-request-id"]) == (200, f"p-{number}")

    through(test)


def test_other_requests_reach_the_asgi_app_on_the_same_connection() -> None:
    """GET first, then POST, on one connection: handed over and served all the same."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        await client.send(b"GET /v1/models HTTP/1.1\r\nhost: h\r\n\r\n")
        status, _headers, body = await client.answer()
        assert status == 200
        assert [model["id"] for model in msgspec.json.decode(body)["data"]] == ["m", "m@v1"]
        await client.send(post())
        assert (await client.answer())[0] == 200

    through(test)


def test_a_get_after_a_post_is_handed_over() -> None:
    """The other way round."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        await client.send(post())
        assert (await client.answer())[0] == 200
        await client.send(b"GET /livez HTTP/1.1\r\nhost: h\r\n\r\n")
        assert (await client.answer())[2] == b"alive\n"

    through(test)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (post(b"{"), 400, "invalid_json"),
        (post(b"[]"), 400, "invalid_request"),
        (post(b'{"model":"m"}'), 400, "invalid_request"),
        (post(CHAT.replace(b'"m"', b'"nope"')), 404, "model_not_found"),
        (post(CHAT).replace(b"application/json", b"text/plain"), 415, "unsupported_media_type"),
    ],
)
def test_refused_requests_leave_the_connection_usable(data: bytes, status: int, code: str) -> None:
    """Their framing was sound, so the next request is served."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        for _ in range(2):
            await client.send(data)
            got, headers, body = await client.answer()
            assert (got, code_of(body)) == (status, code)
            assert headers["x-should-retry"] == "false"
        await client.send(post())
        assert (await client.answer())[0] == 200

    through(test)


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
            400,
            "invalid_request",
        ),
        (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 999999999\r\n\r\n",
            413,
            "body_too_large",
        ),
        (b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 70_000, 431, "headers_too_large"),
        (b"POST /v1/chat/completions HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
        (b"POST /v1/chat/completions HTTP/1.1\nhost: h\n\n", 400, "invalid_request"),
    ],
)
def test_what_cannot_be_framed_is_answered_once_and_closed(data: bytes, status: int, code: str) -> None:
    """One error, then the end: nothing after it is read as a request."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        await client.send(data + post())
        got, headers, body = await client.answer()
        assert (got, code_of(body), headers["connection"]) == (status, code, "close")
        assert await client.closed() == b""

    through(test)


@pytest.mark.parametrize("part", [post()[:20], post()[:-5]])
def test_a_slow_client_is_told_and_closed(part: bytes) -> None:
    """A head or a body that does not arrive in time is 408."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        await client.send(part)
        status, _headers, body = await client.answer()
        assert (status, code_of(body)) == (408, "body_timeout")
        assert await client.closed() == b""

    through(test, server="head_timeout_s = 0.3\nbody_timeout_s = 0.3")


def test_idle_connections_are_closed_silently() -> None:
    """New ones that never speak, and kept ones that stay silent."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        silent, kept = await connect(), await connect()
        await kept.send(post())
        assert (await kept.answer())[0] == 200
        assert await silent.closed() == b""
        assert await kept.closed() == b""

    through(test, server="head_timeout_s = 0.3\nkeep_alive_s = 0.3")


def test_expect_100_continue() -> None:
    """The body is asked for once the head has been found good, and not when it has not."""

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        data = post(headers=b"expect: 100-continue\r\n")
        await client.send(data[: -len(CHAT)])
        assert (
            await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
            == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        await client.send(CHAT)
        assert (await client.answer())[0] == 200
        await client.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 999999999\r\n\r\n"
        )
        assert (await client.answer())[0] == 413

    through(test)


def test_http_1_0_gets_no_chunks() -> None:
    """Its stream ends where the connection does."""

    async def stream(connection: PeerConnection) -> None:
        await connection.request()
        frame = b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"served","choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}\n\n'
        await connection.send(STREAM_HEAD + chunk(frame) + chunk(b"data: [DONE]\n\n") + LAST_CHUNK)

    async def test(_running: RunningRouter, connect: Callable[[], Awaitable[Client]]) -> None:
        client = await connect()
        data = post(CHAT[:-1] + b',"stream":true}').replace(b"HTTP/1.1", b"HTTP/1.0")
        await client.send(data)
        whole = await client.closed()
        assert b"transfer-encoding" not in whole.partition(b"\r\n\r\n")[0]
        assert whole.endswith(b"data: [DONE]\n\n")

    through(test, script=stream)
