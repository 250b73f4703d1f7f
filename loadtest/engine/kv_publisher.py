"""KV events over ZMQ as vLLM's `ZmqEventPublisher` sends them, and trtllm-serve after it.

A message is topic, number (8 bytes, big-endian, from 0) and payload. A second socket sends again, to whoever
asks with a number, every batch from that one on which is still kept.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Final, Literal

import msgspec

from router.fleet.zmq_links import Link, Links

_END: Final = b"\xff" * 8
_NUMBER_BYTES: Final = 8
_REPLAY_QUEUE: Final = 1_000
"""ZeroMQ's own default, which the real one leaves; beyond it a replay has holes."""


class KvEventsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON of `--kv-events-config`, with vLLM's defaults."""

    enable_kv_cache_events: bool = False
    publisher: Literal["zmq", "null"] = "zmq"
    endpoint: str = "tcp://*:5557"
    """Bound where it holds a wildcard or is local, else connected to."""
    replay_endpoint: str | None = None
    buffer_steps: int = 10_000
    """Batches kept for replay."""
    hwm: int = 100_000
    """Batches that wait for a slow subscriber before it loses some; 0: no bound."""
    max_queue_size: int = 100_000
    """Of the real one's thread; there is none here."""
    topic: str = ""


def config_of(text: str) -> KvEventsConfig | None:
    """None for no text, and where events are off. Raises `ValueError` for text that is no such JSON."""
    try:
        config = msgspec.json.decode(text, type=KvEventsConfig) if text else KvEventsConfig()
    except msgspec.DecodeError as error:
        raise ValueError(f"kv_events_config is not the JSON it should be: {error}") from None
    return config if config.enable_kv_cache_events and config.publisher == "zmq" else None


class KvPublisher:
    """One rank's sockets: closed until `open`, and what is published meanwhile is kept for replay only."""

    def __init__(self, config: KvEventsConfig, rank: int, *, replays_topic: bool) -> None:
        self.withheld = False
        """Keep the next batches from subscribers, as a full queue does; replays have them."""
        self._config = config
        self._endpoint = of_rank(config.endpoint, rank)
        self._replay_endpoint = config.replay_endpoint and of_rank(config.replay_endpoint, rank)
        self._topic = config.topic.encode()
        self._replays_topic = replays_topic
        self._numbers = count()
        self._kept: deque[tuple[bytes, bytes]] = deque(maxlen=config.buffer_steps)
        self._links: Links | None = None
        self._link: Link | None = None
        self._replaying: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Raises `LinkError` and `ExtraMissing`. Does nothing if it is open."""
        if self._links is not None:
            return
        self._links = Links()
        local = self._endpoint.startswith(("ipc://", "inproc://"))
        bind = local or "*" in self._endpoint or "::" in self._endpoint
        self._link = self._links.publisher(self._endpoint, self._config.hwm, bind=bind)
        if self._replay_endpoint:
            router = self._links.router(self._replay_endpoint, _REPLAY_QUEUE)
            self._replaying = asyncio.get_running_loop().create_task(self._keep_replaying(router))

    def close(self) -> None:
        """At once; what was not sent is dropped."""
        if self._replaying is not None:
            self._replaying.cancel()
        if self._links is not None:
            self._links.close()
        self._links = self._link = self._replaying = None

    def publish(self, payload: bytes) -> None:
        """Number a batch, keep it, and send it to whoever listens and has room."""
        number = next(self._numbers).to_bytes(_NUMBER_BYTES, "big")
        self._kept.append((number, payload))
        if self._link is not None and not self.withheld:
            self._link.offer((self._topic, number, payload))

    async def _keep_replaying(self, router: Link) -> None:
        while True:
            frames = await router.receive()
            if len(frames) == 3:
                await self._replay(router, frames[0], frames[2])

    async def _replay(self, router: Link, client: bytes, start: bytes) -> None:
        topic, none = ((self._topic,), (b"",)) if self._replays_topic else ((), ())
        for number, payload in list(self._kept):
            if number >= start:
                await router.send((client, b"", *topic, number, payload))
        await router.send((client, b"", *none, _END, b""))


class Steps:
    """Gathers what happens in one turn of the event loop, and hands it on together, as one step's.

    What happens between steps waits for the next one: a flush is told with what is cached after it.
    """

    def __init__(self, flush: Callable[[list[object]], None]) -> None:
        self._flush = flush
        self._events: list[object] = []
        self._ending = False

    def add(self, event: object) -> None:
        """Of a step."""
        if not self._ending:
            self._ending = True
            asyncio.get_running_loop().call_soon(self._end)
        self._events.append(event)

    def add_between(self, event: object) -> None:
        self._events.append(event)

    def _end(self) -> None:
        events, self._events, self._ending = self._events, [], False
        self._flush(events)


def of_rank(endpoint: str, rank: int) -> str:
    """Each data-parallel rank has the next port; raises `ValueError` where there is none to count on."""
    if not rank:
        return endpoint
    if not endpoint.startswith("tcp://"):
        return f"{endpoint}_dp{rank}"
    host, _, port = endpoint.rpartition(":")
    return f"{host}:{int(port) + rank}"
