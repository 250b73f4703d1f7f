"""What policies have learned, handed to a member that joins: dumped by one, loaded by the other."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

from router.control.messages import Member, StatePart

PART_BYTES = 32_768
PAUSE_S = 0.002
"""Between two parts: a member that joins must not crowd out the events of the others."""

Version = tuple[str, str]
"""Model and version."""


@runtime_checkable
class Snapshot(Protocol):
    """A policy whose knowledge can be handed on."""

    def dump(self) -> bytes:
        """All it knows that others would have to learn."""
        ...

    def load(self, state: bytes) -> None:
        """Take over what another knows, beside what is known here. Raises `ValueError` for no dump."""
        ...


Send = Callable[[StatePart, Member], None]


class StateSender:
    """Sends the state of all versions, one part at a time."""

    def __init__(self, offered: Mapping[Version, Snapshot], send: Send) -> None:
        self._offered = offered
        self._send = send
        self._tasks: dict[Member, asyncio.Task[None]] = {}

    def give(self, to: Member) -> None:
        """Whoever is being served already need not ask again."""
        if to not in self._tasks:
            task = self._tasks[to] = asyncio.create_task(self._give(to))
            task.add_done_callback(lambda _: self._tasks.pop(to, None))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _give(self, to: Member) -> None:
        for (model, version), snapshot in list(self._offered.items()):
            data = snapshot.dump()
            parts = [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)] or [b""]
            for number, part in enumerate(parts):
                self._send(StatePart(model, version, number, len(parts), part), to)
                await asyncio.sleep(PAUSE_S)


class StateReader:
    """Puts parts together. What misses a part is never loaded: it is learned anew, as without a snapshot."""

    def __init__(self, offered: Mapping[Version, Snapshot]) -> None:
        self._offered = offered
        self._parts: dict[Version, list[bytes]] = {}

    def take(self, part: StatePart) -> None:
        """Raises `ValueError` for a state that is no dump."""
        key = part.model, part.version
        parts = self._parts.setdefault(key, [])
        if part.number == 0:
            parts.clear()
        if part.number != len(parts):
            return
        parts.append(part.data)
        if len(parts) == part.parts:
            del self._parts[key]
            snapshot = self._offered.get(key)
            if snapshot is not None:
                snapshot.load(b"".join(parts))
