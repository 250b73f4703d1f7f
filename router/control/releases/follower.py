"""Brings the releases in force to one process: looks at the host's file many times a second."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final

from policies.release.lifecycle import Release
from router.control.releases.records import StoreAway
from router.control.releases.release_file import ReleaseFile, Stamp

log = logging.getLogger("turnout.releases")

LOOK_S: Final = 0.08


class Follower:
    """`changed` gets all releases, when any of them has changed. What cannot be read changes nothing."""

    def __init__(self, file: ReleaseFile, changed: Callable[[Mapping[str, Release]], None]) -> None:
        self._file = file
        self._changed = changed
        self._stamp: Stamp | None = None
        self.known: Mapping[str, Release] = {}
        """The releases in force."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """What is in force at once holds before the first request."""
        self.look()
        self._task = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def look(self) -> None:
        stamp = self._file.stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            releases = {model: record.release for model, record in self._file.load().items()}
        except StoreAway as error:
            log.error("the releases in force stay: %s", error)
            return
        if releases != self.known:
            self.known = releases
            self._changed(releases)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()
