"""The one place where the parts are put together. Two routers can live in one process."""

import asyncio
from collections.abc import Mapping
from random import Random
from time import monotonic, time

from policies.release.lifecycle import Release
from policies.routing.events import Event, Forgotten
from router.admin.limits import board_for, limit_board
from router.api.errors import RouterDraining
from router.api.openai import RequestRules
from router.config.history import History
from router.config.model import Config
from router.config.origin import Origin
from router.config.reload import Reloader
from router.control.hearing import Hearing, place_of, share, tickets_of
from router.control.keys import KeyRing
from router.control.limits.of_config import rules_of
from router.control.membership import Seat, join, prefix_key
from router.control.messages import Place
from router.control.releases.releases import Releases
from router.fleet.build import Tokenizers, build_fleet
from router.fleet.fingerprint import Verifier
from router.fleet.kv_events import KvEvents
from router.fleet.prober import HealthChange, Prober
from router.fleet.rebuild import rebuild
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.fleet.scraper import Scraper
from router.fleet.stations import watched_in
from router.fleet.traffic import with_traffic
from router.flow.upstreams import Upstreams
from router.flow.watch import Watch
from router.observe.events import Finished
from router.observe.shadow import ShadowCounts
from router.parts import admin_app_of, inference_of, metrics_of, shadows_of, warm_joins_of
from router.serving.app import PublicPages, public_app
from router.serving.asgi import InferenceApp
from router.serving.front import FrontEnd
from router.settings import access_log_of, budget_of, keeping_of, load_fresh_s_of, queues_of, warm_prompts_of

_HOUSEKEEPING_S = 1.0
_FIRST_ANSWERS_S = 1.0
"""So long a start, or a change, waits for replicas to say who they are; slower ones join later."""


class Router:
    """One router: its parts, and their start and end. Make it inside the event loop that it will run on.

    `seat` makes it one of several workers: it shares with the others, and another process reads the replicas'
    metrics for all of them (see `router.overview`). `origin` is the file that it follows, `history` how that
    began. Raises `OSError` if the access log cannot be opened.
    """

    def __init__(
        self,
        config: Config,
        seat: Seat | None = None,
        *,
        origin: Origin | None = None,
        history: History | None = None,
    ) -> None:
        self.config = config
        self.seat = seat
        self._prefix_key = key = prefix_key(config) if seat is None else seat.prefix_key
        self._tokenizers = Tokenizers()
        self.fleet = build_fleet(config, Random(), key, tokenizers=self._tokenizers)
        # Some engines empty their events as they are read: of several processes the overview may.
        self.kv_events = KvEvents(key, self._learn, pulls=seat is None)
        self.sharing = join(config, seat)
        if self.sharing is not None:
            self._tickets = tickets_of(self.sharing)
            share(self.fleet, self.sharing, self._tickets)
            self.hearing = Hearing(self.current_fleet, self.sharing)
            self.sharing.on_event(self._heard)
        self.watch = Watch()
        self.upstreams = Upstreams(keeping_of(config))
        self.scraper = Scraper(config.scrape, noticed=self.look_again, restarted=self._forget)
        self.verifier = Verifier(config.health, changed=self._verdict_changed)
        self.prober = Prober(
            config.health, changed=self._health_changed, load_fresh_s=load_fresh_s_of(config)
        )
        self.limits = limit_board(config, seat)
        self.shadow_counts = ShadowCounts()
        self.releases = Releases(config, seat, self.current_fleet, self._released, has_office=seat is None)
        self.metrics = metrics_of(self)
        self.reloader = Reloader(config, self.apply, self.metrics.config, origin, history=history)
        self.access_log = access_log_of(config)
        self.warm_joins = warm_joins_of(self)
        self.queues = queues_of(config)
        self.shadows = shadows_of(self)
        self.rules = RequestRules(max_depth=config.server.max_json_depth)
        self.keys = KeyRing(config.keys, time)
        self.inference = inference_of(self)
        self.front_end = FrontEnd(self.inference, budget_of(config))
        pages = PublicPages(self.current_fleet, lambda: self.front_end.draining, self.keys)
        self.asgi_inference = InferenceApp(self.inference, budget_of(config))
        self.public_app = public_app(pages, self.asgi_inference)
        self.admin_app = admin_app_of(self)
        self._tasks: list[asyncio.Task[None]] = []

    def current_fleet(self) -> Fleet:
        """The fleet in force; a request reads it once."""
        return self.fleet

    def observe(self, event: Finished) -> None:
        self.metrics(event)
        if self.access_log is not None:
            self.access_log(event)
        self.releases.observe(event)

    async def start(self) -> None:
        self.releases.start()
        self._follow()
        if self.sharing is not None:
            await self.sharing.start()
        if self.limits is not None:
            await self.limits.store.start()
        await self.verifier.first_round(_FIRST_ANSWERS_S)
        self._tasks = [asyncio.create_task(self._keep_house()), asyncio.create_task(self.reloader.run())]

    async def apply(self, config: Config) -> None:
        """Serve by `config`: each request that comes from now on by all of it, each that is open as it began.

        What may fail or take long comes first and changes nothing. Raises `OSError`, and whatever cannot be
        built. What needs a restart is not looked at; see `router.config.changes`.
        """
        await asyncio.to_thread(self._tokenizers.load, config)
        rebuilt = rebuild(self.fleet, self.config, config, self._prefix_key, self._tokenizers)
        self.limits = await board_for(config, self.seat, self.limits)
        await self._meet(config, rebuilt.fleet)
        # From here on nothing waits and nothing fails.
        rebuilt.put_in_place()
        self.config = config
        # A release that is under way goes on: the file says what there is, not who gets what.
        self.fleet = with_traffic(rebuilt.fleet, config.models, self.releases.in_force)
        self.releases.reconfigure(config)
        self._renew(rebuilt.anew)

    async def _meet(self, config: Config, fleet: Fleet) -> None:
        """Have replicas that are new say who they are before anybody is sent there."""
        there = watched_in(self.config, self.fleet)
        known = {each.replica for each in there}
        new = [each for each in watched_in(config, fleet) if each.replica not in known]
        if new:
            self.verifier.follow([*there, *new])
            await self.verifier.judged((each.replica for each in new), _FIRST_ANSWERS_S)

    def _renew(self, anew: tuple[Replica, ...]) -> None:
        """Everything that is made of the configuration, by the one in force."""
        config = self.config
        if self.sharing is not None:
            share(self.fleet, self.sharing, self._tickets)
            self.hearing.follow()
        if self.limits is not None:
            self.limits.renew(rules_of(config))
        self.keys.renew(config.keys)
        self.upstreams.renew(keeping_of(config))
        self.queues = queues_of(config, self.queues) or self.queues
        if self.warm_joins is None:
            self.warm_joins = warm_joins_of(self)
        else:
            self.warm_joins.follow(self.fleet, warm_prompts_of(config))
        self.shadows = shadows_of(self, self.shadows)
        self.inference, budget = inference_of(self), budget_of(config)
        self.front_end.serve_by(self.inference, budget)
        self.asgi_inference.serve_by(self.inference, budget)
        self._follow(anew)

    def _follow(self, anew: tuple[Replica, ...] = ()) -> None:
        """Probe, read and hear exactly the replicas of the fleet in force."""
        config, watched = self.config, watched_in(self.config, self.fleet)
        self.verifier.follow(watched, config.health)
        self.prober.load_fresh_s = load_fresh_s_of(config)
        self.prober.follow(watched, config.health)
        if self.seat is None:
            self.scraper.follow(watched, config.scrape)
        self.kv_events.follow(watched, anew)

    def end_open_requests(self) -> None:
        """The drain is over: every stream that is still open gets a retryable error and ends."""
        error = RouterDraining("the router is shutting down; send the request again")
        if self.queues is not None:
            self.queues.refuse_all(error)
        self.watch.fail_all(error)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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

    def look_again(self, replica: Replica) -> None:
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
            self.verifier.hasten(change.replica)
            self.scraper.hasten(change.replica)
            self.kv_events.hasten(change.replica)
        elif change.gone:
            self.verifier.doubt(change.replica, gone=True)
        change.replica.offer_room()

    def _verdict_changed(self, replica: Replica) -> None:
        gone = replica.verdict.state == "gone"
        if gone:
            self.prober.hasten(replica)
        if self.warm_joins is not None and (gone or replica.up):
            self.warm_joins.changed(replica, gone=gone)
        replica.offer_room()

    @property
    def dropped_log_lines(self) -> int:
        return 0 if self.access_log is None else self.access_log.dropped_lines

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(_HOUSEKEEPING_S)
            self.upstreams.expire()
            self.upstreams.keep(self.fleet.replicas)
            if self.queues is not None:
                self.queues.keep(self.fleet.pools.values())
            now = monotonic()
            for replica in self.fleet.replicas:
                replica.look(now)
