"""The plain ASGI front end: the same flow under any ASGI server, at ASGI's price per token."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from time import monotonic
from typing import Any

from router.api.errors import BodyTimeout, BodyTooLarge, RequestError, TurnoutError
from router.flow.exchange import Header
from router.flow.inference import Inference
from router.serving.head import Budget, require_once

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

log = logging.getLogger("turnout.serving")

_HIGH_WATER_BYTES = 65536
"""What may wait for a slow client before the replica is told to pause; also the most that is sent at once."""


class AnswerCut(Exception):
    """Raised into the ASGI server to make it close a connection whose answer cannot be completed."""


class ClientLeft(Exception):
    """The client went away before its request was complete."""


class AsgiExchange:
    """One ASGI request; see `router.flow.exchange.Exchange`. The flow writes, `deliver` sends."""

    def __init__(self, scope: Scope, body: bytes, received_at: float, write_stall_s: float) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"].removeprefix(scope.get("root_path", ""))
        self.headers: Mapping[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.body = body
        self.received_at = received_at
        self.disconnected = False
        self.bytes_out = 0
        self.on_disconnect: Callable[[], None] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._outbox: deque[Message] = deque()
        self._waiting_bytes = 0
        self._write_stall_s = write_stall_s
        self._stall = asyncio.timeout(None)
        self._paused = False
        self._over = False
        self._cut = False
        self._news = asyncio.Event()

    # ---- the flow ----

    def start(self, status: int, headers: Sequence[Header], length: int | None) -> None:
        if self.disconnected:
            return
        lines = list(headers) if length is None else [*headers, (b"content-length", b"%d" % length)]
        self._outbox.append({"type": "http.response.start", "status": status, "headers": lines})

    def write(self, data: bytes) -> None:
        if self.disconnected or not data:
            return
        self.bytes_out += len(data)
        self._waiting_bytes += len(data)
        for begin in range(0, len(data), _HIGH_WATER_BYTES):
            piece = data[begin : begin + _HIGH_WATER_BYTES]
            self._outbox.append({"type": "http.response.body", "body": piece, "more_body": True})
        self._news.set()
        if self._waiting_bytes > _HIGH_WATER_BYTES and not self._paused:
            self._paused = True
            self._await_reader()
            if self.on_pause is not None:
                self.on_pause()

    def finish(self) -> None:
        if self.disconnected:
            return
        self._outbox.append({"type": "http.response.body", "body": b"", "more_body": False})
        self._over = True
        self._news.set()

    def abort(self) -> None:
        self._over = self._cut = True
        self._news.set()

    # ---- the server ----

    def lost(self) -> None:
        """The client has gone."""
        if self.disconnected or self._over:
            return
        self.disconnected = self._over = True
        self._outbox.clear()
        self._news.set()
        callback, self.on_disconnect = self.on_disconnect, None
        if callback is not None:
            callback()

    async def deliver(self, send: Send) -> None:
        """Send what the flow writes, until it is over.

        Raises `AnswerCut` after `abort`, and `TimeoutError` if the client takes nothing for too long.
        """
        async with self._stall:
            while True:
                while self._outbox:
                    message = self._outbox.popleft()
                    await send(message)
                    self._taken(len(message.get("body", b"")))
                if self._cut:
                    raise AnswerCut
                if self._over:
                    return
                self._news.clear()
                await self._news.wait()

    def _taken(self, size: int) -> None:
        self._waiting_bytes -= size
        if not self._paused:
            return
        if self._waiting_bytes > _HIGH_WATER_BYTES // 2:
            self._await_reader()
            return
        self._paused = False
        self._stall.reschedule(None)
        if self.on_resume is not None:
            self.on_resume()

    def _await_reader(self) -> None:
        self._stall.reschedule(asyncio.get_running_loop().time() + self._write_stall_s)


class InferenceApp:
    """The ASGI app of the inference endpoints."""

    def __init__(self, inference: Inference, budget: Budget) -> None:
        self._inference = inference
        self._budget = budget

    def serve_by(self, inference: Inference, budget: Budget) -> None:
        """Requests from now on."""
        self._inference = inference
        self._budget = budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: TurnoutError | None = None
        body = b""
        try:
            async with asyncio.timeout(self._budget.body_timeout_s):
                body = await self._read(receive)
            require_once([name.decode("latin-1").lower() for name, _ in scope["headers"]])
        except ClientLeft:
            return
        except TimeoutError:
            refusal = BodyTimeout("the request's body did not arrive in time")
        except RequestError as error:
            refusal = error
        exchange = AsgiExchange(scope, body, monotonic(), self._budget.write_stall_s)
        if refusal is not None:
            self._inference.refuse(exchange, refusal)
            await exchange.deliver(send)
            return
        await self._serve(exchange, receive, send)

    async def _serve(self, exchange: AsgiExchange, receive: Receive, send: Send) -> None:
        serving = asyncio.ensure_future(self._inference.serve(exchange))
        listening = asyncio.ensure_future(_listen(exchange, receive))
        try:
            await exchange.deliver(send)
        except OSError:
            pass  # the server says so of a client that has gone; the listener knows too
        finally:
            exchange.lost()
            listening.cancel()
            served, _ = await asyncio.gather(serving, listening, return_exceptions=True)
            if isinstance(served, Exception):
                log.error("a request ended with a defect of the router", exc_info=served)

    async def _read(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            part = message.get("body", b"")
            size += len(part)
            if size > self._budget.max_body_bytes:
                raise BodyTooLarge(f"the request body is larger than {self._budget.max_body_bytes} bytes")
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)


async def _listen(exchange: AsgiExchange, receive: Receive) -> None:
    """Wait for the client to leave."""
    while (await receive())["type"] != "http.disconnect":
        pass
    exchange.lost()
