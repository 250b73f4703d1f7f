"""A worker follows its overview: what that has put in force, it serves by, a fraction of a second later."""

import asyncio
import logging
from typing import Final

from router.config.history import ConfigState, Generation
from router.config.origin import Origin
from router.config.published import Published
from router.config.reload import Apply
from router.config.source import ConfigError

log = logging.getLogger("turnout.config")

LOOK_S: Final = 0.1


class Follower:
    """`state` says which configuration this process serves by.

    What the overview has decoded and checked can be used here too, unless a secret's file has gone meanwhile:
    then this worker serves on as before, says so once, and tries again.
    """

    def __init__(self, published: Published, origin: Origin, apply: Apply, state: ConfigState) -> None:
        self._published = published
        self._origin = origin
        self._apply = apply
        self._state = state
        self._seen = 0
        self._failed: int | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except Exception:
                log.exception("following the configuration met a defect of the router; it goes on")

    async def look(self) -> None:
        """Serve by the configuration in force, if it is another one than here."""
        written = self._published.path.stat().st_mtime_ns
        if written == self._seen:
            return
        wanted = self._published.read().in_force
        if wanted.number == self._state.generation or await self._take(wanted):
            self._seen = written

    async def _take(self, wanted: Generation) -> bool:
        try:
            await self._apply(await asyncio.to_thread(self._origin.decode, wanted.text))
        except (ConfigError, OSError) as error:
            if self._failed != wanted.number:
                self._failed = wanted.number
                log.error("configuration %d cannot be used by this worker: %s", wanted.number, error)
            return False
        self._state.generation = wanted.number
        return True
