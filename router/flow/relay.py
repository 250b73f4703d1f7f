"""One attempt: the answer of one replica, on its way to the client.

Everything here is a callback of the upstream connection; the coroutine that made the attempt waits for
`finished` only. Until the first good frame nothing reaches the client and a failure may be retried;
after it a failure ends the stream with one error frame and no `[DONE]`.
"""

import asyncio
from abc import ABC, abstractmethod
from bisect import bisect_right
from time import monotonic

from policies.outcome import Ending, Outcome
from router.api.errors import (
    BetweenTokensTimeout,
    Fault,
    FirstTokenTimeout,
    TotalTimeout,
    TurnoutError,
    UpstreamError,
    UpstreamProtocol,
)
from router.api.request import InferenceRequest
from router.api.tgi import translate_answer
from router.engines.engine import Answer, Failure, StreamReader
from router.engines.failures import read_failure
from router.engines.openai_stream import StreamCollector
from router.engines.sse import frame_of
from router.fleet.replicas import Lease
from router.flow.call import EVENT_STREAM, JSON, Call, Limits
from router.flow.upstream import Connection
from router.flow.watch import Watch
from router.observe.events import GAP_BOUNDS_S

_MAX_ERROR_BYTES = 65536
_TRAILER_S = 1.0
"""How long a replica may take to end its body after the answer itself is complete."""


class Relay(ABC):
    """What every attempt has in common; `failure` is None after success."""

    __slots__ = (
        "_connection",
        "_content_type",
        "_kept",
        "_kept_bytes",
        "_status",
        "_watch",
        "call",
        "deadline",
        "decided_at",
        "ending",
        "failure",
        "finished",
        "lease",
        "limits",
        "loop",
        "sent_at",
        "stale",
    )

    def __init__(self, call: Call, lease: Lease, limits: Limits, watch: Watch) -> None:
        self.call = call
        self.lease = lease
        self.limits = limits
        self.loop = watch.loop
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.failure: Failure | None = None
        self.ending = Ending.COMPLETED
        self.stale = False
        """A kept connection died before one byte came back: the peer's idle limit, not a failure."""
        self.sent_at = 0.0
        self.decided_at: float | None = None
        self.deadline = call.deadline
        """When `expire` is due; the watch looks at it."""
        self._watch = watch
        self._connection: Connection | None = None
        self._status = 0
        self._content_type = ""
        self._kept: list[bytes] = []
        self._kept_bytes = 0

    # ---- the flow ----

    def launch(self, connection: Connection, request: bytes) -> None:
        """Send the request; the exchange now steers this attempt."""
        exchange = self.call.exchange
        self._connection = connection
        self.sent_at = monotonic()
        exchange.on_disconnect = self.client_left
        exchange.on_pause = connection.pause
        exchange.on_resume = connection.resume
        self._watch.add(self)
        connection.send(request, self)

    def outcome(self) -> Outcome:
        """What the lease is closed with."""
        usage = self.call.usage if self.failure is None else None
        return Outcome(
            ending=self.ending,
            sent_at=self.sent_at,
            first_token_at=self.decided_at if self.failure is None else None,
            ended_at=monotonic(),
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            cached_tokens=None if usage is None else usage.cached_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
        )

    # ---- the upstream connection ----

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status
        self._content_type = headers.get(b"content-type", b"").decode("latin-1")

    def data(self, data: bytes) -> None:
        if self._status == 200:
            self.take(data)
        elif self._kept_bytes < _MAX_ERROR_BYTES:
            self.keep(data)

    def keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)

    def kept(self) -> bytes:
        return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)

    def complete(self) -> None:
        if self.finished.done():
            return
        if self._status == 200:
            self.ended()
        else:
            kind = self.lease.replica.engine.kind
            self.fail(read_failure(kind, self._status, self._content_type, self.kept()))

    def broken(self, error: UpstreamError) -> None:
        connection = self._connection
        self.stale = connection is not None and connection.reused and connection.silent
        self.fail(Failure(error, retry=True))

    @abstractmethod
    def take(self, data: bytes) -> None:
        """Body bytes of a 200."""

    @abstractmethod
    def ended(self) -> None:
        """The body of a 200 is complete."""

    # ---- ends ----

    def client_left(self) -> None:
        """The engine is told at once, by closing; nothing is held against the replica."""
        if self.finished.done():
            return
        self.ending = Ending.CLIENT_LEFT
        self.hang_up()
        self.settle()

    def expire(self, now: float) -> None:
        """The watch found the deadline passed."""
        error: TurnoutError
        if now >= self.call.deadline:
            error = TotalTimeout(f"no complete answer within {self.limits.total_s:g} s")
        elif self.decided_at is None:
            error = FirstTokenTimeout(
                f"no first token from the replica within {self.limits.first_token_s:g} s"
            )
        else:
            error = BetweenTokensTimeout(f"the replica fell silent for {self.limits.between_tokens_s:g} s")
        self.fail(
            Failure(error, retry=self.decided_at is None and now < self.call.deadline), Ending.TIMED_OUT
        )

    def end(self, error: TurnoutError) -> None:
        """The router itself wants this over: no other replica is asked."""
        self.fail(Failure(error, retry=False), Ending.CLIENT_LEFT)

    def fail(self, failure: Failure, ending: Ending | None = None) -> None:
        """This attempt is over without an answer."""
        if self.finished.done():
            return
        self.failure = failure
        self.ending = ending or _ending_of(failure)
        self.hang_up()
        self.settle()

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def settle(self) -> None:
        if self.decided_at is None:
            self.call.waited_s += monotonic() - self.sent_at
        self._watch.discard(self)
        self._release_exchange()
        self.finished.set_result(None)

    def _release_exchange(self) -> None:
        exchange = self.call.exchange
        exchange.on_disconnect = exchange.on_pause = exchange.on_resume = None

    def decide(self, now: float) -> None:
        """The replica has proven itself: what comes now goes to the client."""
        self.decided_at = now
        self.call.waited_s += now - self.sent_at
        self.lease.first_token()


class AnswerRelay(Relay):
    """A complete answer for a client that wants it whole; kept until it is, so that it can be retried.

    `request` is what was sent: the client's, or its translation for this engine.
    """

    __slots__ = ("_request",)

    def __init__(
        self, call: Call, lease: Lease, limits: Limits, watch: Watch, request: InferenceRequest
    ) -> None:
        super().__init__(call, lease, limits, watch)
        self._request = request

    def take(self, data: bytes) -> None:
        self.keep(data)
        if self._kept_bytes > self.limits.max_answer_bytes:
            limit = self.limits.max_answer_bytes
            self.fail(
                Failure(UpstreamProtocol(f"the replica's answer is larger than {limit} bytes"), retry=False)
            )

    def ended(self) -> None:
        self.deliver(self.lease.replica.engine.read_answer(self._request, self.kept()))

    def deliver(self, answer: Answer | Failure) -> None:
        if isinstance(answer, Failure):
            self.fail(answer)
            return
        call = self.call
        if call.request is not None and call.request is not self._request:
            answer = translate_answer(call.request, answer)
        now = monotonic()
        self.decide(now)
        call.usage = answer.usage
        call.finish_reason = answer.finish_reason
        call.begin(200, (JSON,), len(answer.body), now)
        call.exchange.write(answer.body)
        call.finish()
        self.settle()


class CollectRelay(AnswerRelay):
    """A whole answer, made of a stream: for engines that should only be asked for streams."""

    __slots__ = ("_collector",)

    def __init__(
        self,
        call: Call,
        lease: Lease,
        limits: Limits,
        watch: Watch,
        request: InferenceRequest,
        reader: StreamReader,
    ) -> None:
        super().__init__(call, lease, limits, watch, request)
        self._collector = StreamCollector(request, reader)

    def take(self, data: bytes) -> None:
        self._collector.feed(data)
        if self._collector.failure is not None:
            self.fail(self._collector.failure)

    def ended(self) -> None:
        self._collector.end()
        failure = self._collector.failure
        self.deliver(self._collector.answer() if failure is None else failure)


class StreamRelay(Relay):
    """A stream, frame by frame."""

    __slots__ = ("_delivered", "_exchange", "_gap_sum_s", "_gaps", "_last_at", "_reader")

    def __init__(self, call: Call, lease: Lease, limits: Limits, watch: Watch, reader: StreamReader) -> None:
        super().__init__(call, lease, limits, watch)
        self._reader = reader
        self._exchange = call.exchange
        self._delivered = False
        self._last_at = 0.0
        self._gaps = [0] * (len(GAP_BOUNDS_S) + 1)
        self._gap_sum_s = 0.0

    def launch(self, connection: Connection, request: bytes) -> None:
        self.deadline = min(monotonic() + self.limits.first_token_s, self.call.deadline)
        super().launch(connection, request)

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        super().head(status, headers)
        if status == 200 and not self._content_type.startswith("text/event-stream"):
            self.fail(
                Failure(UpstreamProtocol("the replica did not answer with an event stream"), retry=True)
            )

    def take(self, data: bytes) -> None:
        if self.finished.done():
            return
        reader = self._reader
        frames = reader.feed(data)
        if frames:
            self._forward(frames)
        if reader.failure is not None:
            self.fail(reader.failure)
        elif reader.done and self.decided_at is not None:
            self._finish()

    def ended(self) -> None:
        reader = self._reader
        if not reader.done:
            frames = reader.end()
            if frames:
                self._forward(frames)
        if reader.failure is not None:
            self.fail(reader.failure)
            return
        self._finish()
        self.settle()

    def expire(self, now: float) -> None:
        if self._delivered:
            # The client has everything; only the replica's body has not ended.
            self.hang_up()
            self.settle()
        else:
            super().expire(now)

    def broken(self, error: UpstreamError) -> None:
        if not self._delivered:
            super().broken(error)
        elif not self.finished.done():
            self.settle()

    def fail(self, failure: Failure, ending: Ending | None = None) -> None:
        """After the first good frame the failure becomes the stream's last frame."""
        if self.decided_at is not None and not self.finished.done():
            self._keep_figures()
            self.call.error = failure.error
            self._exchange.write(frame_of(self.call.body_of(failure.error)))
            self.call.finish()
        super().fail(failure, ending)

    def _forward(self, frames: bytes) -> None:
        now = monotonic()
        if self.decided_at is None:
            self.decide(now)
            self.call.first_token_at = now
            self.call.begin(200, EVENT_STREAM, None, now)
        else:
            gap_s = now - self._last_at
            self._gap_sum_s += gap_s
            self._gaps[bisect_right(GAP_BOUNDS_S, gap_s)] += 1
        self._last_at = now
        self.deadline = min(now + self.limits.between_tokens_s, self.call.deadline)
        self._exchange.write(frames)

    def _finish(self) -> None:
        """The client's stream is complete; the connection may still have a trailer to read."""
        if self._delivered:
            return
        self._delivered = True
        self._keep_figures()
        self._release_exchange()
        self.call.finish()
        self.deadline = monotonic() + _TRAILER_S

    def _keep_figures(self) -> None:
        call = self.call
        call.usage = self._reader.usage
        call.finish_reason = self._reader.finish_reason
        call.gaps = self._gaps
        call.gap_sum_s = self._gap_sum_s


def _ending_of(failure: Failure) -> Ending:
    if failure.saturated:
        return Ending.SATURATED
    return Ending.CLIENT_ERROR if failure.error.fault is Fault.CLIENT else Ending.FAILED
