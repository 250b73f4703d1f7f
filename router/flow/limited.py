"""What limits say of one request, and what they hold for it until it is over."""

from collections.abc import Sequence

from policies.limits.rules import Plan
from policies.limits.usage import Size
from router.control.limits.store import Reservation
from router.flow.exchange import Header
from router.flow.overrun import Overrun


class Admission:
    """What a request was let in with. `units` are taken of each bucket of the plan.

    `overrun` is there for a stream that may be ended before its time.
    """

    __slots__ = ("overrun", "plan", "reservation", "size", "units")

    def __init__(self, plan: Plan, size: Size, units: Sequence[int], reservation: Reservation) -> None:
        self.plan = plan
        self.size = size
        self.units = units
        self.reservation = reservation
        self.overrun: Overrun | None = None


class Limited:
    """`said` are decisions by the names of limits, `headers` what the client is told of its budgets.

    `admission` is there until it is settled. Tokens are those that limits count, None where none does.
    """

    __slots__ = ("admission", "charged_tokens", "headers", "reserved_tokens", "said")

    def __init__(self, said: Sequence[tuple[str, str]], headers: Sequence[Header] = ()) -> None:
        self.said = said
        self.headers = headers
        self.admission: Admission | None = None
        self.reserved_tokens: int | None = None
        self.charged_tokens: int | None = None

    def bound(self, overrun: Overrun) -> None:
        """The stream may be ended by a limit; the client is told at once by which."""
        assert self.admission is not None
        self.admission.overrun = overrun
        self.headers = (*self.headers, (b"x-turnout-stream-limit", overrun.name.encode()))

    def stopped(self, name: str) -> None:
        """This limit ends the request's stream."""
        self.said = [(each, "stopped" if each == name else decision) for each, decision in self.said]
