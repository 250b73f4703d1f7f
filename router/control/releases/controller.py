"""Moves releases by their evidence: one process of the whole fleet does, the others send it what they see.

Nothing moves while the store is away, or while another router decides. Whoever takes over goes on with the
evidence that was kept last.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import time
from typing import Final

from policies.release.lifecycle import Refused, Release
from policies.release.observation import Observation
from router.config.model import ModelConfig
from router.control.releases.judge import Judge
from router.control.releases.keeper import Keeper
from router.control.releases.moves import Author, Moves
from router.control.releases.records import Conflict, Evidence, ReleaseStore, StoreAway

log = logging.getLogger("turnout.releases")

LOOK_S: Final = 0.1
KEEP_S: Final = 2.0
MOST_WAITING: Final = 100_000
"""Observations that wait for an evaluation; a flood of them drops the oldest."""
ACTOR: Final = "controller"


class Controller:
    """`observe` takes what was seen here or told; `keep_deciding` runs until it is cancelled."""

    def __init__(
        self,
        store: ReleaseStore,
        moves: Moves,
        keeper: Keeper,
        models: Callable[[], Mapping[str, ModelConfig]],
    ) -> None:
        self._store = store
        self._moves = moves
        self._keeper = keeper
        self._models = models
        self._judges: dict[str, Judge] = {}
        self._waiting: deque[tuple[str, Observation]] = deque(maxlen=MOST_WAITING)
        self._seen = asyncio.Event()
        self._kept_at = 0.0
        self.decides = False
        """Whether it is this process that moves releases now."""

    def observe(self, salt: str, observation: Observation) -> None:
        """`salt` says of which release."""
        self._waiting.append((salt, observation))
        if observation.bad:
            # Failures are looked at without delay.
            self._seen.set()

    def evidence(self, model: str) -> Sequence[Evidence]:
        """What the last evaluation found; nothing where another router decides."""
        judge = self._judges.get(model)
        return () if judge is None else judge.evidence()

    def finding(self, model: str) -> str:
        """What the last evaluation said."""
        judge = self._judges.get(model)
        return "" if judge is None or judge.verdict is None else judge.verdict.reason

    async def keep_deciding(self) -> None:
        while True:
            try:
                await self.look(time())
            except StoreAway as error:
                self.decides = False
                log.debug("releases stand still: %s", error)
            except Exception:
                log.exception("releases stand still for a moment")
            self._seen.clear()
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._seen.wait()
            except TimeoutError:
                pass

    async def look(self, now: float) -> None:
        """Take what has come, and make the moves that follow from it. Raises `StoreAway`."""
        self.decides = await self._keeper.decides()
        releases = await self._store.read()
        under_way = {
            model: release
            for model, release in releases.items()
            if release.under_way and model in self._models()
        }
        for model in self._judges.keys() - under_way.keys():
            del self._judges[model]
        if not self.decides:
            await self._keeper.pass_on(self._take())
            self._judges.clear()
            return
        for model, release in under_way.items():
            await self._judge_of(model, release, now)
        self._share_out([*self._take(), *await self._keeper.passed_on()])
        for model, release in under_way.items():
            await self._decide(model, release, now)
        if now - self._kept_at >= KEEP_S:
            self._kept_at = now
            for model, judge in self._judges.items():
                await self._keeper.keep(model, judge.keep())

    def _take(self) -> list[tuple[str, Observation]]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    async def _judge_of(self, model: str, release: Release, now: float) -> None:
        judge = self._judges.get(model)
        if judge is None or judge.salt != release.salt:
            kept = await self._keeper.kept(model)
            self._judges[model] = Judge(self._models()[model], release, now, kept)

    def _share_out(self, told: Sequence[tuple[str, Observation]]) -> None:
        judges = {judge.salt: judge for judge in self._judges.values()}
        for salt, observation in told:
            judge = judges.get(salt)
            if judge is not None:
                judge.observe(observation)

    async def _decide(self, model: str, release: Release, now: float) -> None:
        judge = self._judges[model]
        decided = judge.decide(release, now)
        if decided is None:
            return
        command, reason = decided
        author = Author(ACTOR, reason, judge.evidence())
        try:
            await self._moves.make(model, command, author, only=release.generation)
        except (Refused, Conflict) as error:
            # Somebody was faster, or the canary is not ready just now: the next look sees how it is then.
            log.info("%s: %s is not done: %s", model, command.verb.value, error)
