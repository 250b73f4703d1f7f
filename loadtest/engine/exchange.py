"""One request and its answer: runs the handler, lets a feed push what the engine gives, and goes wrong on
cue.

Outputs arrive by callback from the engine's step and are written at once; there is no task per stream after
the handler has returned.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from loadtest.engine.core import EngineDead, Generation
from loadtest.engine.deeds import DEEDS
from loadtest.engine.dialect import GatheredResponse, Handler, Headers, Refusal, Reply, Response
from loadtest.engine.faults import HEAD, START, Fault, Kind, due
from loadtest.engine.feeds import Feed, GatherFeed, StreamFeed
from loadtest.engine.http1 import date_header, head
from loadtest.engine.outlet import Outlet
from loadtest.engine.request_log import ExchangeRecord
from loadtest.engine.sampling import Output

if TYPE_CHECKING:
    from loadtest.engine.server import RunningEngine

_POLL_S: Final = 1.0


class Exchange:
    """From the complete request to the last byte of the answer, or to whatever cuts it short."""

    def __init__(
        self,
        replica: "RunningEngine",
        outlet: Outlet,
        record: ExchangeRecord,
        *,
        keep_alive: bool,
        done: Callable[[bool], None],
    ) -> None:
        self.replica = replica
        self.outlet = outlet
        self.record = record
        self.feed: Feed | None = None
        """What pushes the engine's outputs; None until the handler has returned, and for whole answers."""
        self.script: Sequence[Fault] = ()
        self.over = False
        """Nothing more will be written, whatever comes."""
        self.hung = False
        """Nothing will ever be written again, but nobody was told."""
        self.head_sent = False
        self.written_s = 0.0
        """When bytes were last written, monotonic."""
        self._keep_alive = keep_alive
        self._done = done
        # Of the process that took the request; another one may have taken its place since.
        self._core = replica.core
        self._struck: set[int] = set()
        self._task: asyncio.Task[None] | None = None

    # ---- from the request to a feed ----

    def begin(self, handler: Handler, script: Sequence[Fault]) -> None:
        """Start answering."""
        self.script = script
        if self.strike(due(script, START - 1, START)):
            return
        self._task = asyncio.get_running_loop().create_task(self._answer(handler))
        self._task.add_done_callback(self._answered)

    async def _answer(self, handler: Handler) -> None:
        reply = await self._reply_of(handler)
        if self.over:
            self._discard(reply)
        elif isinstance(reply, Response):
            self.send_whole(reply)
        else:
            self.feed = (
                GatherFeed(self, reply) if isinstance(reply, GatheredResponse) else StreamFeed(self, reply)
            )
            self.feed.start()

    async def _reply_of(self, handler: Handler) -> Reply:
        try:
            return await handler(self.record.request)
        except Refusal as refusal:
            return refusal.response
        except EngineDead as error:
            return self.replica.dialect.error(500, str(error))

    def _discard(self, reply: Reply) -> None:
        """The client was gone before the handler returned."""
        if not isinstance(reply, Response):
            for generation in reply.generations:
                self._core.abort(generation)

    def _answered(self, task: asyncio.Task[None]) -> None:
        """A handler that raised is a mistake of the simulation: report it, and answer a plain 500."""
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        context = {"message": f"handler of {self.record.request.path} failed", "exception": error}
        task.get_loop().call_exception_handler(context)
        if not self.over and not self.head_sent:
            self.send_whole(Response.of_text("Internal Server Error", 500))

    # ---- bytes ----

    def send_whole(self, response: Response) -> None:
        """The complete answer."""
        headers: Headers = (*response.headers, ("content-length", str(len(response.body))))
        if response.content_type is not None:
            headers = (*headers, ("content-type", response.content_type))
        if not self.send_head(response.status, headers):
            self.write(response.body)
            self.complete()

    def send_head(self, status: int, headers: Headers) -> bool:
        """The status line and headers; True if a fault struck right after them and ended the exchange."""
        self.head_sent = True
        self.record.status = status
        common = (date_header(), *self.replica.dialect.traits.server_headers)
        self.write(head(status, (*common, *headers), keep_alive=self._keep_alive))
        return self.strike(due(self.script, START, HEAD))

    def write(self, data: bytes) -> None:
        """Response bytes; dropped when the exchange is over."""
        if self.over or not data:
            return
        self.written_s = time.monotonic()
        if self.outlet.write(data) and self.record.first_byte_s is None:
            self.record.first_byte_s = self.written_s

    def complete(self) -> None:
        """The answer is whole; the connection is used again if both sides like."""
        for fault in self.script:
            if fault.kind is Kind.EXTRA_BYTES and not self.over:
                self._note(fault)
                self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nextra")
        self.end(reuse=self._keep_alive)

    def end(self, *, reuse: bool) -> None:
        """No more of this answer; close the connection unless it is to be used again."""
        if self.over or self.hung:
            return
        self._close_record()
        self._done(reuse)

    def cut(self) -> None:
        """Abort the generations and write no more; the connection is the caller's business."""
        self.abort_unfinished()
        self._close_record()

    def _close_record(self) -> None:
        self.over = True
        self.record.ended_s = time.monotonic()

    # ---- faults ----

    def count(self, tokens: int) -> bool:
        """Count output tokens; True if a fault that is due by now ended the exchange."""
        before = self.record.tokens
        self.record.tokens += tokens
        return bool(self.script) and self.strike(due(self.script, before, before + tokens))

    def strike(self, faults: Sequence[Fault]) -> bool:
        """Do what the script says, each fault once; True if the exchange goes no further."""
        for fault in faults:
            if self.over or id(fault) in self._struck:
                continue
            self._struck.add(id(fault))
            self._note(fault)
            DEEDS[fault.kind](self, fault)
        return self.over

    def _note(self, fault: Fault) -> None:
        self.record.faults.append(fault.text)
        self.replica.faults.note(fault, self.record.request.path)

    def unfinished(self) -> list[Generation]:
        """Generations that still run or wait."""
        generations = self.feed.generations if self.feed is not None else ()
        return [generation for generation in generations if not generation.finished]

    def abort_unfinished(self) -> None:
        """Free what the engine holds for this exchange; the outputs of the abort itself go nowhere."""
        for generation in self.unfinished():
            generation.subscribe(_ignore)
            self._core.abort(generation)

    # ---- the client leaves ----

    def disconnected(self) -> None:
        """The connection is gone; the engine finds out when engines of its kind do."""
        if self.over:
            return
        now = time.monotonic()
        self.record.client_closed_s = now
        when = self.replica.dialect.traits.disconnect
        if when == "at_once" or self.hung:
            self._notice()
        elif when == "next_token":
            self._core.after_step(self._notice)
        elif when == "polled":
            since = (now - self.record.arrived_s) % _POLL_S
            asyncio.get_running_loop().call_later(_POLL_S - since, self._notice)
        elif isinstance(self.feed, StreamFeed):
            for generation in self.unfinished():
                generation.subscribe(self._notice_output)

    def _notice_output(self, _: Output) -> None:
        self._notice()

    def _notice(self) -> None:
        if self.over:
            return
        self.record.noticed_s = time.monotonic()
        if self._task is not None:
            self._task.cancel()
        self.cut()


def _ignore(_: Output) -> None:
    """Receives what nobody wants any more."""
