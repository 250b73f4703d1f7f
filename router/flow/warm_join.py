"""Warm joins: a replica with an empty cache is given the hottest prompts, beside the requests that it gets.

Off the path of requests. It is ready as soon as it is, and until it has them routing sees it as it is: cold.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from time import monotonic
from typing import Final, NamedTuple

from policies.outcome import Ending
from router.api.errors import TurnoutError
from router.api.request import Endpoint, InferenceRequest
from router.fleet.facts import Facts
from router.fleet.hot_prompts import HotPrompt, HotPrompts
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.flow.one_token import one_token

log = logging.getLogger("turnout.flow.warm_join")

AGAIN_S: Final = 30.0
"""A replica is given prompts twice in so long at most: when it is there, and when its metrics tell that it
began anew, which clears what is known of its cache. One that dies again and again is left alone."""

Ask = Callable[[Pool, Replica, InferenceRequest, Facts], Awaitable[Ending]]


class _Home(NamedTuple):
    pool: Pool
    prompts: HotPrompts


class WarmJoins:
    """For the versions in `prompts`, by model and version. `draining`: the router will soon be gone.

    What came of each prompt is counted in `Replica.warm_joins`.
    """

    def __init__(
        self,
        fleet: Fleet,
        prompts: Mapping[tuple[str, str], HotPrompts],
        ask: Ask,
        *,
        draining: Callable[[], bool],
    ) -> None:
        self._prompts: dict[tuple[str, str], HotPrompts] = {}
        self._homes: dict[Replica, _Home] = {}
        self._ask = ask
        self._draining = draining
        self._cold: set[Replica] = set()
        self._served: set[Replica] = set()
        self._tasks: dict[Replica, asyncio.Task[None]] = {}
        self._begun_at: dict[Replica, deque[float]] = {}
        self.follow(fleet, prompts)

    def follow(self, fleet: Fleet, prompts: Mapping[tuple[str, str], HotPrompts]) -> None:
        """For exactly these versions from now on; prompts that are hot already stay so.

        A replica that comes, and is not up yet, is cold.
        """
        pools, before = fleet.pools, self._homes
        for version, made in prompts.items():
            self._prompts[version] = self._prompts.get(version, made).bound(made)
        self._prompts = {version: self._prompts[version] for version in prompts}
        self._homes = {
            replica: _Home(pools[version], kept)
            for version, kept in self._prompts.items()
            for replica in pools[version].replicas
        }
        for replica in before.keys() - self._homes.keys():
            self._leave(replica)
        self._cold |= {replica for replica in self._homes if replica not in before and not replica.up}

    def answered(self, replica: Replica, request: InferenceRequest, facts: Facts) -> None:
        """A client's request was."""
        home = self._homes.get(replica)
        if home is not None:
            self._served.add(replica)
            home.prompts.note(request, facts, monotonic())

    def forgotten(self, replica: Replica) -> None:
        """It began anew."""
        self._stop(replica)
        self._cold.add(replica)
        if replica.up:
            self._begin(replica)

    def changed(self, replica: Replica, *, gone: bool) -> None:
        """It went up or down; `gone`: and will come back with nothing. Otherwise it was perhaps only slow."""
        self._stop(replica)
        if not replica.up and (gone or replica not in self._served):
            self._cold.add(replica)
        if replica.up and replica in self._cold:
            self._begin(replica)

    async def close(self) -> None:
        """End what is under way; nothing begins after this."""
        self._homes.clear()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def joining(self) -> int:
        """Replicas that are given prompts now."""
        return sum(not task.done() for task in self._tasks.values())

    def _begin(self, replica: Replica) -> None:
        home = self._homes.get(replica)
        if home is not None:
            self._tasks[replica] = asyncio.create_task(self._join(replica, home))

    def _leave(self, replica: Replica) -> None:
        self._stop(replica)
        self._cold.discard(replica)
        self._served.discard(replica)
        self._begun_at.pop(replica, None)

    def _stop(self, replica: Replica) -> None:
        task = self._tasks.pop(replica, None)
        if task is not None:
            task.cancel()

    async def _join(self, replica: Replica, home: _Home) -> None:
        try:
            await self._not_too_often(replica)
            given = 0
            for hot in list(home.prompts.hottest()):
                if self._draining() or not replica.ready or not await self._give(replica, home.pool, hot):
                    return
                given += 1
            self._cold.discard(replica)
            log.info("replica %s was given %d prompts for its cache", replica.id, given)
        except Exception:
            log.exception("warming a replica's cache met a defect of the router; it serves without")

    async def _not_too_often(self, replica: Replica) -> None:
        begun_at = self._begun_at.setdefault(replica, deque((-inf, -inf), maxlen=2))
        await asyncio.sleep(begun_at[0] + AGAIN_S - monotonic())
        begun_at.append(monotonic())

    async def _give(self, replica: Replica, pool: Pool, hot: HotPrompt) -> bool:
        """False: it has trouble enough."""
        request = one_token(hot.request)
        if not _is_of_use(request, replica):
            return True
        outcome = "stopped"
        try:
            outcome = (await self._ask(pool, replica, request, hot.facts)).word
        except TurnoutError:
            # This engine's adapter refuses what another one's took: nothing was sent.
            outcome = "refused"
        finally:
            replica.warm_joins[outcome] += 1
        return outcome in ("completed", "refused")


def _is_of_use(request: InferenceRequest, replica: Replica) -> bool:
    """Whether it can be asked, and caches the prompt then; TGI's whole completions go past its cache."""
    past_the_cache = request.endpoint is Endpoint.COMPLETIONS and replica.engine.kind == "tgi"
    return request.needs <= replica.offers and not past_the_cache
