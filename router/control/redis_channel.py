"""Messages between routers: Redis publish and subscribe, one channel for all and one for each member.

It is healthy while its own messages come back: that proves the way there, the server and the way back.
"""

import asyncio
import contextlib
import logging
from collections import deque
from time import monotonic

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from router.config.secret import SecretUrl
from router.control.channel import Received
from router.control.messages import Member

log = logging.getLogger("turnout.control.redis")

DELAY_S = 0.008
"""With 1 ms to Redis and back, and two event loops, still under the 20 ms that routing bears."""
RETRY_S = 0.3
SILENCE_S = 0.9
"""A member says something five times a second, so this is four of its own messages lost."""
CONNECT_S = 1.0
MAX_WAITING = 256


class RedisChannel:
    """Reaches every member that uses the same database of the same server. What is lost is not sent again."""

    delay_s = DELAY_S
    far = True

    def __init__(self, url: SecretUrl, member: Member) -> None:
        self.dropped = 0
        self._shown = url.masked()
        self._redis = Redis.from_url(
            url.reveal(),
            socket_timeout=SILENCE_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
        )
        # Publishing knows no databases.
        database = self._redis.connection_pool.connection_kwargs.get("db", 0)
        self._all = f"turnout:{database}:sharing"
        self._own = self._name(member)
        self._waiting: deque[tuple[str, bytes]] = deque(maxlen=MAX_WAITING)
        self._ready = asyncio.Event()
        self._heard_at = -SILENCE_S
        self._lost = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def healthy(self) -> bool:
        return monotonic() - self._heard_at < SILENCE_S

    async def start(self, received: Received) -> None:
        """Redis need not be there: this goes on trying."""
        self._heard_at = monotonic()  # it has a first second to prove itself
        self._tasks = [
            asyncio.create_task(self._keep_listening(received)),
            asyncio.create_task(self._keep_sending()),
        ]

    def send(self, message: bytes, to: Member | None = None) -> None:
        self.dropped += len(self._waiting) == MAX_WAITING
        self._waiting.append((self._all if to is None else self._name(to), message))
        self._ready.set()

    async def close(self) -> None:
        for task in self._tasks:
            await _end(task)
        if self.healthy and self._waiting:
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await self._publish()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def _name(self, member: Member) -> str:
        return f"{self._all}:{member.router:08x}{member.origin:08x}"

    async def _keep_sending(self) -> None:
        while True:
            await self._ready.wait()
            try:
                await self._publish()
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(RETRY_S)

    async def _publish(self) -> None:
        """One round trip for all that waits. What fails is dropped: it would be late."""
        self._ready.clear()
        batch = list(self._waiting)
        self._waiting.clear()
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for name, message in batch:
                    pipeline.publish(name, message)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            self.dropped += len(batch)
            raise

    async def _keep_listening(self, received: Received) -> None:
        while True:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(self._all, self._own)
                    await self._listen(subscription, received)
            except (RedisError, OSError, TimeoutError) as error:
                self._note(lost=True, reason=str(error))
            await asyncio.sleep(RETRY_S)

    async def _listen(self, subscription: PubSub, received: Received) -> None:
        """Until nothing comes any more. Raises what ends the connection."""
        last_at = monotonic()
        while True:
            message = await subscription.get_message(timeout=SILENCE_S)
            if message is not None:
                last_at = self._heard_at = monotonic()
                self._note(lost=False)
                received(message["data"])
            elif monotonic() - last_at >= SILENCE_S:
                raise TimeoutError("this router's own messages do not come back")

    def _note(self, *, lost: bool, reason: str = "") -> None:
        """One line when it goes, and one when it returns."""
        if lost and not self._lost:
            log.warning("%s is lost (%s): this router decides by what it sees itself", self._shown, reason)
        elif self._lost and not lost:
            log.info("%s is back", self._shown)
        self._lost = lost


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel it until it has ended: a client library may take a cancellation for a timeout of its own."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)
