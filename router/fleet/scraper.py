"""Reads what every engine process says of itself: its metrics each period, its identity when it (re)starts.

Off the path of requests: when a reading fails, routing goes on by the router's own counts, and the figures
say so. A process is read by one task, never more often than the period: some engines' metrics are emptied
by reading.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential

from router.config.model import ScrapeConfig
from router.engines.engine import ReplicaLoad, Telemetry
from router.engines.telemetry import TELEMETRY
from router.fleet.control_client import ControlClient, NoAnswer
from router.fleet.detection import Identification, Seen, mismatches
from router.fleet.figures import FigureRules, Figures, History, Reading, figures
from router.fleet.replicas import Replica
from router.fleet.stations import Alarm, Rounds, Station, Watched

log = logging.getLogger("turnout.fleet.scraper")

METRICS_PORTS: Mapping[str, int] = {"triton": 8002}
"""Engines whose metrics are on a port of their own."""

JITTER = 0.1
LONGEST_PAUSE_S = 5.0
"""Between two attempts at metrics that cannot be read, unless the period is longer."""


class MetricsPlace(NamedTuple):
    """Where metrics may be: `path` tells `Telemetry.load_from` what the answer holds."""

    url: str
    path: str
    headers: Mapping[str, str]

    def __str__(self) -> str:
        """Without a query: it may hold a key."""
        return self.url.partition("?")[0]


class NoMetrics(Exception):
    """Nothing readable at any of the places; the message says what was there."""


class Scraper:
    """Reads what it was told to `follow`, until `close`, and lets each `Replica.read` it.

    `noticed` is called when a reading shows that an engine fell asleep, woke up or began anew; `restarted` in
    the last case, for every replica of its process.
    """

    def __init__(
        self,
        config: ScrapeConfig,
        *,
        noticed: Callable[[Replica], None] | None = None,
        restarted: Callable[[Replica], None] | None = None,
        random: Random | None = None,
    ) -> None:
        self.config = config
        self.noticed = noticed
        self.restarted = restarted
        self.random = random or Random()
        self.client = ControlClient(keep_alive=True)
        self._rounds = Rounds(lambda station, watched: ScrapePost(self, station, watched))

    def follow(self, watched: Iterable[Watched], config: ScrapeConfig | None = None) -> None:
        """Read exactly these from now on; call it again when the fleet or its configuration has changed."""
        self.config = config or self.config
        self._rounds.follow(watched)

    def hasten(self, replica: Replica) -> None:
        """This one may have started anew: ask who it is, and read it as soon as the period allows."""
        post = self._rounds.of(replica)
        if post is not None:
            post.hasten()

    def figures(self, replica: Replica) -> Figures | None:
        """As of the last reading, or the last failure to get one; None before that."""
        post = self._rounds.of(replica)
        return None if post is None else post.figures.get(replica)

    def seen(self, replica: Replica) -> Seen | None:
        """What it said it is; None before it answered."""
        post = self._rounds.of(replica)
        return None if post is None else post.seen

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        """Sentences about what was configured of it and is not so, or cannot be read."""
        post = self._rounds.of(replica)
        return () if post is None else post.warnings(replica)

    async def close(self) -> None:
        await self._rounds.close()
        await self.client.close()


class ScrapePost:
    """The readings of one engine process."""

    def __init__(self, scraper: Scraper, station: Station, watched: Sequence[Watched]) -> None:
        self.station = station
        self.figures: dict[Replica, Figures] = {}
        self._scraper = scraper
        telemetry = TELEMETRY[station.engine](
            max_running=station.max_running, kv_capacity_tokens=station.kv_capacity_tokens
        )
        self._telemetry = telemetry
        self._lagging = telemetry.lagging
        self._places = metrics_places(station, telemetry)
        self._kept: MetricsPlace | None = None
        """The place that was readable last."""
        self._failure = ""
        self._sleeping = False
        self._watched = watched
        self._histories: dict[Replica, History] = {}
        self._alarm = Alarm()
        self._identity = Identification(scraper.client, station, self._timeout_s, self._identified)
        self._now = asyncio.get_running_loop().time
        self._read_at = 0.0
        """When the last reading was begun."""

    @property
    def seen(self) -> Seen | None:
        return self._identity.seen

    def assign(self, watched: Sequence[Watched]) -> None:
        self._watched = watched
        replicas = {each.replica for each in watched}
        self._histories = {each: known for each, known in self._histories.items() if each in replicas}
        self.figures = {each: known for each, known in self.figures.items() if each in replicas}

    def hasten(self) -> None:
        self._identity.again()
        self._alarm.ring()

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        failure = (f"its metrics cannot be read: {self._failure}",) if self._failure else ()
        names = [each.served_name for each in self._watched if each.replica is replica]
        if self.seen is None or not names:
            return failure
        return (*mismatches(self.seen, engine=self.station.engine, served_name=names[0]), *failure)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_reading())
            tasks.create_task(self._identity.run())

    def _timeout_s(self) -> float:
        return self._scraper.config.timeout_s

    def _identified(self, seen: Seen) -> None:
        for each in self._watched:
            for complaint in mismatches(seen, engine=self.station.engine, served_name=each.served_name):
                log.warning("replica %s: %s", each.replica.id, complaint)

    # ---- metrics ----

    async def _keep_reading(self) -> None:
        while True:
            period_s = self._scraper.config.interval_s
            retrying = AsyncRetrying(
                retry=retry_if_exception_type(NoMetrics),
                wait=wait_exponential(multiplier=period_s, max=max(period_s, LONGEST_PAUSE_S)),
                sleep=self._pause,
                before_sleep=self._failed,
            )
            self._succeeded(await retrying(self._read))
            spread = 1 + JITTER * self._scraper.random.uniform(-1, 1)
            await self._pause(self._read_at + period_s * spread - self._now())

    async def _pause(self, seconds: float) -> None:
        """An alarm ends the pause, but not before the period is over."""
        least_s = self._read_at + self._scraper.config.interval_s * (1 - JITTER) - self._now()
        await self._alarm.pause(seconds, least_s)

    async def _read(self) -> ReplicaLoad:
        """One reading. Raises `NoMetrics`."""
        self._read_at = self._now()
        reasons = []
        for place in (self._kept,) if self._kept else self._places:
            try:
                load = await self._read_place(place)
            except NoAnswer as error:
                reasons.append(f"{place}: {error}")
            except ValueError as error:
                self._kept = None
                reasons.append(f"{place}: {error}")
            else:
                self._kept = place
                return load
        raise NoMetrics("; ".join(reasons))

    async def _read_place(self, place: MetricsPlace) -> ReplicaLoad:
        """Raises `NoAnswer`, and `ValueError` for what is not metrics."""
        answer = await self._scraper.client.get(place.url, place.headers, self._timeout_s())
        if answer.status != 200:
            raise ValueError(f"answered {answer.status}")
        return self._telemetry.load_from(place.path, answer.content)

    def _succeeded(self, load: ReplicaLoad) -> None:
        if self._failure:
            log.info("metrics of %s can be read again", self.station.url)
            self._failure = ""
        now = self._now()
        for each in self._watched:
            each.replica.read(load, now)
        restarted = self._note(load)
        fell_asleep_or_woke = bool(load.sleeping) != self._sleeping
        self._sleeping = bool(load.sleeping)
        if restarted:
            log.info("%s began anew: its counters fell", self.station.url)
            self._identity.again()
            if self._scraper.restarted is not None:
                for each in self._watched:
                    self._scraper.restarted(each.replica)
        if (restarted or fell_asleep_or_woke) and self._scraper.noticed is not None:
            self._scraper.noticed(self._watched[0].replica)

    async def _failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if not self._failure:
            log.warning("metrics of %s (%s) cannot be read: %s", self.station.url, self.station.engine, error)
        self._failure = str(error)
        self._note(None)

    def _note(self, load: ReplicaLoad | None) -> bool:
        """Renew the figures, also without a reading. True if the engine began anew."""
        rules = FigureRules(
            scrape_period_s=self._scraper.config.interval_s,
            lagging=self._lagging,
            max_running=self.station.max_running,
            kv_capacity_tokens=self.station.kv_capacity_tokens,
        )
        now = self._now()
        restarted = False
        for replica in (each.replica for each in self._watched):
            own = replica.meter.read(replica.own_in_flight, replica.waiting)
            history = self._histories.get(replica, History()).add(Reading(now, own, load), rules)
            self._histories[replica] = history
            self.figures[replica] = figures(history, own, now, rules)
            restarted = restarted or history.restarted
        return restarted


def metrics_places(station: Station, telemetry: Telemetry) -> tuple[MetricsPlace, ...]:
    """In the order in which they are tried. The replica's key goes to the replica's own host only."""
    own = urlsplit(station.url)
    if station.metrics_url is not None:
        other = urlsplit(station.metrics_url)
        headers = station.headers if other.hostname == own.hostname else {}
        return (MetricsPlace(station.metrics_url, other.path, headers),)
    base = station.url
    port = METRICS_PORTS.get(station.engine)
    if port is not None:
        host = f"[{own.hostname}]" if ":" in (own.hostname or "") else own.hostname
        base = own._replace(netloc=f"{host}:{port}").geturl()
    return tuple(MetricsPlace(base + path, path, station.headers) for path in telemetry.metrics_paths)
