"""Releases in Redis: one state for all routers that share it, and one of them at a time that decides.

All keys have one hash tag, so that a cluster keeps them on one node.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, RedisError

from policies.release.lifecycle import Release
from router.config.secret import SecretUrl
from router.control.releases.records import (
    MOST_ENTRIES,
    Conflict,
    Entry,
    StoreAway,
    encoded,
    release_from,
)

PATIENCE_S: Final = 1.0
_BASE: Final = "turnout:{releases}"
_ENTRY: Final = msgspec.json.Decoder(Entry)


class RedisReleases:
    """Raises `StoreAway` while Redis cannot be reached."""

    def __init__(self, url: SecretUrl) -> None:
        self._shown = url.masked()
        self._options: dict[str, Any] = {
            "socket_timeout": PATIENCE_S,
            "socket_connect_timeout": PATIENCE_S,
            "retry": Retry(NoBackoff(), 0),
        }
        self._redis = Redis.from_url(url.reveal(), **self._options)
        self._swap_text = _script("swap")
        self._lease_text = _script("lease")

    async def stamp(self) -> int:
        """A number that rises with every move."""
        return int(await self._do("GET", f"{_BASE}:stamp") or 0)

    async def read(self) -> Mapping[str, Release]:
        flat = await self._do("HGETALL", f"{_BASE}:state")
        pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
        try:
            return {name.decode(): release_from(data) for name, data in pairs}
        except ValueError as error:
            raise StoreAway(f"what {self._shown} has of releases cannot be read: {error}") from error

    async def swap(self, model: str, release: Release, entry: Entry) -> None:
        keys = [f"{_BASE}:state", f"{_BASE}:generations", self._history(model), f"{_BASE}:stamp"]
        words = [model, release.generation, encoded(release), encoded(entry), MOST_ENTRIES]
        if not await self._do("EVAL", self._swap_text, len(keys), *keys, *words):
            raise Conflict(model)

    async def history(self, model: str) -> Sequence[Entry]:
        return [_ENTRY.decode(each) for each in await self._do("LRANGE", self._history(model), 0, -1)]

    async def lease(self, holder: str, seconds: float) -> bool:
        """Whether `holder` is the one that decides, for so long."""
        key = f"{_BASE}:lease"
        return bool(await self._do("EVAL", self._lease_text, 1, key, holder, round(seconds * 1000)))

    async def keep(self, name: str, data: bytes) -> None:
        """Something beside the state, by name."""
        await self._do("SET", f"{_BASE}:kept:{name}", data)

    async def kept(self, name: str) -> bytes | None:
        data: bytes | None = await self._do("GET", f"{_BASE}:kept:{name}")
        return data

    async def push(self, items: Sequence[bytes], most: int) -> None:
        """Evidence for whoever decides; the oldest is lost where nobody takes it."""
        await self._do("RPUSH", f"{_BASE}:evidence", *items)
        await self._do("LTRIM", f"{_BASE}:evidence", -most, -1)

    async def take(self, most: int) -> Sequence[bytes]:
        items: Sequence[bytes] = await self._do("LPOP", f"{_BASE}:evidence", most) or ()
        return items

    async def close(self) -> None:
        await self._redis.aclose()

    def _history(self, model: str) -> str:
        return f"{_BASE}:history:{model}"

    async def _do(self, *words: Any) -> Any:
        try:
            try:
                return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]
            except MovedError as moved:
                # A cluster: all of this is on one node, and it says which.
                await self._redis.aclose()
                kept = self._redis.connection_pool.connection_kwargs
                options = {name: kept[name] for name in ("username", "password") if name in kept}
                self._redis = Redis(host=moved.host, port=moved.port, **options, **self._options)
                return await self._redis.execute_command(*words)  # type: ignore[no-untyped-call]
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreAway(f"{self._shown} cannot be reached: {error}") from error


def _script(name: str) -> bytes:
    return files(__package__).joinpath(f"{name}.lua").read_bytes()
