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
STEP_US = 1_000_000
"""A clock that is behind by less is read a little early; one that is behind by more was set back."""
REMEMBERED_MS = 60_000
"""So long a settled reservation is known as such: far longer than a command can be late."""
LIFE_US = 6_000_000
"""A process that was silent for so long, three beats, is gone."""
MARGIN_S = 60.0
"""A reservation outlives the longest request by this."""


def pack(words: tuple[str | int | bytes, ...]) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub knows one word only
    return packed


class Script:
    """One of the `.lua` files next to this one, below lines that set its constants."""

    def __init__(self, name: str, **constants: int | bool) -> None:
        words = "".join(f"local {key} = {str(value).lower()}\n" for key, value in constants.items())
        self.text = words.encode() + files(__package__).joinpath(f"{name}.lua").read_bytes()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()

    def call(self, keys: Sequence[str], args: Sequence[str | int], *, whole: bool = False) -> bytes:
        """The command. `whole`: with the text, for a server that does not know the script."""
        if whole:
            return pack(("EVAL", self.text, len(keys), *keys, *args))
        return pack(("EVALSHA", self.sha, len(keys), *keys, *args))

    def load(self) -> bytes:
        return pack(("SCRIPT", "LOAD", self.text))


class Scripts:
    """All of them, and how an ask is said to `admit`."""

    def __init__(self, total_s: float, *, sequenced: bool = False) -> None:
        life_ms = round((total_s + MARGIN_S) * 1000)
        self.admit = Script("admit", LIFE_MS=life_ms, LEASE_US=LEASE_US, STEP_US=STEP_US, SEQUENCED=sequenced)
        self.settle = Script("settle", REMEMBERED_MS=REMEMBERED_MS, STEP_US=STEP_US)
        self.renew = Script("renew", LEASE_US=LEASE_US)
        self.beat = Script("beat", LIFE_US=LIFE_US)

    @property
    def all(self) -> Sequence[Script]:
        return (self.admit, self.settle, self.renew, self.beat)

    def admission(self, ask: Ask, mode: Mode, *, whole: bool = False) -> bytes:
        """The command that asks. An ask without budgets and slots has no place to be asked at."""
        budgets, slots = ask.budgets, ask.slots
        keys = [reservation_key(ask)]
        args: list[str | int] = [mode, len(budgets)]
        for key, cost_us, window_us in budgets:
            keys.append(key)
            args += (cost_us, window_us)
        for key, most in slots:
            keys.append(key)
            args.append(most)
        return self.admit.call(keys, args, whole=whole)


def reservation_key(ask: Ask) -> str:
    return f"{tag_of(ask)}:i:{ask.id}"


def tag_of(ask: Ask) -> str:
    """Up to the brace that ends the first key's tag: `turnout:{t:search}`."""
    key = ask.budgets[0].key if ask.budgets else ask.slots[0].key
    return prefix_of(key)


def prefix_of(key: str) -> str:
    return key[: key.index("}") + 1]
