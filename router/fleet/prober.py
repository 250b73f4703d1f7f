"""Active health probes: asks every engine process whether it is well and sets `Replica.well`.

A replica is presumed up and asked at once; until its first good answer one bad one takes it down, then
only a streak does. A refused connection and a sleeping engine need no streak: they are no matter of load.
"""

import asyncio
import enum
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from policies.resilience.hysteresis import Hysteresis
from router.config.model import HealthConfig
from router.engines.telemetry import TELEMETRY
from router.fleet.control_client import ControlClient, NoAnswer
from router.fleet.replicas import Replica
from router.fleet.stations import Alarm, Rounds, Station, Watched

log = logging.getLogger("turnout.fleet.prober")

JITTER = 0.1
"""Turns are spread by this share of the interval, so that probes of a fleet do not march in step."""

RETURN_S = 0.4
"""A replica that is down is asked at least this often, so that its return is seen within a second."""

HASTE_S = 0.1
"""However many requests fail at once, two probes of a replica begin at least this far apart."""


class Finding(enum.Enum):
    """What one probe found."""

    WELL = "well"
    UNWELL = "unwell"
    GONE = "gone"
    """No streak is needed to believe this."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe's result. `reason` is for people: `503`, `no answer within 10 s`, `connection refused`."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True)
class HealthChange:
    """A replica went up or down, and what the probe that decided it found.

    `gone`: nobody listened there, or it slept. Who comes back after that has an empty cache.
    """

    replica: Replica
    up: bool
    reason: str
    gone: bool = False


class Prober:
    """Probes what it was told to `follow`, until `close`.

    `changed` is called after `Replica.well` was set. `load_fresh_s`: how old a scrape may be to be believed
    that the engine sleeps.
    """

    def __init__(
        self,
        config: HealthConfig,
        *,
        changed: Callable[[HealthChange], None] | None = None,
        random: Random | None = None,
        load_fresh_s: float = 5.0,
    ) -> None:
        self.config = config
        self.changed = changed
        self.random = random or Random()
        self.load_fresh_s = load_fresh_s
        # A new connection per probe: accepting one is part of being well, and a kept one may be half closed.
        self.client = ControlClient(keep_alive=False)
        self._rounds = Rounds(self._post)

    def _post(self, station: Station, watched: Sequence[Watched]) -> "ProbePost":
        return ProbePost(self, station, watched)

    def follow(self, watched: Iterable[Watched], config: HealthConfig | None = None) -> None:
        """Probe exactly these from now on; call it again when the fleet or its configuration has changed."""
        self.config = config or self.config
        self._rounds.follow(watched)

    def hasten(self, replica: Replica) -> None:
        """Probe this one now: somebody saw it fail, sleep or start again."""
        post = self._rounds.of(replica)
        if post is not None:
            post.hasten()

    async def close(self) -> None:
        await self._rounds.close()
        await self.client.close()


class ProbePost:
    """The probes of one engine process."""

    def __init__(self, prober: Prober, station: Station, watched: Sequence[Watched]) -> None:
        self.station = station
        self._prober = prober
        self._url = station.url + TELEMETRY[station.engine]().health_path
        self._config = prober.config
        self._verdict = _verdict(self._config, up=all(each.replica.well for each in watched))
        self._watched = watched
        self._proven = False
        self._alarm = Alarm()
        self._now = asyncio.get_running_loop().time

    def assign(self, watched: Sequence[Watched]) -> None:
        if self._config != self._prober.config:
            self._config = self._prober.config
            self._verdict = _verdict(self._config, up=self._verdict.up)
        self._watched = watched
        for each in watched:
            each.replica.judge_health(well=self._verdict.up)

    def hasten(self) -> None:
        self._alarm.ring()

    async def run(self) -> None:
        while True:
            begun = self._now()
            self._judge(await self._probe())
            spread = 1 + JITTER * self._prober.random.uniform(-1, 1)
            passed_s = self._now() - begun
            await self._alarm.pause(self._pace_s() * spread - passed_s, HASTE_S - passed_s)

    def _pace_s(self) -> float:
        interval_s = self._config.interval_s
        return interval_s if self._verdict.up else min(interval_s, RETURN_S)

    def _judge(self, probe: Probe) -> None:
        verdict = self._verdict
        before = verdict.up
        good = probe.finding is Finding.WELL
        decisive = probe.finding is Finding.GONE or not self._proven
        self._proven = self._proven or good
        for _ in range(self._config.down_after if decisive and not good else 1):
            verdict.observe(good, self._now())
        if verdict.up != before:
            for each in self._watched:
                self._tell(each.replica, verdict.up, probe)

    def _tell(self, replica: Replica, up: bool, probe: Probe) -> None:
        replica.judge_health(well=up)
        identity = replica.identity
        place = f"replica {replica.id} ({replica.engine.kind}, {identity.model} {identity.version})"
        if up:
            log.info("%s is up", place)
        else:
            log.warning("%s is down: %s", place, probe.reason)
        if self._prober.changed is not None:
            gone = probe.finding is Finding.GONE
            self._prober.changed(HealthChange(replica, up, probe.reason, gone))

    async def _probe(self) -> Probe:
        if self._sleeping():
            return Probe(Finding.GONE, "the engine sleeps")
        try:
            status = await self._prober.client.status(self._url, self.station.headers, self._config.timeout_s)
        except NoAnswer as error:
            return Probe(Finding.GONE if error.refused else Finding.UNWELL, str(error))
        return Probe(Finding.WELL if status == 200 else Finding.UNWELL, f"{self._url} answered {status}")

    def _sleeping(self) -> bool:
        replica = self._watched[0].replica
        fresh = self._now() - replica.load_at <= self._prober.load_fresh_s
        return fresh and replica.load is not None and bool(replica.load.sleeping)


def _verdict(config: HealthConfig, *, up: bool) -> Hysteresis:
    return Hysteresis(Hysteresis.Options(up_after=config.up_after, down_after=config.down_after), up=up)
