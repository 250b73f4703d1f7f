"""Members that share, in this process and over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random

from policies.outcome import Ending, Outcome
from policies.routing.events import CacheNews, Dispatched, Done, Event, FirstToken, Prompt
from router.control.channel import Channel, Received
from router.control.datagrams import DatagramChannel
from router.control.ledger import ticket_of
from router.control.messages import Member, Place
from router.control.sharing import Sharing
from tests.support.scripted_server import until

OUTCOME = Outcome(Ending.COMPLETED, 1.0, 2.0, 3.0, 100, 50, 7)


class Peer:
    """A member, and all that it hears."""

    def __init__(self, member: Member, channels: Sequence[Channel]) -> None:
        self.sharing = Sharing(member, channels)
        self.heard: list[Event] = []
        self.counts: dict[str, int] = {}
        self.health: list[bool] = []
        self.sharing.on_event(lambda model, version, event: self.heard.append(event))
        self.sharing.on_count(lambda place, count: self.counts.update({place.replica: count}))
        self.sharing.on_health(self.health.append)
        self._serial = 0

    def dispatch(self, replica: str, at: float = 0.0, prompt: Prompt | None = None) -> int:
        """Tell of a new request; its ticket."""
        self._serial += 1
        ticket = ticket_of(self.sharing.member, self._serial)
        self.sharing.publish(Dispatched(replica, ticket, at, prompt), "m", "v1")
        return ticket

    def first_token(self, replica: str, ticket: int, at: float = 0.0) -> None:
        self.sharing.publish(FirstToken(replica, ticket, at), "m", "v1")

    def done(self, replica: str, ticket: int, at: float = 0.0, answer: Prompt | None = None) -> None:
        self.sharing.publish(Done(replica, ticket, at, OUTCOME, answer), "m", "v1")

    def news(self, news: CacheNews) -> None:
        self.sharing.publish_news(news, Place("m", "v1", news.replica))


class LossyChannel:
    """A channel that loses every message with this chance."""

    def __init__(self, channel: Channel, chance: float, seed: int) -> None:
        self._channel = channel
        self._chance = chance
        self._random = Random(seed)
        self.delay_s = channel.delay_s
        self.far = channel.far
        self.healthy = True
        self.dropped = 0

    async def start(self, received: Received) -> None:
        await self._channel.start(received)

    def send(self, message: bytes, to: Member | None = None) -> None:
        if self._random.random() < self._chance:
            self.dropped += 1
        else:
            self._channel.send(message, to)

    async def close(self) -> None:
        await self._channel.close()


@contextlib.asynccontextmanager
async def workers(folder: Path, count: int, *, loss: float = 0.0) -> AsyncIterator[list[Peer]]:
    """So many members of one router, over Unix datagrams, that have heard of each other."""
    members = [Member(1, worker, 0) for worker in range(count)]
    peers = [
        Peer(each, [LossyChannel(DatagramChannel(folder, each), loss, seed=each.worker)]) for each in members
    ]
    async with contextlib.AsyncExitStack() as stack:
        for peer in peers:
            await peer.sharing.start()
            stack.push_async_callback(peer.sharing.close)
        await until(lambda: all(peer.sharing.peers == count - 1 for peer in peers))
        yield peers


async def cut(peer: Peer) -> None:
    """End a member as a crash does: it says nothing any more, and its socket is closed."""
    peer.sharing._beat.cancel()  # type: ignore[union-attr]
    for outbox in peer.sharing._outboxes:
        await outbox.channel.close()
    await asyncio.sleep(0)
