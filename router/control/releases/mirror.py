"""Releases that are kept in Redis, with this host's copy in a file, which all of its processes read.

While Redis is away the copy stands: weights are frozen. What only makes things safer, rolling back and
pausing, can still be done; it goes to Redis when that is back, unless somebody else has moved the release
there.
"""

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import time
from typing import Final

from policies.release.lifecycle import Release, Verb
from router.control.releases.records import Conflict, Entry, StoreAway, percent_of
from router.control.releases.release_file import ReleaseFile
from router.control.releases.release_redis import RedisReleases

log = logging.getLogger("turnout.releases")

LOOK_S: Final = 0.08
"""With the look at the file, well below the 250 ms in which a weight is to be in force everywhere."""
AWAY_S: Final = 0.5
_SAFER: Final = frozenset({Verb.ROLL_BACK.value, Verb.PAUSE.value})


class Mirror:
    """A `ReleaseStore`."""

    def __init__(self, redis: RedisReleases, file: ReleaseFile) -> None:
        self.redis = redis
        self._file = file
        self._stamp: int | None = None
        self.away = False

    async def read(self) -> Mapping[str, Release]:
        return await self._file.read()

    async def swap(self, model: str, release: Release, entry: Entry) -> None:
        try:
            await self.redis.swap(model, release, entry)
        except StoreAway:
            if entry.verb not in _SAFER:
                raise
            log.warning("%s: %s goes to Redis when it is back", model, entry.verb)
            await self._file.swap(model, release, entry)
            return
        self._stamp = None
        with contextlib.suppress(StoreAway):  # then it comes here at the next look
            await self.look()

    async def history(self, model: str) -> Sequence[Entry]:
        try:
            return await self.redis.history(model)
        except StoreAway:
            return await self._file.history(model)

    async def keep_mirroring(self) -> None:
        """Without end."""
        while True:
            try:
                await self.look()
            except StoreAway as error:
                self._note(str(error))
            else:
                self._note("")
            await asyncio.sleep(AWAY_S if self.away else LOOK_S)

    async def look(self) -> None:
        """Have here what Redis has, and there what was done here without it. Raises `StoreAway`."""
        stamp = await self.redis.stamp()
        if stamp == self._stamp and not self.away:
            return
        here = await self._file.read()
        there = await self.redis.read()
        for model, release in here.items():
            if model not in there or release.generation > there[model].generation:
                await self._tell(model, release, there.get(model))
        there = await self.redis.read()
        if there != here:
            await self._file.replace(there)
        self._stamp = stamp

    async def _tell(self, model: str, release: Release, there: Release | None) -> None:
        """What was done here while Redis was away, or what it has lost."""
        generation = release.generation if there is None else there.generation + 1
        entry = Entry(
            generation=generation,
            at=time(),
            verb="tell",
            actor="turnout",
            reason="it was moved while Redis was away" if there is not None else "Redis did not know of it",
            phase=release.phase.value,
            stable=release.stable,
            canary=release.canary,
            percent_before=0.0 if there is None else percent_of(there),
            percent=percent_of(release),
        )
        try:
            await self.redis.swap(model, replace(release, generation=generation), entry)
        except Conflict:
            log.warning("%s: another router has moved the release meanwhile; that stands", model)

    def _note(self, reason: str) -> None:
        """One line when it goes, and one when it returns."""
        if bool(reason) != self.away:
            self.away = bool(reason)
            if reason:
                log.warning("releases stand still: %s", reason)
            else:
                log.info("releases move again")
