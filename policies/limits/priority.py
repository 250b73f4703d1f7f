"""How much a request matters while there is not room for all."""

from typing import Final, Literal

Priority = Literal["high", "normal", "low"]

ORDER: Final[tuple[Priority, ...]] = ("high", "normal", "low")
"""The first is served first."""


def lowered(allowed: Priority, wished: str | None) -> Priority:
    """What a client wishes, if it is no more than it may have. Raises ValueError for what is none."""
    if wished is None:
        return allowed
    rank = ORDER.index(wished)  # type: ignore[arg-type]  # that is what is to be found out
    return ORDER[max(rank, ORDER.index(allowed))]
