"""How messages reach other members: the seam between sharing and what carries it."""

from collections.abc import Callable
from typing import Protocol

from router.control.messages import Member

Received = Callable[[bytes], None]


class Channel(Protocol):
    """Carries messages to all other members it reaches, in the order of sending; any of them may be lost."""

    @property
    def delay_s(self) -> float:
        """How long events may be collected into one message."""
        ...

    @property
    def far(self) -> bool:
        """It leads to other routers; the processes of one router hear each other by a nearer one."""
        ...

    @property
    def healthy(self) -> bool:
        """Messages go through, as far as is known."""
        ...

    @property
    def dropped(self) -> int:
        """Messages that could not be sent."""
        ...

    async def start(self, received: Received) -> None:
        """Begin to listen; whether anybody is there is no condition."""
        ...

    def send(self, message: bytes, to: Member | None = None) -> None:
        """To one member, or to all. Never waits and never fails: what does not go out is counted."""
        ...

    async def close(self) -> None:
        """Send what still can be, and stop."""
        ...
