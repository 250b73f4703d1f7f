"""Four simulated vLLM replicas in one process, as cheap as Python allows: they share a core with the client.

They speak vLLM's wire format and think of nothing: an answer is constant bytes, a token one write.
`POST /pace?interval_ms=N` sets the token rate of the streams that start after it.
"""

import asyncio
import gc
import json
import os
import socket
import sys
from typing import cast

import uvloop

from loadtest.bench.frames import (
    json_answer,
    now_us,
    response,
    stream_end,
    stream_start,
    token_template,
    usage_event,
)
from loadtest.bench.pacer import Pacer

# Routers that write a body anew put the small fields before or after the messages, so the text is left alone.
_EDGE_BYTES = 2048
_DEFAULT_TOKENS = 16
_METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 1.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.1
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} 1000.0
"""
_MODELS = json.dumps(
    {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "vllm", "max_model_len": 262144}]}
).encode()


class Upstream:
    """What all connections share: the constant bytes and the pace."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.pacer = Pacer(loop, 0)
        self.connections_made = 0
        self.json_answer = json_answer()
        self.stream_start = stream_start()
        self.token = token_template()
        self._pages = {
            b"/health": response(200, b""),
            b"/version": response(200, b'{"version":"0.27.0"}'),
            b"/v1/models": response(200, _MODELS),
            b"/metrics": response(200, _METRICS, "text/plain; version=0.0.4; charset=utf-8"),
        }
        self._not_found = response(404, b'{"detail":"Not Found"}')

    def page(self, target: bytes) -> bytes:
        """The answer to anything that is not a chat completion."""
        path, _, query = target.partition(b"?")
        if path == b"/pace":
            self.pacer = Pacer(self.loop, int(query.removeprefix(b"interval_ms=")))
            return response(200, b"{}")
        if path == b"/connections":
            return response(200, b"%d" % self.connections_made)
        return self._pages.get(path, self._not_found)

    def connection(self) -> "Connection":
        return Connection(self)


class Connection(asyncio.Protocol):
    """One keep-alive connection of a router; requests come one after the other, never pipelined."""

    __slots__ = ("_end", "_fd", "_missing", "_pieces", "_tokens_left", "_transport", "_upstream")

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._transport: asyncio.Transport
        self._fd = -1
        self._pieces: list[bytes] = []
        self._missing = 0
        self._tokens_left = 0
        self._end = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._upstream.connections_made += 1
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._fd = sock.fileno()
        self._transport.set_write_buffer_limits(high=0)

    def connection_lost(self, _exc: Exception | None) -> None:
        self._fd = -1
        self._tokens_left = 0

    def data_received(self, data: bytes) -> None:
        if self._pieces:
            self._pieces.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return
            data = b"".join(self._pieces)
            self._pieces = []
        size, body_at = _request_size(data)
        if len(data) < size:
            self._pieces = [data]
            self._missing = size - len(data)
            return
        self._answer(data, body_at)

    def _answer(self, data: bytes, body_at: int) -> None:
        if not data.startswith(b"POST /v1/chat/completions "):
            self._send(self._upstream.page(data.split(b" ", 2)[1]))
            return
        edges = data[body_at : body_at + _EDGE_BYTES] + data[-_EDGE_BYTES:]
        if b'"stream":true' not in edges and b'"stream": true' not in edges:
            self._send(self._upstream.json_answer)
            return
        tokens = _number_after(edges, b"max_tokens", 0) or _number_after(edges, b"max_completion_tokens", 0)
        self._tokens_left = tokens or _DEFAULT_TOKENS
        usage = b'"include_usage":true' in edges or b'"include_usage": true' in edges
        self._end = stream_end(usage_event(self._tokens_left) if usage else b"")
        self._send(self._upstream.stream_start)
        if self.write_token():
            self._upstream.pacer.add(self)

    def write_token(self) -> bool:
        """The next content chunk, or the end; false when the stream is over or the socket takes no more."""
        if self._tokens_left == 0:
            end, self._end = self._end, b""
            self._send(end)
            return False
        self._tokens_left -= 1
        return self._send(self._upstream.token % now_us())

    def resume_writing(self) -> None:
        if self._end:
            self._upstream.pacer.add(self)

    def _send(self, data: bytes) -> bool:
        """Straight to the socket, so that every call is one segment; false when the socket took less."""
        if self._fd < 0:
            self._end = b""
            return False
        if self._transport.get_write_buffer_size():
            self._transport.write(data)
            return False
        try:
            sent = os.write(self._fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._transport.abort()
            return False
        if sent < len(data):
            self._transport.write(data[sent:])
            return False
        return True


def _request_size(data: bytes) -> tuple[int, int]:
    """Bytes of head and body, and where the body begins; one more than there is while the head has no end."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return len(data) + 1, 0
    return end + 4 + _number_after(data[:end].lower(), b"content-length", 0), end + 4


def _number_after(text: bytes, name: bytes, default: int) -> int:
    """The integer behind the first `name`, whatever of `":` and spaces stands between."""
    found = text.find(name)
    if found < 0:
        return default
    digits = text[found + len(name) : found + len(name) + 16].lstrip(b'": ')
    end = 0
    while digits[end : end + 1].isdigit():
        end += 1
    return int(digits[:end]) if end else default


async def serve(replicas: int) -> None:
    """Listens on free ports of 127.0.0.1 and prints them as a JSON list."""
    loop = asyncio.get_running_loop()
    upstream = Upstream(loop)
    servers = [
        await loop.create_server(upstream.connection, "127.0.0.1", 0, backlog=1024) for _ in range(replicas)
    ]
    print(json.dumps([server.sockets[0].getsockname()[1] for server in servers]), flush=True)
    gc.collect()
    gc.freeze()
    gc.disable()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
