"""Generations whose answers go out whole.

The server asks a dialect for a 500 when one of them fails; engines have their own words and status for that.
"""

from collections.abc import Iterable

from loadtest.engine.core import Generation


class Pending:
    """Remembers them until they have finished."""

    def __init__(self) -> None:
        self._generations: list[Generation] = []

    def add(self, generations: Iterable[Generation]) -> None:
        self._generations = [*(one for one in self._generations if not one.finished), *generations]

    def failed(self, message: str) -> bool:
        """Whether one of them has just failed with these words."""
        return any(one.finished and one.error == message for one in self._generations)
