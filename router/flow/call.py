"""One request on its way: what was asked, what was tried, what the client has been told."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, NamedTuple

from policies.limits.priority import Priority, lowered
from policies.outcome import Ending
from router.api.errors import RequestError, TurnoutError
from router.api.request import Endpoint, InferenceRequest, Usage
from router.api.tgi import generate_error
from router.control.keys import ANONYMOUS
from router.fleet.facts import Facts
from router.fleet.replicas import Replica
from router.fleet.routes import Arm, Route
from router.flow.exchange import Exchange, Header
from router.flow.limited import Limited
from router.flow.transcript import Transcript
from router.observe.events import Attempt

JSON = (b"content-type", b"application/json")
EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx in front of the router would otherwise collect the stream before it passes it on
    (b"x-accel-buffering", b"no"),
)

_TGI_PATHS = frozenset(
    {e.value for e in (Endpoint.GENERATE, Endpoint.GENERATE_STREAM, Endpoint.GENERATE_ROOT)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how often: the configuration's [timeouts] and [retries], seconds."""

    connect_s: float = 1.0
    first_token_s: float = 60.0
    between_tokens_s: float = 30.0
    total_s: float = 900.0
    max_attempts: int = 3
    max_answer_bytes: int = 64 * 1024 * 1024


class Assigned(NamedTuple):
    """How a request got its version: what a release makes of it, and the unit that was drawn, if any."""

    arm: Arm | None
    unit: str


_WITNESSED_BYTES: Final = 262_144
"""Of an answer that a release looks at; nothing is said of a longer one."""
NOT_ASSIGNED: Final = Assigned(None, "")


class Call:
    """The state that all attempts of one request share. Times are monotonic seconds.

    `limited` is what limits have said, where any apply. `transcript` keeps the answer, where it is to be
    compared with another version's.
    """

    __slots__ = (
        "answered",
        "assigned",
        "attempts",
        "caller",
        "deadline",
        "decision",
        "delivered",
        "error",
        "exchange",
        "facts",
        "finish_reason",
        "first_token_at",
        "gap_sum_s",
        "gaps",
        "head_at",
        "id",
        "limited",
        "priority",
        "queue_wait_s",
        "replica",
        "request",
        "route",
        "status",
        "transcript",
        "tries",
        "usage",
        "waited_s",
        "witness",
    )

    def __init__(self, call_id: str, exchange: Exchange, limits: Limits) -> None:
        self.id = call_id
        """The request's id: the client's `x-request-id` if it is a usable one."""
        self.exchange = exchange
        self.caller = ANONYMOUS
        self.priority: Priority = "normal"
        self.request: InferenceRequest | None = None
        self.route: Route | None = None
        self.assigned = NOT_ASSIGNED
        self.witness: Transcript | None = None
        self.facts: Facts | None = None
        self.replica: Replica | None = None
        self.deadline = exchange.received_at + limits.total_s
        self.decision: bytes | None = None
        """What the client is told of the last choice, if it asked."""
        self.attempts: list[Attempt] = []
        self.tries = 0
        """Attempts begun, the present one included."""
        self.waited_s = 0.0
        """Time spent waiting for replicas before the answer began: not the router's own."""
        self.queue_wait_s = 0.0
        """Time of that in the router's own queue."""
        self.head_at: float | None = None
        self.first_token_at: float | None = None
        self.status = 0
        self.answered = False
        """The client has been given everything it will get, to the last byte."""
        self.error: TurnoutError | None = None
        self.limited: Limited | None = None
        self.transcript: Transcript | None = None
        self.delivered: tuple[Ending, int] = (Ending.FAILED, 0)
        """How the last attempt ended, and after how many frames with text."""
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.gaps: Sequence[int] = ()
        self.gap_sum_s = 0.0

    def shorten(self, deadline_ms: str | None) -> None:
        """`x-turnout-deadline-ms`: the client wants its answer sooner than the configuration allows.

        Raises `RequestError` for what is not a positive number.
        """
        if deadline_ms is None:
            return
        if re.fullmatch(r"0*[1-9][0-9]{0,8}", deadline_ms) is None:
            raise RequestError("x-turnout-deadline-ms must be a positive number of milliseconds")
        self.deadline = min(self.deadline, self.exchange.received_at + int(deadline_ms) / 1000)

    def prioritise(self, wished: str | None) -> None:
        """`x-turnout-priority`: a client may matter less than its key allows, and no more.

        Raises `RequestError` for what is no priority.
        """
        try:
            self.priority = lowered(self.caller.priority, wished)
        except ValueError:
            raise RequestError("x-turnout-priority must be high, normal or low") from None

    @property
    def explains(self) -> bool:
        """The client wants to know why it got this replica."""
        return self.exchange.headers.get("x-turnout-explain") == "1"

    def assign(self, route: Route, unit: str) -> None:
        self.route, self.assigned = route, Assigned(route.arm, unit)
        if route.arm is not None:
            self.witness = Transcript(_WITNESSED_BYTES)

    def reassign(self, route: Route) -> None:
        """Another version answers in place of the one that it was assigned to."""
        self.route, self.facts = route, None

    def begin(self, status: int, headers: Sequence[Header], length: int | None, now: float) -> None:
        """Start the client's answer: `headers` and the router's own."""
        self.status = status
        self.head_at = now
        own: list[Header] = [*headers, (b"x-request-id", self.id.encode("latin-1"))]
        if self.replica is not None:
            own += self.replica.headers
            own.append((b"x-turnout-attempts", b"%d" % self.tries))
        if self.limited is not None:
            own += self.limited.headers
        if self.decision is not None:
            own.append((b"x-turnout-decision", self.decision))
        own.append((b"x-turnout-overhead-ms", b"%.2f" % (self.overhead_s(now) * 1000)))
        self.exchange.start(status, own, length)

    def overhead_s(self, now: float) -> float:
        """What the router itself added before the answer began, as of `now`."""
        until = now if self.head_at is None else self.head_at
        return max(0.0, until - self.exchange.received_at - self.waited_s)

    def refuse(self, error: TurnoutError, now: float) -> None:
        """Answer with an error, if the answer has not begun."""
        self.error = error
        body = self.body_of(error)
        headers = [JSON, (b"x-should-retry", b"true" if error.should_retry else b"false"), *error.headers]
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, ceil(error.retry_after_s))))
            headers.append((b"retry-after-ms", b"%d" % ceil(error.retry_after_s * 1000)))
        self.begin(error.status, headers, len(body), now)
        self.exchange.write(body)
        self.finish()

    def body_of(self, error: TurnoutError) -> bytes:
        """The error in the client's dialect."""
        return generate_error(error) if self.exchange.path in _TGI_PATHS else error.body()

    def finish(self) -> None:
        self.answered = True
        self.exchange.finish()
