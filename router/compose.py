"""The one place where the parts are put together. Two routers can live in one process."""

import asyncio
import contextlib
from collections.abc import Mapping
from random import Random
from time import monotonic, time

from starlette.applications import Starlette

from policies.release.lifecycle import Release
from policies.routing.events import Event, Forgotten
from router.admin.app import Sources, create_admin_app
from router.admin.limits import limit_board
from router.api.errors import RouterDraining
from router.api.openai import RequestRules
from router.config.model import Config
from router.control.hearing import Hearing, place_of, share
from router.control.keys import KeyRing
from router.control.membership import Seat, join, prefix_key
from router.control.messages import Place
from router.control.releases.releases import Releases
from router.fleet.build import build_fleet
from router.fleet.fingerprint import Verifier
from router.fleet.hot_prompts import HotPrompts
from router.fleet.kv_events import KvEvents
from router.fleet.prober import HealthChange, Prober
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.fleet.scraper import Scraper
from router.fleet.stations import watched_in
from router.fleet.traffic import with_traffic
from router.flow.dispatch import Dispatcher, Hooks
from router.flow.inference import Access, Inference
from router.flow.one_token import OneTokenAsker
from router.flow.shadow import Lane, Shadowed, Shadows
from router.flow.warm_join import WarmJoins
from router.flow.watch import Watch
from router.observe.events import Finished
from router.observe.evidence import observation_of
from router.observe.gauges import ReplicaGauges
from router.observe.kv_events import KvEventMetrics
from router.observe.limits import LimitStoreMetrics
from router.observe.metrics import RouterMetrics
from router.observe.queues import QueueGauge
from router.observe.releases import ReleaseMetrics
from router.observe.shadow import ShadowCounts, ShadowMetrics
from router.observe.warm_joins import WarmJoinCounts
from router.serving.app import PublicPages, public_app
from router.serving.asgi import InferenceApp
from router.serving.front import FrontEnd
from router.settings import access_log_of, budget_of, limits_of, queues_of, shadow_plans_of, upstreams_of

_HOUSEKEEPING_S = 1.0
_LOAD_FRESH_S = 5.0


class Router:
    """One router: its parts, and their start and end. Make it inside the event loop that it will run on.

    `seat` makes it one of several workers: it shares with the others, and another process reads the replicas'
    metrics for all of them (see `router.overview`). Raises `OSError` if the access log cannot be opened.
    """

    def __init__(self, config: Config, seat: Seat | None = None) -> None:
        self.config = config
        self.seat = seat
        key = prefix_key(config) if seat is None else seat.prefix_key
        self.fleet = build_fleet(config, Random(), key)
        # Some engines empty their events as they are read: of several processes the overview may.
        self.kv_events = KvEvents(key, self._learn, pulls=seat is None)
        self.sharing = join(config, seat)
        if self.sharing is not None:
            share(self.fleet, self.sharing)
            self.hearing = Hearing(self.current_fleet, self.sharing)
            self.sharing.on_event(self._heard)
        self.watch = Watch()
        self.upstreams = upstreams_of(config)
        self.scraper = Scraper(config.scrape, noticed=self._look_again, restarted=self._forget)
        load_fresh_s = max(_LOAD_FRESH_S, 3 * config.scrape.interval_s)
        self.verifier = Verifier(config.health, changed=self._verdict_changed)
        self.prober = Prober(config.health, changed=self._health_changed, load_fresh_s=load_fresh_s)
        self.limits = limit_board(config, seat)
        self.shadow_counts = ShadowCounts()
        self.releases = Releases(config, seat, self.current_fleet, self._released, has_office=seat is None)
        self.metrics = self._metrics()
        self.access_log = access_log_of(config)
        self.warm_joins = self._warm_joins()
        self.queues = queues_of(config)
        self.shadows = self._shadows()
        self._rules = RequestRules(max_depth=config.server.max_json_depth)
        self._keys = KeyRing(config.keys, time)
        self.inference = self._inference()
        budget = budget_of(config)
        self.front_end = FrontEnd(self.inference, budget)
        pages = PublicPages(self.current_fleet, lambda: self.front_end.draining, self._keys)
        self.public_app = public_app(pages, InferenceApp(self.inference, budget))
        self.admin_app = self._admin_app()
        self._housekeeping: asyncio.Task[None] | None = None

    def _inference(self) -> Inference:
        limits = limits_of(self.config)
        hooks = Hooks(
            failed=self._look_again,
            answered=None if self.warm_joins is None else self.warm_joins.answered,
            make_room=None if self.shadows is None else self.shadows.make_room,
            settle=self.verifier.settle,
        )
        dispatcher = Dispatcher(limits, self.watch, self.upstreams, hooks, self.queues)
        return Inference(
            self.current_fleet,
            dispatcher if self.shadows is None else Shadowed(dispatcher, self.shadows),
            limits,
            self._rules,
            self.observe,
            hashes_all=self.config.server.log_prefixes,
            access=Access(self._keys, None if self.limits is None else self.limits.gate),
        )

    def _admin_app(self) -> Starlette:
        sources = Sources(
            fleet=self.current_fleet,
            metrics=self.metrics,
            reports=self.scraper,
            rules=self._rules,
            kv_events=self.kv_events,
            limits=self.limits,
            keys=self._keys,
            shadows=lambda: self.shadow_counts.tallies,
            releases=self.releases.office,
        )
        return create_admin_app(sources, self.config.admin)

    def _metrics(self) -> RouterMetrics:
        more = [
            ReplicaGauges(self.current_fleet, self.scraper.figures, monotonic),
            KvEventMetrics(self.current_fleet, self.kv_events.figures),
            WarmJoinCounts(self.current_fleet),
            LimitStoreMetrics(lambda: None if self.limits is None else self.limits.state),
            QueueGauge(self.current_fleet),
            ShadowMetrics(lambda: self.shadow_counts.tallies),
        ]
        if self.releases.office is not None:
            more.append(ReleaseMetrics(self.current_fleet, self.releases.office))
        return RouterMetrics(self.current_fleet, more=more, dropped_log_lines=self._dropped_log_lines)

    def current_fleet(self) -> Fleet:
        """The fleet in force; a request reads it once."""
        return self.fleet

    def observe(self, event: Finished) -> None:
        self.metrics(event)
        if self.access_log is not None:
            self.access_log(event)
        if event.arm is not None:
            seen = observation_of(event)
            if seen is not None:
                self.releases.observe(event.arm.salt, seen)

    async def start(self) -> None:
        self.releases.start()
        watched = watched_in(self.config, self.fleet)
        self.verifier.follow(watched)
        self.prober.follow(watched)
        if self.seat is None:
            self.scraper.follow(watched)
        self.kv_events.follow(watched)
        if self.sharing is not None:
            await self.sharing.start()
        if self.limits is not None:
            await self.limits.store.start()
        await self.verifier.first_round()
        self._housekeeping = asyncio.create_task(self._keep_house())

    def end_open_requests(self) -> None:
        """The drain is over: every stream that is still open gets a retryable error and ends."""
        error = RouterDraining("the router is shutting down; send the request again")
        if self.queues is not None:
            self.queues.refuse_all(error)
        self.watch.fail_all(error)

    async def close(self) -> None:
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        await self.releases.close()
        await self.prober.close()
        await self.verifier.close()
        await self.scraper.close()
        await self.kv_events.close()
        if self.warm_joins is not None:
            await self.warm_joins.close()
        if self.shadows is not None:
            await self.shadows.close()
        self.front_end.close()
        if self.queues is not None:
            self.queues.refuse_all(RouterDraining("the router is shutting down; send the request again"))
        self.watch.close()
        if self.sharing is not None:
            await self.sharing.close()
        if self.limits is not None:
            await self.limits.store.close()
        self.upstreams.close()
        if self.access_log is not None:
            await self.access_log.close()

    def _look_again(self, replica: Replica) -> None:
        """A replica failed a request, or shows that it has changed: probe it now, not at its next turn."""
        self.prober.hasten(replica)

    def _released(self, releases: Mapping[str, Release]) -> None:
        """Traffic is elsewhere from now on: the same pools under other routes."""
        self.fleet = with_traffic(self.fleet, self.config.models, releases)

    def _learn(self, replica: Replica, event: Event) -> None:
        """A replica said something of its cache."""
        route = self.fleet.routes.get(f"{replica.identity.model}@{replica.identity.version}")
        if route is not None and route.pool.policy.learns:
            route.pool.policy.observe(event)

    def _heard(self, model: str, version: str, event: Event) -> None:
        """Others found that a replica began anew: its publisher did, too."""
        if isinstance(event, Forgotten):
            place = Place(model, version, event.replica)
            for replica in self.fleet.replicas:
                if place_of(replica) == place:
                    self.kv_events.hasten(replica)
                    # Without a seat this process reads the metrics itself.
                    if self.warm_joins is not None and self.seat is not None:
                        self.warm_joins.forgotten(replica)

    def _forget(self, replica: Replica) -> None:
        """An engine began anew: its cache is empty, whatever was sent there."""
        self.verifier.doubt(replica)
        self.kv_events.hasten(replica)
        for pool in self.fleet.pools.values():
            pool.forget(replica, monotonic())
        if self.warm_joins is not None:
            self.warm_joins.forgotten(replica)

    def _health_changed(self, change: HealthChange) -> None:
        if self.warm_joins is not None:
            self.warm_joins.changed(change.replica, gone=change.gone)
        if change.up:
            self.scraper.hasten(change.replica)
            self.kv_events.hasten(change.replica)
        self.verifier.doubt(change.replica, gone=change.gone)
        change.replica.offer_room()

    def _verdict_changed(self, replica: Replica) -> None:
        if gone := replica.verdict.state == "gone":
            self.prober.hasten(replica)
        if self.warm_joins is not None and (gone or replica.up):
            self.warm_joins.changed(replica, gone=gone)
        replica.offer_room()

    def _warm_joins(self) -> WarmJoins | None:
        """None where nobody asks for it; of several workers the first does it for all."""
        prompts = {
            (name, number): HotPrompts(version.warm_join_prompts, version.warm_join_tokens)
            for name, model in self.config.models.items()
            for number, version in model.versions.items()
            if version.warm_join_prompts
        }
        if not prompts or (self.seat is not None and self.seat.number != 1):
            return None
        asker = OneTokenAsker(self.upstreams, self.config.timeouts.first_token_s, self._look_again)
        return WarmJoins(self.fleet, prompts, asker.ask, draining=lambda: self.front_end.draining)

    def _shadows(self) -> Shadows | None:
        """None where no version gets copies."""
        hooks = Hooks(failed=self._look_again, settle=self.verifier.settle)
        lanes = {
            model: Lane(plan, Dispatcher(plan.limits, self.watch, self.upstreams, hooks))
            for model, plan in shadow_plans_of(self.config).items()
        }
        if not lanes:
            return None
        return Shadows(
            lanes,
            self.current_fleet,
            self.shadow_counts,
            Random(),
            draining=lambda: self.front_end.draining,
        )

    def _dropped_log_lines(self) -> int:
        return 0 if self.access_log is None else self.access_log.dropped_lines

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            self.upstreams.expire()
            now = monotonic()
            for replica in self.fleet.replicas:
                replica.look(now)
