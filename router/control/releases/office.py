"""All that the process with the admin listener does about releases: keeps them, shows them, moves them."""

import asyncio
from collections.abc import Callable, Mapping
from time import time
from typing import Final

from msgspec import structs

from policies.release.lifecycle import Command, Refused, Release, Verb
from policies.release.observation import Observation
from policies.release.split import WHOLE
from router.config.model import Config, ModelConfig
from router.control.releases.controller import Controller
from router.control.releases.keeper import FileKeeper, RedisKeeper
from router.control.releases.mirror import Mirror
from router.control.releases.moves import Author, Moves, fresh_salt
from router.control.releases.records import Entry, ReleaseStore
from router.control.releases.release_file import ReleaseFile
from router.control.releases.release_redis import RedisReleases
from router.control.releases.views import Order, ReleaseView, release_view
from router.control.releases.webhook import Webhook
from router.fleet.routes import Fleet

SHOWN: Final = 20
"""Moves that are shown without asking for all."""
_BY_PEOPLE: Final = {verb.value: verb for verb in Verb if verb not in (Verb.STEP, Verb.GIVE_UP)}


class Office:
    """`moved` is called after each move, so that it holds here at once."""

    def __init__(
        self, config: Config, file: ReleaseFile, fleet: Callable[[], Fleet], moved: Callable[[], None]
    ) -> None:
        self._models: Mapping[str, ModelConfig] = config.models
        self._fleet = fleet
        self._moved = moved
        self._redis = None if config.redis is None else RedisReleases(config.redis.url)
        self._mirror = None if self._redis is None else Mirror(self._redis, file)
        self._store: ReleaseStore = self._mirror or file
        self._moves = Moves(self._store, lambda: self._models, fleet, self._told)
        keeper = FileKeeper(file.path) if self._redis is None else RedisKeeper(self._redis)
        self.controller = Controller(self._store, self._moves, keeper, lambda: self._models)
        self._webhook = Webhook(config.releases) if config.releases.webhook else None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self.controller.keep_deciding())]
        if self._mirror is not None:
            self._tasks.append(asyncio.create_task(self._mirror.keep_mirroring()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._webhook is not None:
            await self._webhook.close()
        if self._redis is not None:
            await self._redis.close()

    def reconfigure(self, config: Config) -> None:
        """Another configuration is in force."""
        self._models = config.models

    def observe(self, salt: str, observation: Observation) -> None:
        self.controller.observe(salt, observation)

    async def views(self) -> list[ReleaseView]:
        """Of every model. Raises `StoreAway`."""
        releases = await self._store.read()
        return [self._view(model, releases.get(model), ()) for model in self._models]

    async def view(self, model: str, *, whole_history: bool = False) -> ReleaseView:
        """Raises `Refused` for a model that is not there, and `StoreAway`."""
        await self._moves.current(model)
        releases = await self._store.read()
        history = await self._store.history(model)
        return self._view(model, releases.get(model), tuple(history)[: None if whole_history else SHOWN])

    async def order(self, model: str, order: Order) -> ReleaseView:
        """What a person wants. Raises `Refused`, `Conflict`, `StoreAway`."""
        await self._moves.make(model, self._command(model, order), Author(order.actor, order.reason))
        return await self.view(model)

    def _command(self, model: str, order: Order) -> Command:
        verb = _BY_PEOPLE.get(order.verb)
        if verb is None:
            raise Refused(f"there is no verb {order.verb!r}; there are: {', '.join(_BY_PEOPLE)}")
        if order.percent is not None and not 0 <= order.percent <= 100:
            raise Refused(f"a share is from 0 to 100 per cent, not {order.percent:g}")
        config = self._models.get(model)
        by_hand = config is not None and config.canary is None and verb in (Verb.START, Verb.RESUME)
        return Command(
            verb=verb,
            at=time(),
            version=order.version,
            share=None if order.percent is None else round(order.percent * WHOLE / 100),
            # Nobody said how it is to ramp.
            manual=order.manual or by_hand,
            force=order.force,
            salt=fresh_salt(),
        )

    def _view(self, model: str, stored: Release | None, history: tuple[Entry, ...]) -> ReleaseView:
        view = release_view(model, self._models[model], self._fleet(), stored)
        evidence, finding = tuple(self.controller.evidence(model)), self.controller.finding(model)
        return structs.replace(view, evidence=evidence, finding=finding, history=history)

    def _told(self, model: str, release: Release, entry: Entry) -> None:
        self._moved()
        if self._webhook is not None:
            self._webhook.tell(model, release, entry)
