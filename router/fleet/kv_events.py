"""What replicas say of their own caches, told to policies in the router's hashes.

Off the path of requests, and never needed: without events, or with bad ones, policies go by what they sent
where. An engine process is heard once for all versions that it serves.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from policies.routing.events import BlocksRemoved, BlocksStored, CacheLost, CacheNews
from router.config.model import KvEventsConfig
from router.engines.kv_cache_events import CacheEvent
from router.fleet.block_map import BlockMap, Change
from router.fleet.control_client import ControlClient
from router.fleet.extras import ExtraMissing
from router.fleet.kv_feed import KvFeed
from router.fleet.kv_figures import KvFigures
from router.fleet.kv_pull import PullFeed, PullPlace
from router.fleet.kv_push import PushFeed, PushPlace
from router.fleet.replicas import Replica
from router.fleet.stations import Alarm, Rounds, Station, Watched
from router.fleet.token_blocks import TokenBlocks
from router.fleet.zmq_links import Links

MAX_BLOCKS: Final = 1 << 17
"""An engine's blocks that are remembered per version: 2 million tokens in blocks of 16, some 40 MB.

To forget them all takes a tenth of a second.
"""


class KvEvents:
    """Hears whom it was told to `follow`, until `close`. Make it inside the event loop it will run on.

    `tell` gets what a replica's policy should observe. `key` is that of the prompts' hashes. `pulls`: whether
    to read events that reading empties; of all processes that share a fleet, one may.
    """

    def __init__(
        self,
        key: bytes,
        tell: Callable[[Replica, CacheNews], None],
        *,
        pulls: bool = True,
        max_blocks: int = MAX_BLOCKS,
    ) -> None:
        self.key = key
        self.tell = tell
        self.pulls = pulls
        self.max_blocks = max_blocks
        self.client = ControlClient(keep_alive=True)
        self._links: Links | None = None
        self._rounds = Rounds(lambda station, watched: EventPost(self, station, watched))

    @property
    def links(self) -> Links:
        """Opened with the first use: fleets without events over ZMQ do not need it. Raises `ExtraMissing`."""
        if self._links is None:
            self._links = Links()
        return self._links

    def follow(self, watched: Iterable[Watched], anew: Iterable[Replica] = ()) -> None:
        """Hear exactly these from now on, of those that have events and token ids to match them by.

        `anew` are those whose policy does not know yet what they have said.
        """
        self._rounds.follow(
            each
            for each in watched
            if each.block_tokens is not None
            and each.station.kv_events is not None
            and (self.pulls or each.station.kv_events.endpoint is not None)
        )

        for replica in anew:
            post = self._rounds.of(replica)
            if post is not None:
                post.begin_anew()

    def hasten(self, replica: Replica) -> None:
        """This one may have started anew: find out."""
        post = self._rounds.of(replica)
        if post is not None:
            post.hasten()

    def pulls_from(self, replica: Replica) -> bool:
        """What this one says, this process alone is told."""
        post = self._rounds.of(replica)
        return post is not None and post.is_pulled

    def figures(self, replica: Replica) -> KvFigures | None:
        """None for a replica that is not followed."""
        post = self._rounds.of(replica)
        return None if post is None else post.figures(replica)

    def cached(self, replica: Replica) -> frozenset[int]:
        """The blocks that it said it caches, by the router's hashes."""
        post = self._rounds.of(replica)
        return frozenset() if post is None else post.cached(replica)

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        """Sentences about why its events are of no use."""
        post = self._rounds.of(replica)
        return () if post is None else post.warnings(replica)

    async def close(self) -> None:
        await self._rounds.close()
        await self.client.close()
        if self._links is not None:
            self._links.close()


class EventPost:
    """The events of one engine process."""

    def __init__(self, owner: KvEvents, station: Station, watched: Sequence[Watched]) -> None:
        self.station = station
        self._owner = owner
        self._feeds: Sequence[KvFeed] = ()
        self._stored: Counter[Replica] = Counter()
        self._removed: Counter[Replica] = Counter()
        self._maps = {each.replica: self._map(each) for each in watched}
        self._failure = ""
        self._changed = Alarm()
        self._now = asyncio.get_running_loop().time

    def _map(self, watched: Watched) -> BlockMap:
        unit = watched.block_tokens or 1
        return BlockMap(TokenBlocks(self._owner.key, unit), watched.adapter, self._owner.max_blocks)

    def assign(self, watched: Sequence[Watched]) -> None:
        """A version that comes later must hear everything from the start, hence all do."""
        units = {each.replica: each.block_tokens or 1 for each in watched}
        known = {each: blocks for each, blocks in self._maps.items() if blocks.unit == units.get(each)}
        for replica in (units.keys() & self._maps.keys()) - known.keys():
            self._tell(replica, Change([], [], lost=True), self._maps[replica].unit)
        self._maps = {
            each.replica: known[each.replica] if each.replica in known else self._map(each)
            for each in watched
        }
        for counts in (self._stored, self._removed):
            for replica in counts.keys() - self._maps.keys():
                del counts[replica]
        if not self._maps.keys() <= known.keys():
            self._changed.ring()

    def begin_anew(self) -> None:
        """Have everything told again, as far as the engine can."""
        self._changed.ring()

    @property
    def is_pulled(self) -> bool:
        config = self.station.kv_events
        return config is not None and config.endpoint is None

    def hasten(self) -> None:
        for feed in self._feeds:
            feed.hasten()

    async def run(self) -> None:
        while True:
            self._begin_anew()
            try:
                self._feeds = self._make_feeds()
            except ExtraMissing as error:
                self._failure = str(error)
            tasks = [asyncio.create_task(feed.run()) for feed in self._feeds]
            changed = asyncio.create_task(self._changed.wait())
            try:
                done, _ = await asyncio.wait([*tasks, changed], return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                for task in (*tasks, changed):
                    task.cancel()
                await asyncio.gather(*tasks, changed, return_exceptions=True)

    def _begin_anew(self) -> None:
        """New feeds tell everything again; what is known from older ones may have gone meanwhile."""
        for replica, blocks in self._maps.items():
            if len(blocks):
                self._maps[replica] = blocks.emptied()
                self._tell(replica, Change([], [], lost=True), blocks.unit)

    def _make_feeds(self) -> Sequence[KvFeed]:
        """One per rank. Raises `ExtraMissing`."""
        config, station = self.station.kv_events, self.station
        if config is None:
            return ()
        if config.endpoint is None:
            place = PullPlace(url=station.url, headers=station.headers, interval_s=config.interval_s)
            return [PullFeed(self._owner.client, place, self)]
        links = self._owner.links
        return [PushFeed(links, push_place(config, rank), self) for rank in range(config.ranks)]

    # ---- what the feeds tell ----

    def heard(self, events: Sequence[CacheEvent], rank: int) -> None:
        for replica, blocks in self._maps.items():
            for event in events:
                self._tell(replica, blocks.apply(event, rank), blocks.unit)

    def lost(self, rank: int) -> None:
        for replica, blocks in self._maps.items():
            self._tell(replica, blocks.clear(rank), blocks.unit)

    def _tell(self, replica: Replica, change: Change, unit: int) -> None:
        tell, now = self._owner.tell, self._now()
        self._stored[replica] += len(change.stored)
        self._removed[replica] += len(change.removed)
        if change.lost:
            tell(replica, CacheLost(replica.id, now))
        if change.stored:
            tell(replica, BlocksStored(replica.id, now, change.stored, unit))
        if change.removed:
            tell(replica, BlocksRemoved(replica.id, now, change.removed))

    # ---- what others read ----

    def cached(self, replica: Replica) -> frozenset[int]:
        return self._maps[replica].hashes

    def figures(self, replica: Replica) -> KvFigures:
        feeds, blocks, now = [feed.figures for feed in self._feeds], self._maps[replica], self._now()
        ages = (feed.last_age_s(now) for feed in feeds)
        return KvFigures(
            connected=bool(feeds) and all(feed.connected for feed in feeds),
            known_blocks=len(blocks),
            events_per_s=sum(feed.events_per_s(now) for feed in feeds),
            last_event_age_s=min((age for age in ages if age is not None), default=None),
            lag_s=max((feed.lag_s for feed in feeds if feed.lag_s is not None), default=None),
            connections=sum(feed.connections for feed in feeds),
            events=sum(feed.events for feed in feeds),
            stored_blocks=self._stored[replica],
            removed_blocks=self._removed[replica],
            orphan_blocks=blocks.orphans,
            gaps=sum(feed.gaps for feed in feeds),
            losses=sum(feed.losses for feed in feeds),
            replays=sum(feed.replays for feed in feeds),
            failed_replays=sum(feed.failed_replays for feed in feeds),
            restarts=sum(feed.restarts for feed in feeds),
            unreadable=sum(feed.unreadable for feed in feeds),
        )

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        """Sentences about why its events are of no use."""
        blocks = self._maps[replica]
        sentences = [feed.figures.trouble for feed in self._feeds if feed.figures.trouble]
        if self._failure:
            sentences.append(f"its KV events cannot be heard: {self._failure}")
        if not blocks.fits:
            sentences.append(
                f"its KV events are of no use: it caches blocks of {blocks.block_size} tokens, "
                f"which is no multiple of kv_block_tokens = {blocks.unit}"
            )
        return tuple(sentences)


def push_place(config: KvEventsConfig, rank: int) -> PushPlace:
    """Where one rank publishes: vLLM and trtllm-serve add its number to the ports."""
    assert config.endpoint is not None
    return PushPlace(
        endpoint=_of_rank(config.endpoint, rank),
        replay_endpoint=None if config.replay_endpoint is None else _of_rank(config.replay_endpoint, rank),
        topic=config.topic,
        rank=rank,
    )


def _of_rank(endpoint: str, rank: int) -> str:
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + rank}" if rank else endpoint
