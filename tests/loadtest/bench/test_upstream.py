"""The simulated replicas, spoken to over real sockets."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

from loadtest.bench.upstream import Upstream

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
Talk = Callable[[Reader, Writer], Awaitable[Any]]


def talk(conversation: Talk) -> Any:
    """Runs the conversation with one replica."""

    async def run() -> Any:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Upstream(loop).connection, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            return await conversation(reader, writer)
        finally:
            writer.close()
            server.close()

    return uvloop.run(run())


def chat(**fields: object) -> bytes:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def read_json(reader: Reader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def read_events(reader: Reader) -> list[str]:
    await reader.readuntil(b"\r\n\r\n")
    pieces = []
    while size := int(await reader.readline(), 16):
        pieces.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return [event.removeprefix("data: ") for event in b"".join(pieces).decode().split("\n\n")[:-1]]


def test_a_plain_chat_is_answered_with_json_again_and_again() -> None:
    """Keep-alive: the second answer comes on the same connection."""

    async def conversation(reader: Reader, writer: Writer) -> list[tuple[int, bytes]]:
        answers = []
        for _ in range(2):
            writer.write(chat())
            answers.append(await read_json(reader))
        return answers

    answers = talk(conversation)
    assert [(status, len(body)) for status, body in answers] == [(200, 600), (200, 600)]


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("interval_ms", [0, 2])
def test_a_stream_holds_the_tokens_asked_for(field: str, interval_ms: int) -> None:
    """Role, tokens, finish reason, `[DONE]`, at any pace; then the connection serves the next request."""

    async def conversation(reader: Reader, writer: Writer) -> list[list[str]]:
        writer.write(b"POST /pace?interval_ms=%d HTTP/1.1\r\n\r\n" % interval_ms)
        await read_json(reader)
        streams = []
        for _ in range(2):
            writer.write(chat(stream=True, **{field: 5}))
            streams.append(await read_events(reader))
        return streams

    for events in talk(conversation):
        choices = [json.loads(event)["choices"][0] for event in events[:-1]]
        assert events[-1] == "[DONE]"
        assert len(choices) == 7
        assert choices[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in choices] == [None] * 6 + ["stop"]


@pytest.mark.parametrize("asked", [True, False])
def test_usage_comes_only_when_asked_for(asked: bool) -> None:
    """The chunk before `[DONE]` counts the tokens if `include_usage` is true."""

    async def conversation(reader: Reader, writer: Writer) -> list[str]:
        writer.write(chat(stream=True, max_tokens=3, stream_options={"include_usage": asked}))
        return await read_events(reader)

    last = json.loads(talk(conversation)[-2])
    assert last.get("usage", {}).get("completion_tokens") == (3 if asked else None)


def test_a_request_may_arrive_in_pieces() -> None:
    """Head and body cut anywhere make one request."""

    async def conversation(reader: Reader, writer: Writer) -> tuple[int, bytes]:
        request = chat(padding="x" * 3000)
        for start, end in ((0, 10), (10, 60), (60, 80), (80, 1500), (1500, len(request))):
            writer.write(request[start:end])
            await writer.drain()
            await asyncio.sleep(0)
        return await read_json(reader)

    status, body = talk(conversation)
    assert (status, len(body)) == (200, 600)


def test_a_reader_that_is_slow_loses_nothing() -> None:
    """When the socket takes no more, the stream leaves the pacer, and goes on where it was when there is room."""

    async def read_late() -> bytes:
        loop = asyncio.get_running_loop()
        upstream = Upstream(loop)
        server = await loop.create_server(upstream.connection, "127.0.0.1", 0)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.sockets[0].getsockname())
            client.sendall(chat(stream=True, max_tokens=40_000))
            client.setblocking(False)
            while not upstream.connections_made or upstream.pacer._eager:
                await asyncio.sleep(0.01)
            received = bytearray()
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += await loop.sock_recv(client, 262144)
        server.close()
        return bytes(received)

    assert uvloop.run(read_late()).count(b"\n\n") == 40_003


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /health", 200),
        ("GET /v1/models", 200),
        ("GET /metrics", 200),
        ("GET /version", 200),
        ("POST /v1/chat/completions/render", 404),
        ("GET /get_server_info", 404),
    ],
)
def test_the_other_paths_are_those_of_vllm(request_line: str, status: int) -> None:
    """What vLLM serves is answered; what it may lack is not found, and nothing else happens."""

    async def conversation(reader: Reader, writer: Writer) -> tuple[int, bytes]:
        writer.write(f"{request_line} HTTP/1.1\r\ncontent-length: 0\r\n\r\n".encode())
        return await read_json(reader)

    assert talk(conversation)[0] == status


def test_a_client_that_leaves_ends_its_stream() -> None:
    """The connection is forgotten in mid-stream; the replica goes on serving others."""

    async def conversation(reader: Reader, writer: Writer) -> tuple[int, bytes]:
        leaver_reader, leaver = await asyncio.open_connection(*writer.get_extra_info("peername"))
        leaver.write(chat(stream=True, max_tokens=1_000_000))
        await leaver_reader.readexactly(1000)
        leaver.transport.abort()
        writer.write(chat())
        return await read_json(reader)

    assert talk(conversation)[0] == 200
