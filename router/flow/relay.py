"""One attempt: what the answers of replicas have in common on their way to the client.

Everything here is a callback of the upstream connection; the coroutine that made the attempt waits for
`finished` only. Until something has reached the client a failure may be retried.
"""

from abc import ABC, abstractmethod
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
from router.eager import Signal
from router.engines.engine import Failure
from router.engines.failures import read_failure
from router.fleet.leases import Lease
from router.flow.call import Call, Limits
from router.flow.connection import Connection
from router.flow.watch import Watch

_MAX_ERROR_BYTES = 65536
NOT_UTF8 = Failure(UpstreamProtocol("the replica's answer is not UTF-8"), retry=True)
"""JSON and event streams have to be; readers look at texts only where they must."""


class Relay(ABC):
    """What every attempt has in common; `failure` is None after success."""

    __slots__ = (
        "_connection",
        "_content_type",
        "_kept",
        "_kept_bytes",
        "_over",
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
        "whole",
    )

    def __init__(self, call: Call, lease: Lease, limits: Limits, watch: Watch) -> None:
        self.call = call
        self.lease = lease
        self.limits = limits
        self.loop = watch.loop
        self.finished = Signal(loop=self.loop)
        self.failure: Failure | None = None
        self.ending = Ending.COMPLETED
        self.stale = False
        """A kept connection died before one byte came back: the peer's idle limit, not a failure."""
        self.whole: bytes | None = None
        """The client's answer, where it was given at once."""
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
        self._over = False

    # ---- the flow ----

    def launch(self, connection: Connection, request: bytes) -> None:
        """Send the request; the exchange now steers this attempt."""
        exchange = self.call.exchange
        self._connection = connection
        self.sent_at = monotonic()
        exchange.on_disconnect = self.client_left
        exchange.on_pause = self.pause
        exchange.on_resume = self.resume
        self._watch.add(self)
        connection.send(request, self)

    def pause(self) -> None:
        """The client does not keep up: the replica has to wait."""
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._connection is not None:
            self._connection.resume()

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
            completion_tokens=(self.pieces or None) if usage is None else usage.completion_tokens,
        )

    @property
    def pieces(self) -> int:
        """Frames with text so far: what stands for the tokens of an engine that does not count them."""
        return 0

    # ---- the upstream connection ----

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        self._status = status
        self._content_type = headers.get(b"content-type", b"").decode("latin-1")

    def data(self, data: bytes) -> None:
        if self._status == 200:
            self.take(data)
        else:
            self.keep(data)
            if self._kept_bytes > _MAX_ERROR_BYTES:
                self.refused()

    def keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._kept_bytes += len(data)

    def kept(self) -> bytes:
        return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)

    def complete(self) -> None:
        if self._over:
            return
        if self._status == 200:
            self.ended()
        else:
            self.refused()

    def refused(self) -> None:
        """The replica answered with another status than 200."""
        if self._status < 400:
            # Redirects are not followed, and no engine answers an inference with another kind of success.
            error = UpstreamProtocol(f"the replica answered with status {self._status}")
            self.fail(Failure(error, retry=True))
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
        if self._over:
            return
        self.ending = Ending.CLIENT_LEFT
        self.hang_up()
        self.settle()

    def expire(self, now: float) -> None:
        """The watch found the deadline passed."""
        limits = self.limits
        if now >= self.call.deadline:
            late = TotalTimeout(f"no complete answer within {limits.total_s:g} s")
            # A long answer that is well under way is not the replica's failure.
            ending = Ending.TIMED_OUT if self.decided_at is None else Ending.CLIENT_LEFT
            self.fail(Failure(late, retry=False), ending)
        elif self.decided_at is None:
            slow = FirstTokenTimeout(f"no first token from the replica within {limits.first_token_s:g} s")
            self.fail(Failure(slow, retry=True), Ending.TIMED_OUT)
        else:
            silent = BetweenTokensTimeout(f"the replica fell silent for {limits.between_tokens_s:g} s")
            self.fail(Failure(silent, retry=False), Ending.TIMED_OUT)

    def end(self, error: TurnoutError) -> None:
        """The router itself wants this over: no other replica is asked."""
        self.fail(Failure(error, retry=False), Ending.CLIENT_LEFT)

    def fail(self, failure: Failure, ending: Ending | None = None) -> None:
        """This attempt is over without an answer."""
        if self._over:
            return
        self.failure = failure
        self.ending = ending or ending_of(failure)
        self.hang_up()
        self.settle()

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    def settle(self) -> None:
        """The attempt is over; it is once. The last thing to do: the request goes on from in here."""
        self._over = True
        if self.decided_at is None and self.sent_at:
            self.call.waited_s += monotonic() - self.sent_at
        self._watch.discard(self)
        self._release_exchange()
        self.finished.fire()

    def _release_exchange(self) -> None:
        exchange = self.call.exchange
        exchange.on_disconnect = exchange.on_pause = exchange.on_resume = None

    def decide(self, now: float) -> None:
        """The replica has proven itself: what comes now goes to the client."""
        self.decided_at = now
        self.call.waited_s += now - self.sent_at
        self.lease.first_token(now)


def is_utf8(data: bytes) -> bool:
    """Nearly free where it is ASCII."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def ending_of(failure: Failure) -> Ending:
    """How an attempt ended that failed so."""
    if failure.saturated:
        return Ending.SATURATED
    return Ending.CLIENT_ERROR if failure.error.fault is Fault.CLIENT else Ending.FAILED
