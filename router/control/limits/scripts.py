"""The scripts that Redis runs, and the commands that call them.

Redis keeps them by the hash of their text. Where it does not know one (any more), the text goes along.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Literal

import hiredis

from policies.limits.ask import Ask

Mode = Literal["admit", "force", "look"]

LEASE_US = 30_000_000
"""So long a slot outlives the process that held it."""
REMEMBERED_MS = 60_000
"""So long a settled reservation is known as such: far longer than a command can be late."""
MARGIN_S = 60.0
"""A reservation outlives the longest request by this."""


def pack(words: tuple[str | int | bytes, ...]) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows one word only
    return packed


class Script:
    """One of the `.lua` files next to this one."""

    def __init__(self, name: str) -> None:
        self.text = files(__package__).joinpath(f"{name}.lua").read_bytes()
        self._sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], args: Sequence[str | int], *, whole: bool = False) -> bytes:
        """The command. `whole`: with the text, for a server that does not know the script."""
        if whole:
            return pack(("EVAL", self.text, len(keys), *keys, *args))
        return pack(("EVALSHA", self._sha, len(keys), *keys, *args))

    def load(self) -> bytes:
        return pack(("SCRIPT", "LOAD", self.text))


class Scripts:
    """All of them, and how an ask is said to `admit`."""

    def __init__(self, total_s: float, *, sequenced: bool = False) -> None:
        self.admit = Script("admit")
        self.settle = Script("settle")
        self.renew = Script("renew")
        self.beat = Script("beat")
        self._life_ms = round((total_s + MARGIN_S) * 1000)
        self._sequenced = sequenced

    @property
    def all(self) -> Sequence[Script]:
        return (self.admit, self.settle, self.renew, self.beat)

    def admission(self, ask: Ask, mode: Mode, *, whole: bool = False) -> bytes:
        """The command that asks. An ask without budgets and slots has no place to be asked at."""
        tag = tag_of(ask)
        budgets, slots = ask.budgets, ask.slots
        keys = [f"{tag}:i:{ask.id}"]
        args: list[str | int] = [mode, ask.id, self._life_ms, LEASE_US, len(budgets), len(slots)]
        for key, cost_us, window_us in budgets:
            keys.append(key)
            args += (cost_us, window_us)
        for key, most in slots:
            keys.append(key)
            args.append(most)
        if self._sequenced:
            keys.append(f"{tag}:seq")
        return self.admit.call(keys, args, whole=whole)


def tag_of(ask: Ask) -> str:
    """Up to the brace that ends the first key's tag: `turnout:{t:search}`."""
    key = ask.budgets[0].key if ask.budgets else ask.slots[0].key
    return prefix_of(key)


def prefix_of(key: str) -> str:
    return key[: key.index("}") + 1]
