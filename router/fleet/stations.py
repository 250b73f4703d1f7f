"""Where engine processes are watched: one station per process, one task per station.

Replicas of several versions may be the same process. It is probed and read once for all of them, which
matters where reading empties what is read (trtllm-serve's JSON metrics).
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from router.config.model import Config, ExpectConfig, KvEventsConfig, ReplicaConfig, VersionConfig
from router.engines.fingerprint import Subject
from router.engines.triton import DEFAULT_MODEL
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet

log = logging.getLogger("turnout.fleet")

RESTART_S = 1.0
"""How soon a post that met a defect is begun again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """One engine process, and what its operator says of it. `place` tells processes apart."""

    engine: str
    url: str
    metrics_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    max_running: int | None = None
    kv_capacity_tokens: int | None = None
    kv_events: KvEventsConfig | None = None

    @property
    def place(self) -> tuple[str, str]:
        return self.engine, self.url

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}


@dataclass(frozen=True, slots=True)
class Watched:
    """A replica, where it is watched, and the name under which the engine should have the model.

    `adapter`: the LoRA adapter that the version is, "" for none. `block_tokens`: the size of the blocks into
    which its prompts' token ids are hashed; None where token ids are not known.
    """

    replica: Replica
    station: Station
    served_name: str = ""
    adapter: str = ""
    block_tokens: int | None = None
    subject: Subject | None = None
    expect: ExpectConfig | None = None


def watched_in(config: Config, fleet: Fleet) -> list[Watched]:
    """What there is to watch in a fleet that was built from `config`."""
    settings: Mapping[tuple[str, str, str], tuple[VersionConfig, ReplicaConfig]] = {
        (model_name, version_name, replica.replica_id): (version, replica)
        for model_name, model in config.models.items()
        for version_name, version in model.versions.items()
        for replica in version.replicas
    }
    watched = []
    for replica in fleet.replicas:
        version, own = settings[replica.identity.model, replica.identity.version, replica.id]
        watched.append(
            Watched(
                replica,
                _station(own),
                version.adapter or version.served_name,
                version.adapter or "",
                None if version.tokenizer is None else version.kv_block_tokens,
                _subject(version, own),
                version.expect,
            )
        )
    return watched


def _subject(version: VersionConfig, config: ReplicaConfig) -> Subject:
    """Triton knows the models of its repository, whatever clients call them."""
    if config.engine == "triton":
        return Subject(config.model_name or DEFAULT_MODEL)
    return Subject(version.adapter or version.served_name, is_adapter=version.adapter is not None)


def _station(config: ReplicaConfig) -> Station:
    return Station(
        engine=config.engine,
        url=config.url.rstrip("/"),
        metrics_url=config.metrics_url,
        api_key=config.api_key.reveal() if config.api_key is not None else None,
        max_running=config.max_running,
        kv_capacity_tokens=config.kv_capacity_tokens,
        kv_events=config.kv_events,
    )


class Post(Protocol):
    """One watcher of one engine process."""

    station: Station

    def assign(self, watched: Sequence[Watched]) -> None:
        """The replicas that are this process now, at least one. Called whenever the fleet has changed."""
        ...

    def hasten(self) -> None:
        """Something happened there: look now instead of at the next turn."""
        ...

    async def run(self) -> None:
        """Watch until cancelled."""
        ...


P = TypeVar("P", bound=Post)
Place = tuple[str, str]


class Rounds(Generic[P]):
    """A post for every process, each in a task of its own, so that a slow one holds up nobody."""

    def __init__(self, post: Callable[[Station, Sequence[Watched]], P]) -> None:
        self._post = post
        self._posts: dict[Place, P] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._by_replica: dict[Replica, P] = {}

    def follow(self, watched: Iterable[Watched]) -> None:
        """Watch exactly these from now on; call it again when the fleet has changed.

        Where several replicas of one process differ in what is said of it, the first is believed.
        """
        groups: dict[Place, list[Watched]] = {}
        for each in watched:
            groups.setdefault(each.station.place, []).append(each)
        for place, post in list(self._posts.items()):
            if place not in groups or groups[place][0].station != post.station:
                self._end(place)
        self._by_replica = {}
        for place, group in groups.items():
            if place in self._posts:
                self._posts[place].assign(group)
            else:
                self._begin(place, group)
            self._by_replica |= dict.fromkeys((each.replica for each in group), self._posts[place])

    def of(self, replica: Replica) -> P | None:
        return self._by_replica.get(replica)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for place in list(self._posts):
            self._end(place)
        self._by_replica = {}
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, place: Place, group: Sequence[Watched]) -> None:
        post = self._posts[place] = self._post(group[0].station, group)
        self._tasks[place] = asyncio.create_task(_keep(post), name=f"watch {place[1]}")

    def _end(self, place: Place) -> None:
        del self._posts[place]
        self._tasks.pop(place).cancel()


async def _keep(post: Post) -> None:
    """A defect in one answer's handling must not end the watch over a replica for good."""
    while True:
        try:
            await post.run()
        except Exception:
            log.exception("watching a replica met a defect of the router; it goes on")
        await asyncio.sleep(RESTART_S)


class Alarm:
    """A pause that can be cut short. What rang before the pause cuts it short too."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        """Until it rings."""
        await self._rung.wait()
        self._rung.clear()

    async def pause(self, seconds: float, least_s: float = 0.0) -> None:
        """Until it rings, but at least `least_s` and at most `seconds`."""
        least_s = max(0.0, min(least_s, seconds))
        if least_s:
            await asyncio.sleep(least_s)
        try:
            async with asyncio.timeout(max(0.0, seconds - least_s)):
                await self._rung.wait()
        except TimeoutError:
            return
        finally:
            self._rung.clear()
