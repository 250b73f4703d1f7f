"""What engines say of themselves, told by the one process that reads it to the workers."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from router.control.messages import Place
from router.control.reports import Loads, Wish
from router.engines.engine import ReplicaLoad
from router.fleet.replicas import Replica

SPREAD_S: Final = 0.05
"""How soon workers have what an engine said; it is said about once a second."""


class LoadNews:
    """`replicas` gives those in force; `tell` reaches every worker."""

    def __init__(self, replicas: Callable[[], Mapping[Place, Replica]], tell: Callable[[Wish], None]) -> None:
        self._replicas = replicas
        self._tell = tell
        self._told_at: dict[Place, float] = {}

    def all(self) -> list[tuple[Place, float, ReplicaLoad]]:
        """The newest of each replica, and when it was read."""
        return [
            (place, replica.load_at, replica.load)
            for place, replica in self._replicas().items()
            if replica.load is not None
        ]

    def spread(self) -> None:
        """Tell what engines said since the last time."""
        loads = self.all()
        news = [each for each in loads if self._told_at.get(each[0]) != each[1]]
        if news:
            self._told_at = {place: at for place, at, _ in loads}
            self._tell(Loads(news))

    async def keep_spreading(self) -> None:
        while True:
            self.spread()
            await asyncio.sleep(SPREAD_S)
