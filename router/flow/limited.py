"""What limits say of one request, and what they hold for it until it is over."""

from collections.abc import Sequence

from policies.limits.rules import Plan
from policies.limits.usage import Size
from router.control.limits.store import Reservation
from router.flow.exchange import Header
from router.flow.overrun import Overrun


class Limited:
    """`said` are decisions by the names of limits, `headers` what the client is told of its budgets.

    Tokens are those that limits count, None where none does. `overrun` is there for a stream that may be
    ended before its time.
    """

    __slots__ = (
        "charged_tokens",
        "headers",
        "overrun",
        "plan",
        "reservation",
        "reserved_tokens",
        "said",
        "size",
        "units",
    )

    def __init__(self, plan: Plan, size: Size, units: Sequence[int]) -> None:
        self.plan = plan
        self.size = size
        self.units = units
        """Taken of each bucket of the plan."""
        self.said: Sequence[tuple[str, str]] = ()
        self.headers: Sequence[Header] = ()
        self.reservation: Reservation | None = None
        """There until it is settled."""
        self.overrun: Overrun | None = None
        self.reserved_tokens: int | None = None
        self.charged_tokens: int | None = None

    def bound(self, overrun: Overrun) -> None:
        """The stream may be ended by a limit; the client is told at once by which."""
        self.overrun = overrun
        self.headers = (*self.headers, (b"x-turnout-stream-limit", overrun.name.encode()))

    def stopped(self, name: str) -> None:
        """This limit ends the request's stream."""
        self.said = [(each, "stopped" if each == name else decision) for each, decision in self.said]
