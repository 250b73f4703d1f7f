"""Stores of limits on a real Redis-compatible server, and what they are asked."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import count

import redis

from policies.limits.ask import Ask, Budget, Slots
from router.config.process import OnRedisFailure, RedisConfig
from router.config.secret import SecretUrl
from router.control.limits.redis_store import RedisStore
from tests.support.scripted_server import until

SECOND = 1_000_000
PATIENT_MS = 5000.0
"""No test of what is counted may take this machine's pauses for those of Redis."""
HASTY_MS = 50.0

_ids = count()


def key(name: str, tenant: str = "t:search") -> str:
    return f"turnout:{{{tenant}}}:{name}"


def ask(
    cost_us: int = SECOND, window_us: int = 10 * SECOND, *, name: str = "l::r", tenant: str = "t:search"
) -> Ask:
    """One budget."""
    return Ask(f"a{next(_ids)}", [Budget(key(name, tenant), cost_us, window_us)])


def slot_ask(most: int, *, name: str = "l::c", tenant: str = "t:search") -> Ask:
    return Ask(f"s{next(_ids)}", (), [Slots(key(name, tenant), most)])


@contextlib.asynccontextmanager
async def store(
    url: str,
    *,
    timeout_ms: float = PATIENT_MS,
    on_failure: OnRedisFailure = "local_share",
    processes: int = 1,
    sequenced: bool = False,
    here: bool = True,
) -> AsyncIterator[RedisStore]:
    """A store that has found its server, where it is `here`."""
    config = RedisConfig(url=SecretUrl(url), timeout_ms=timeout_ms, on_failure=on_failure)
    made = RedisStore(config, processes=processes, sequenced=sequenced)
    await made.start()
    try:
        if here:
            await until(lambda: made.state.healthy)
        yield made
    finally:
        await made.close()


@contextlib.contextmanager
def looking_into(url: str) -> Iterator["redis.Redis"]:
    """An ordinary client, to look at what is there."""
    client = redis.Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def contents(url: str) -> dict[bytes, object]:
    """All buckets and leases, bit for bit."""
    client = redis.Redis.from_url(url)
    found: dict[bytes, object] = {}
    for name in client.scan_iter("turnout:*"):
        if name.endswith((b":members", b":generation", b":seq")):
            continue
        kind = client.type(name)
        found[name] = client.get(name) if kind == b"string" else client.zrange(name, 0, -1, withscores=True)
    client.close()
    return found
