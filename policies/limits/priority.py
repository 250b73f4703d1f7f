"""How much a request matters while there is not room for all."""

from typing import Final, Literal

Priority = Literal["high", "normal", "low"]

PRIORITIES: Final[tuple[Priority, ...]] = ("high", "normal", "low")
"""The first is served first."""


def lowered(allowed: Priority, wished: str | None) -> Priority:
    """What a client wishes, if it is no more than it may have. Raises ValueError for what is none."""
    if wished is None:
        return allowed
    rank = PRIORITIES.index(wished)
    return PRIORITIES[max(rank, PRIORITIES.index(allowed))]
