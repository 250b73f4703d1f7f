"""KV events on real sockets: a publisher to misuse, and a listener that mirrors what it is told."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from loadtest.engine.kv_publisher import KvEventsConfig, KvPublisher
from loadtest.engine.vllm_kv_events import Isolation, Layout, Removed, Stored
from router.engines.kv_cache_events import CacheEvent
from router.fleet.block_map import BlockMap
from router.fleet.token_blocks import TokenBlocks
from router.fleet.zmq_links import Link

BLOCK = 4
NEWEST = Layout((0, 32))
HASHER = TokenBlocks(b"key", BLOCK)


def places(folder: Path) -> tuple[str, str]:
    """Endpoints for events and for replays: local paths, because ports could be somebody else's."""
    return f"ipc://{folder / 'kv'}", f"ipc://{folder / 're'}"


def config_json(folder: Path, *, replays: bool = True, **more: object) -> str:
    """As `--kv-events-config` takes it."""
    endpoint, replay = places(folder)
    values = {"enable_kv_cache_events": True, "endpoint": endpoint, "topic": "kv-events", **more}
    return json.dumps({**values, "replay_endpoint": replay} if replays else values)


def stored(number: int, parent: int | None = None, count: int = 1) -> Stored:
    """Block `number` and those after it; their tokens follow from the number."""
    hashes = [number + at for at in range(count)]
    return Stored(hashes, parent, _tokens(hashes), BLOCK, Isolation())


def hash_of(*numbers: int) -> int:
    """The router's hash of the last of these blocks, which follow each other."""
    return HASHER.hash(_tokens(numbers))[-1]


def _tokens(numbers: Sequence[int]) -> list[int]:
    return [each % 100_003 * 10 + at for each in numbers for at in range(BLOCK)]


class Mirror:
    """What a replica caches, from what is heard of it."""

    def __init__(self) -> None:
        self.blocks = BlockMap(HASHER, "", 100_000)
        self.heard_events = 0
        self.lost_times = 0

    @property
    def hashes(self) -> frozenset[int]:
        return self.blocks.hashes

    def heard(self, events: Sequence[CacheEvent], rank: int) -> None:
        for event in events:
            self.blocks.apply(event, rank)
        self.heard_events += len(events)

    def lost(self, rank: int) -> None:
        self.blocks.clear(rank)
        self.lost_times += 1


class Publishing:
    """A publisher that sends one event a batch."""

    def __init__(
        self,
        folder: Path,
        layout: Layout = NEWEST,
        *,
        replays: bool = True,
        kept: int = 1000,
        hwm: int = 100_000,
    ) -> None:
        endpoint, replay = places(folder)
        self._config = KvEventsConfig(
            endpoint=endpoint,
            replay_endpoint=replay if replays else None,
            buffer_steps=kept,
            hwm=hwm,
            topic="kv-events",
        )
        self._layout = layout
        self._time = 0.0
        self.kv = self._new()

    def _new(self) -> KvPublisher:
        return KvPublisher(self._config, 0, replays_topic=self._layout.replays_topic)

    @property
    def link(self) -> Link:
        """For what no publisher sends."""
        assert self.kv._link is not None
        return self.kv._link

    def send(self, *events: object, hidden: bool = False) -> None:
        """One batch each. `hidden`: subscribers do not get them."""
        self.kv.withheld = hidden
        for event in events:
            self._time += 1
            self.kv.publish(self._layout.batch(self._time, [event], 0))
        self.kv.withheld = False

    def remove(self, *numbers: int) -> None:
        self.send(*map(Removed, numbers))

    def restart(self) -> None:
        """Another process in its place."""
        self.kv.close()
        self.kv = self._new()
        self.kv.open()


@contextlib.asynccontextmanager
async def publishing(
    folder: Path, layout: Layout = NEWEST, *, replays: bool = True, kept: int = 1000, hwm: int = 100_000
) -> AsyncIterator[Publishing]:
    publisher = Publishing(folder, layout, replays=replays, kept=kept, hwm=hwm)
    publisher.kv.open()
    try:
        yield publisher
    finally:
        publisher.kv.close()
