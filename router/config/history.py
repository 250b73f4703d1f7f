"""Numbered generations of the configuration: what was in force, since when and why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

MOST: Final = 50
"""Generations that are remembered: the newest, and the one in force is always among them."""


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One configuration that was in force. `at` is in seconds since 1970.

    `text` is what was read and may hold secrets; `shown` is the whole configuration with its secrets masked.
    """

    number: int
    at: float
    why: str
    text: str
    shown: str
    rolled_back_to: int | None = None
    """It is that one again, by an operator's wish."""
    passed_over: str | None = None
    """What the file says meanwhile: it counts again when it says something else, or is asked for."""


class NoSuchGeneration(Exception):
    """It never was, or is forgotten; the message says which there are."""


@dataclass(slots=True)
class ConfigState:
    """How the configuration is, for who shows it; whoever reloads it writes here."""

    generation: int = 1
    reload_failed: bool = False
    """The last attempt to reload was refused and the configuration before it stayed."""
    mistakes: Sequence[str] = ()
    """Why, one sentence each."""
    rolled_back_to: int | None = None
    """An earlier generation is in force by an operator's wish, whatever the file says."""
    behind: int = 0
    """Workers of this router that do not have it yet."""


class History:
    """All generations since the start, as far as they are remembered. The last one is in force."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        """At least one."""
        self._generations = list(generations)

    @property
    def in_force(self) -> Generation:
        return self._generations[-1]

    @property
    def next_number(self) -> int:
        return self.in_force.number + 1

    @property
    def generations(self) -> Sequence[Generation]:
        """The oldest first."""
        return tuple(self._generations)

    def add(self, generation: Generation) -> None:
        """Another one is in force."""
        self._generations.append(generation)
        del self._generations[:-MOST]

    def reword(self, text: str) -> None:
        """The one in force is written in another way now, and means the same."""
        self._generations[-1] = msgspec.structs.replace(self.in_force, text=text)

    def numbered(self, number: int) -> Generation:
        """Raises `NoSuchGeneration`."""
        for each in self._generations:
            if each.number == number:
                return each
        there = f"{self._generations[0].number} to {self.in_force.number}"
        raise NoSuchGeneration(f"there is no generation {number}; there are {there}")
