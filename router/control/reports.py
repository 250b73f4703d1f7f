"""What the workers of one router and its overview tell each other: figures upwards, wishes downwards."""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec

from policies.limits.rules import Subject
from router.control.limits.store import StoreState
from router.control.messages import Member, Place
from router.engines.engine import ReplicaLoad
from router.fleet.kv_figures import KvFigures
from router.fleet.own_measurements import OwnMeasurements
from router.observe.series import Series
from router.observe.shadow import ShadowKey, ShadowTally

MAX_FRAME_BYTES = 64 * 1024 * 1024


class ReplicaReport(msgspec.Struct, array_like=True, frozen=True):
    """One replica as one worker sees it."""

    place: Place
    up: bool
    draining: bool
    in_flight: int
    waiting: int
    measured: OwnMeasurements
    kv: KvFigures | None = None
    kv_warnings: tuple[str, ...] = ()
    warm_joins: dict[str, int] = {}
    """Prompts sent to warm its cache, by what came of them."""
    tokens: float = 0.0
    """What this worker's requests are estimated to hold there."""


class LimitReport(msgspec.Struct, array_like=True, frozen=True):
    """Limits as one worker sees them: whose requests were counted lately, and its way to the store."""

    subjects: list[Subject]
    store: StoreState


class WorkerReport(msgspec.Struct, frozen=True):
    """One worker: its counters since it began, and its replicas now. `asked`: the question it answers."""

    asked: int
    number: int
    """Of the worker, from 1; a successor has the same."""
    member: Member
    pid: int
    series: list[tuple[tuple[str, str, str], Series]]
    """By model, version and engine."""
    replicas: list[ReplicaReport]
    dropped_log_lines: int
    dropped_messages: int
    queued: list[tuple[str, str, int]]
    """Model, version, and how many requests wait for it; those for which none do are left out."""
    peers: int
    """Other workers, and other routers' workers, that it hears."""
    cpu_s: float
    resident_bytes: int
    limits: LimitReport | None = None
    generation: int = 1
    """Of the configuration that it serves by."""
    shadows: list[tuple[ShadowKey, ShadowTally]] = []
    """What came of copies for shadow versions."""


class Ask(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """Report now."""

    number: int


class Loads(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """What engines said of themselves, and when, on the clock that all processes of a host share."""

    loads: list[tuple[Place, float, ReplicaLoad]]


class Draining(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """Exactly these replicas get no new requests, by an operator's wish."""

    places: list[Place]


class LookAgain(msgspec.Struct, array_like=True, frozen=True, tag=4):
    """An engine fell asleep, woke up or began anew: probe it now."""

    place: Place


Wish = Ask | Loads | Draining | LookAgain

T = TypeVar("T")


class Frames(Generic[T]):
    """Values as frames on a stream: four bytes of length, then msgpack."""

    def __init__(self, kind: type[T]) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def pack(self, value: object) -> bytes:
        data = self._encode(value)
        return len(data).to_bytes(4, "big") + data

    async def read(self, reader: asyncio.StreamReader) -> T:
        """Raises `IncompleteReadError` at the end, `ValueError` for what is no such value."""
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_FRAME_BYTES:
            raise ValueError(f"a frame of {size} bytes")
        return self._decode(await reader.readexactly(size))


def places(reports: list[WorkerReport]) -> Iterator[tuple[Place, list[ReplicaReport]]]:
    """Each replica, and what every worker says of it."""
    by_place: dict[Place, list[ReplicaReport]] = {}
    for report in reports:
        for each in report.replicas:
            by_place.setdefault(each.place, []).append(each)
    yield from by_place.items()
