"""How a release is moved: read what is in force, decide, and store it if nobody was faster."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Final

from policies.release.lifecycle import Command, Ground, Refused, Release, Verb, moved
from policies.release.standing import standing
from router.config.model import CanaryConfig, ModelConfig
from router.control.releases.records import Conflict, Entry, Evidence, ReleaseStore, percent_of
from router.fleet.routes import Fleet

log = logging.getLogger("turnout.releases")

TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Author:
    """Who moves a release, and why."""

    actor: str
    reason: str = ""
    evidence: tuple[Evidence, ...] = ()


class Moves:
    """`told` hears of every move that was made, in this process."""

    def __init__(
        self,
        store: ReleaseStore,
        models: Callable[[], Mapping[str, ModelConfig]],
        fleet: Callable[[], Fleet],
        told: Callable[[str, Release, Entry], None],
    ) -> None:
        self._store = store
        self._models = models
        self._fleet = fleet
        self._told = told

    async def current(self, model: str) -> Release:
        """What is in force. Raises `Refused` for a model that is not there, and `StoreAway`."""
        return self._standing((await self._store.read()).get(model), model)

    async def make(self, model: str, command: Command, author: Author, *, only: int | None = None) -> Release:
        """Do it. With `only`, if the release still has this generation.

        Raises `Refused`, `Conflict`, `StoreAway`.
        """
        for _ in range(TRIES):
            stored = (await self._store.read()).get(model)
            before = self._standing(stored, model)
            if command.verb is Verb.START:
                before = replace(before, declared=self._models()[model].stable)
            if only is not None and before.generation != only:
                raise Conflict(model)
            after = moved(before, command, self.ground(model))
            entry = _entry(command, author, before, after)
            try:
                await self._store.swap(model, after, entry)
            except Conflict:
                continue
            log.info("%s: %s by %s: %s", model, command.verb.value, author.actor, author.reason or "-")
            self._told(model, after, entry)
            return after
        raise Conflict(model)

    def ground(self, model: str) -> Ground:
        """What exists now, and what is ready."""
        config = self._models()[model]
        canary = config.canary or CanaryConfig()
        pools = self._fleet().pools
        ready = {
            version
            for version in config.versions
            if (model, version) in pools and any(replica.serves for replica in pools[model, version].replicas)
        }
        split = () if config.split is None else config.split.weights
        return Ground(canary.steps, config.versions, ready, {one for one in split if one != config.stable})

    def _standing(self, release: Release | None, model: str) -> Release:
        config = self._models().get(model)
        if config is None:
            raise Refused(f"there is no model {model!r}; there are: {', '.join(sorted(self._models()))}")
        return standing(release, config.stable, config.versions).release


def fresh_salt() -> str:
    return token_hex(16)


def _entry(command: Command, author: Author, before: Release, after: Release) -> Entry:
    return Entry(
        generation=after.generation,
        at=command.at,
        verb=command.verb.value,
        actor=author.actor,
        reason=author.reason,
        phase=after.phase.value,
        stable=after.stable,
        canary=after.canary,
        percent_before=percent_of(before),
        percent=percent_of(after),
        evidence=author.evidence,
    )
