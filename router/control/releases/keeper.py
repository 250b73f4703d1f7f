"""What a controller has beside the releases: whether it decides, what it found out, what others have seen.

Without Redis it is alone and keeps a file; with it one of all routers decides, and has the others' evidence.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import Final, Protocol

import msgspec

from policies.release.observation import Observation
from router.control.releases.records import StoreAway
from router.control.releases.release_redis import RedisReleases

LEASE_S: Final = 3.0
RENEW_S: Final = 1.0
MOST_PASSED: Final = 100_000
_BATCH: Final = 10_000

Seen = tuple[str, Observation]
"""The salt of a release, and what was seen of it."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Seen]).decode


class Keeper(Protocol):
    """Raises `StoreAway`."""

    async def decides(self) -> bool: ...
    async def keep(self, model: str, data: bytes) -> None: ...
    async def kept(self, model: str) -> bytes | None: ...
    async def pass_on(self, seen: Sequence[Seen]) -> None:
        """To the router that decides."""
        ...

    async def passed_on(self) -> Sequence[Seen]: ...


class FileKeeper:
    """Alone: `path` is the releases' own."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def decides(self) -> bool:
        return True

    async def keep(self, model: str, data: bytes) -> None:
        await asyncio.to_thread(self._write, self._of(model), data)

    async def kept(self, model: str) -> bytes | None:
        try:
            return await asyncio.to_thread(self._of(model).read_bytes)
        except OSError:
            return None

    async def pass_on(self, seen: Sequence[Seen]) -> None:
        """There is nobody else."""

    async def passed_on(self) -> Sequence[Seen]:
        return ()

    def _of(self, model: str) -> Path:
        return self._path.with_name(f".{self._path.name}.{model.replace('/', '%')}.evidence")

    def _write(self, path: Path, data: bytes) -> None:
        new = path.with_name(f"{path.name}.new")
        try:
            new.write_bytes(data)
            new.replace(path)
        except OSError as error:
            raise StoreAway(f"{path} cannot be written ({error.strerror})") from error


class RedisKeeper:
    """One of several routers."""

    def __init__(self, redis: RedisReleases) -> None:
        self._redis = redis
        self._name = token_hex(8)
        self._decides = False
        self._asked_at = -RENEW_S

    async def decides(self) -> bool:
        now = monotonic()
        if now - self._asked_at >= RENEW_S:
            self._decides = False  # unless it is said again
            self._decides = await self._redis.lease(self._name, LEASE_S)
            self._asked_at = now
        return self._decides

    async def keep(self, model: str, data: bytes) -> None:
        await self._redis.keep(model, data)

    async def kept(self, model: str) -> bytes | None:
        return await self._redis.kept(model)

    async def pass_on(self, seen: Sequence[Seen]) -> None:
        if seen:
            batches = [seen[at : at + _BATCH] for at in range(0, len(seen), _BATCH)]
            await self._redis.push([_encode(batch) for batch in batches], MOST_PASSED)

    async def passed_on(self) -> Sequence[Seen]:
        return [one for batch in await self._redis.take(100) for one in _decode(batch)]
