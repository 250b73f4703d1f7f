"""The parts of a router's overview, put together: the one process that shows and steers all workers as one.

It is a process of its own because any worker may die. It may die too: workers serve on, and tell a new one
all but the counts of workers that were gone before. It also reads the replicas' metrics for all, since
some engines empty what is read. So it is with KV events: those that can be read once it tells the workers.
"""

import asyncio
from collections.abc import Iterable, Mapping
from random import Random
from time import monotonic, time

from policies.release.lifecycle import Release
from policies.routing.events import CacheLost, CacheNews, Forgotten
from router.admin.app import Sources, create_admin_app
from router.admin.limits import board_for, limit_board
from router.api.openai import RequestRules
from router.config.model import Config
from router.config.origin import Origin
from router.config.published import Published
from router.config.reload import Reloader
from router.control.desk import Desk
from router.control.hearing import Hearing, place_of
from router.control.keys import KeyRing
from router.control.kv_sums import KvSums
from router.control.limits.of_config import rules_of
from router.control.membership import Seat, join
from router.control.messages import Place
from router.control.releases.releases import Releases
from router.control.report_sums import added, queued_in, sum_of
from router.control.reports import Draining, Loads, LookAgain, ReplicaReport, Wish, places
from router.control.roll import Roll
from router.engines.engine import ReplicaLoad
from router.fleet.build import Tokenizers, build_fleet
from router.fleet.fingerprint import Verifier
from router.fleet.kv_events import KvEvents
from router.fleet.own_measurements import total
from router.fleet.rebuild import rebuild
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.fleet.scraper import Scraper
from router.fleet.stations import watched_in
from router.fleet.traffic import with_traffic
from router.observe.gauges import ReplicaGauges
from router.observe.kv_events import KvEventMetrics
from router.observe.limits import LimitStoreMetrics
from router.observe.metrics import RouterMetrics
from router.observe.queues import QueueGauge
from router.observe.releases import ReleaseMetrics
from router.observe.shadow import ShadowMetrics, summed
from router.observe.warm_joins import WarmJoinCounts
from router.observe.workers import WorkerGauges

LOOK_S = 0.5
SPREAD_S = 0.05
"""How soon workers have what an engine said; it is said about once a second."""
LEARNING_S = 2.0
"""So long after its start an overview believes workers about what is draining: it may be a new one."""


class Overview:
    """Shows the sum of all workers as if it were one router. Make it inside the event loop it will run on."""

    def __init__(
        self, config: Config, seat: Seat, *, origin: Origin | None = None, published: Published | None = None
    ) -> None:
        """`origin` is the file that all follow; what is in force is told to them by way of `published`."""
        self.config = config
        self._seat = seat
        self._tokenizers = Tokenizers()
        self._fleet = build_fleet(config, Random(), seat.prefix_key, tokenizers=self._tokenizers)
        # Its policies learn what the workers' learn, so that they can explain what those would choose.
        self._sharing = join(config, seat)
        self._hearing = (
            None if self._sharing is None else Hearing(self.current_fleet, self._sharing, counts=False)
        )
        self._replicas = {place_of(replica): replica for replica in self._fleet.replicas}
        self._scraper = Scraper(config.scrape, noticed=self._noticed, restarted=self._restarted)
        self._verifier = Verifier(config.health)  # workers have their own: this one is for what is shown
        self._kv_events = KvEvents(seat.prefix_key, self._learn)
        self._kv_sums = KvSums(self._kv_events)
        self._limits = limit_board(config, seat)
        self._keys = KeyRing(config.keys, time)
        self._releases = Releases(config, seat, self.current_fleet, self._released, has_office=True)
        self._roll = Roll(lambda: self._desk.reports)
        self._desk = Desk(self._greeting, self._roll.keep)
        self._told_at: dict[Place, float] = {}
        self._learning_until = monotonic() + LEARNING_S
        self._tasks: list[asyncio.Task[None]] = []
        self._shadows = lambda: summed(report.shadows for report in self._roll.all)
        self.metrics = self._metrics()
        self.reloader = Reloader(
            config,
            self.apply,
            self.metrics.config,
            origin,
            history=None if published is None else published.read(),
            publish=None if published is None else published.write,
        )
        sources = Sources(
            fleet=self.current_fleet,
            metrics=self.metrics,
            reports=self._scraper,
            rules=RequestRules(max_depth=config.server.max_json_depth),
            workers=self,
            kv_events=self._kv_sums,
            limits=lambda: self._limits,
            keys=self._keys,
            reloader=self.reloader,
            shadows=self._shadows,
            releases=self._releases.office,
        )
        self.admin_app = create_admin_app(sources, config.admin)

    def _metrics(self) -> RouterMetrics:
        more = [
            ReplicaGauges(self.current_fleet, self._scraper.figures, monotonic),
            KvEventMetrics(self.current_fleet, self._kv_sums.figures),
            WorkerGauges(lambda: self._desk.reports),
            WarmJoinCounts(self.current_fleet),
            LimitStoreMetrics(lambda: None if self._limits is None else self._limits.state),
            QueueGauge(self.current_fleet),
            ShadowMetrics(self._shadows),
        ]
        if self._releases.office is not None:
            more.append(ReleaseMetrics(self.current_fleet, self._releases.office))
        return RouterMetrics(self.current_fleet, more=more, dropped_log_lines=self._dropped_log_lines)

    def _dropped_log_lines(self) -> int:
        return sum(report.dropped_log_lines for report in self._roll.all)

    def current_fleet(self) -> Fleet:
        return self._fleet

    async def start(self) -> None:
        """Raises `OSError` if the folder of its seat cannot be used."""
        await self._desk.start(self._seat.folder)
        self._releases.start()
        if self._sharing is not None:
            await self._sharing.start()
        if self._limits is not None:
            await self._limits.store.start()
        self._follow()
        self._take_over()
        keeping = (self._keep_looking(), self._keep_spreading(), self.reloader.run())
        self._tasks = [asyncio.create_task(each) for each in keeping]

    async def apply(self, config: Config) -> None:
        """Show and steer by `config` from now on; see `router.compose.Router.apply`."""
        await asyncio.to_thread(self._tokenizers.load, config)
        rebuilt = rebuild(self._fleet, self.config, config, self._seat.prefix_key, self._tokenizers)
        self._limits = await board_for(config, self._seat, self._limits)
        rebuilt.put_in_place()
        self.config = config
        self._fleet = with_traffic(rebuilt.fleet, config.models, self._releases.in_force)
        self._releases.reconfigure(config)
        self._replicas = {place_of(replica): replica for replica in self._fleet.replicas}
        self._told_at = {place: at for place, at in self._told_at.items() if place in self._replicas}
        if self._hearing is not None:
            self._hearing.follow()
        if self._limits is not None:
            self._limits.renew(rules_of(config))
        self._keys.renew(config.keys)
        self._follow(rebuilt.anew)

    def _follow(self, anew: Iterable[Replica] = ()) -> None:
        watched = watched_in(self.config, self._fleet)
        self._verifier.follow(watched, self.config.health)
        self._scraper.follow(watched, self.config.scrape)
        self._kv_events.follow(watched, anew)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._releases.close()
        await self._verifier.close()
        await self._scraper.close()
        await self._kv_events.close()
        if self._sharing is not None:
            await self._sharing.close()
        if self._limits is not None:
            await self._limits.store.close()
        await self._desk.close()

    def _released(self, releases: Mapping[str, Release]) -> None:
        self._fleet = with_traffic(self._fleet, self.config.models, releases)

    # ---- for the admin listener ----

    async def refresh(self) -> None:
        """Have the numbers of now, as far as workers answer."""
        await self._desk.refresh()
        self._show()

    def draining_changed(self) -> None:
        """An operator has set `Replica.draining` here: it is so in all workers."""
        self._learning_until = 0.0
        self._desk.tell(self._draining())

    def _restarted(self, replica: Replica) -> None:
        """An engine began anew: its cache is empty, whatever was sent there."""
        self._verifier.doubt(replica)
        self._kv_events.hasten(replica)
        place, event = place_of(replica), Forgotten(replica.id, monotonic())
        policy = self._fleet.pools[place.model, place.version].policy
        if policy.learns:
            policy.observe(event)
        if self._sharing is not None:
            self._sharing.publish(event, model=place.model, version=place.version)

    def _take_over(self) -> None:
        """What blocks an overview before this one told of, nobody knows: they might stay for ever."""
        for replica in self._fleet.replicas:
            if self._kv_events.pulls_from(replica):
                self._learn(replica, CacheLost(replica.id, monotonic()))

    def _learn(self, replica: Replica, event: CacheNews) -> None:
        """A replica said something of its cache. Workers hear some for themselves, the others from here."""
        place = place_of(replica)
        route = self._fleet.routes.get(f"{place.model}@{place.version}")
        if route is not None and route.pool.policy.learns:
            route.pool.policy.observe(event)
        if self._sharing is not None and self._kv_events.pulls_from(replica):
            self._sharing.publish_news(event, place)

    # ---- from the workers ----

    def _show(self) -> None:
        self._roll.forget_returned()
        now, ever = dict(places(self._desk.reports)), dict(places(self._roll.all))
        for place, replica in self._replicas.items():
            self._show_replica(replica, now.get(place, []), ever.get(place, []))
            self._kv_sums.show(place, now.get(place, []), ever.get(place, []))
        queued = queued_in(self._desk.reports)
        for version, pool in self._fleet.pools.items():
            pool.queued = queued[version]
        config = self.metrics.config
        config.behind = sum(report.generation != config.generation for report in self._desk.reports)
        if self._limits is not None:
            self._limits.hear([report.limits for report in self._desk.reports if report.limits is not None])
        self.metrics.replace(sum_of(self._roll.all))

    def _show_replica(self, replica: Replica, now: list[ReplicaReport], ever: list[ReplicaReport]) -> None:
        """Up is what all workers find up: one that some do not use is not all right."""
        if monotonic() < self._learning_until and any(report.draining for report in now):
            replica.draining = True
        own = sum(report.in_flight for report in now)
        known = 0 if self._sharing is None else self._sharing.count_elsewhere(place_of(replica))
        replica.elsewhere = max(0, known - own)
        replica.in_flight = own + replica.elsewhere
        replica.tokens = sum(report.tokens for report in now)
        replica.waiting = sum(report.waiting for report in now)
        replica.meter.replace(total(report.measured for report in ever))
        replica.warm_joins = added(report.warm_joins for report in ever)
        up = all(report.up for report in now) if now else replica.up
        if up and not replica.up:
            self._scraper.hasten(replica)
            self._kv_events.hasten(replica)
        replica.up = up

    async def _keep_looking(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_S)

    # ---- to the workers ----

    def _greeting(self) -> Iterable[Wish]:
        self._show()
        return [self._draining(), Loads(self._loads())]

    def _draining(self) -> Draining:
        return Draining([place for place, replica in self._replicas.items() if replica.draining])

    def _loads(self) -> list[tuple[Place, float, ReplicaLoad]]:
        return [
            (place, replica.load_at, replica.load)
            for place, replica in self._replicas.items()
            if replica.load is not None
        ]

    def _noticed(self, replica: Replica) -> None:
        self._spread()
        self._desk.tell(LookAgain(place_of(replica)))

    async def _keep_spreading(self) -> None:
        while True:
            self._spread()
            await asyncio.sleep(SPREAD_S)

    def _spread(self) -> None:
        """Tell the workers what engines said since the last time."""
        news = [each for each in self._loads() if self._told_at.get(each[0]) != each[1]]
        if news:
            self._told_at |= {place: at for place, at, _ in news}
            self._desk.tell(Loads(news))
