"""How the outputs of generations become an answer: event by event, or all together at the end."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from loadtest.engine.core import Generation
from loadtest.engine.dialect import GatheredResponse, Refusal, StreamResponse
from loadtest.engine.faults import HEAD, START, Kind, due
from loadtest.engine.generation import gathered
from loadtest.engine.http1 import LAST_CHUNK, chunk
from loadtest.engine.sampling import Output

if TYPE_CHECKING:
    from loadtest.engine.exchange import Exchange


class Feed(Protocol):
    """Pushes outputs into an exchange."""

    @property
    def generations(self) -> tuple[Generation, ...]: ...

    def start(self) -> None: ...

    def finish_early(self) -> None:
        """End the body now, in good form if that is possible."""


class StreamFeed:
    """Each output's events leave as chunks of one write."""

    def __init__(self, exchange: "Exchange", reply: StreamResponse) -> None:
        self._exchange = exchange
        self._reply = reply
        self._remaining = len(reply.generations)
        self._without_done = any(fault.kind is Kind.NO_DONE for fault in exchange.script)

    @property
    def generations(self) -> tuple[Generation, ...]:
        return self._reply.generations

    def start(self) -> None:
        """Send the head, if it does not wait, and take outputs from now on."""
        if not self._reply.head_with_first_output:
            self._send_head(200)
        for index, generation in enumerate(self._reply.generations):
            generation.subscribe(partial(self._receive, index))

    def _receive(self, index: int, output: Output) -> None:
        exchange = self._exchange
        if exchange.over:
            return
        if output.finish_reason == "error":
            self._fail(self._reply.generations[index].error or "")
            return
        if not exchange.head_sent:
            self._send_head(200)
        self._send(self._reply.encoder.output(index, output))
        self._remaining -= output.finish_reason is not None
        if not exchange.count(len(output.token_ids)) and not self._remaining:
            self._send(self._reply.encoder.end())
            self.finish_early()

    def _fail(self, message: str) -> None:
        if not self._exchange.head_sent:
            self._send_head(self._reply.first_error_status)
        events = self._reply.encoder.error(message)
        self._exchange.abort_unfinished()
        if events is None:
            self._exchange.end(reuse=False)
            return
        self._send(events)
        self.finish_early()

    def _send_head(self, status: int) -> None:
        reply = self._reply
        headers = (*reply.headers, ("content-type", reply.content_type), ("transfer-encoding", "chunked"))
        self._exchange.send_head(status, headers)
        if reply.keepalive is not None:
            self._keep_alive(*reply.keepalive)

    def _send(self, events: Sequence[bytes]) -> None:
        if self._without_done:
            events = [event for event in events if not event.rstrip().endswith(b"[DONE]")]
        self._exchange.write(b"".join(map(chunk, events)))

    def finish_early(self) -> None:
        """The last chunk."""
        self._exchange.write(LAST_CHUNK)
        self._exchange.complete()

    def _keep_alive(self, silence_s: float, comment: bytes) -> None:
        """Send the comment if the stream was silent for so long, and look again when it could be next."""
        exchange = self._exchange
        if exchange.over:
            return
        if time.monotonic() - exchange.written_s >= silence_s:
            exchange.write(chunk(comment))
        wait = max(0.0, exchange.written_s + silence_s - time.monotonic())
        asyncio.get_running_loop().call_later(wait, self._keep_alive, silence_s, comment)


class GatherFeed:
    """All outputs are kept until every generation is complete."""

    def __init__(self, exchange: "Exchange", reply: GatheredResponse) -> None:
        self._exchange = exchange
        self._reply = reply
        self._remaining = len(reply.generations)
        self._outputs: list[list[Output]] = [[] for _ in reply.generations]

    @property
    def generations(self) -> tuple[Generation, ...]:
        return self._reply.generations

    def start(self) -> None:
        """Take outputs from now on."""
        early = due(self._exchange.script, START, HEAD)
        self._exchange.strike([fault for fault in early if fault.kind in (Kind.ERROR, Kind.ABORT)])
        for index, generation in enumerate(self._reply.generations):
            generation.subscribe(partial(self._receive, index))

    def _receive(self, index: int, output: Output) -> None:
        exchange = self._exchange
        if exchange.over:
            return
        if output.finish_reason == "error":
            exchange.abort_unfinished()
            message = self._reply.generations[index].error or ""
            exchange.send_whole(exchange.replica.dialect.error(500, message))
            return
        self._outputs[index].append(output)
        self._remaining -= output.finish_reason is not None
        if not exchange.count(len(output.token_ids)) and not self._remaining:
            self._render()

    def _render(self) -> None:
        try:
            response = self._reply.render(tuple(map(gathered, self._outputs)))
        except Refusal as refusal:
            response = refusal.response
        self._exchange.send_whole(response)

    def finish_early(self) -> None:
        """A whole answer has no good form to end early in: the connection is closed."""
        self._exchange.end(reuse=False)
