"""A fleet after its configuration has changed: what did not change goes on, with all it has learned.

First everything is made and compared, which may fail; `put_in_place` then cannot. A pool goes on as long as
its version, a replica as long as it is the same process in the same dialect, a policy as long as its options.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from time import monotonic
from typing import Final

from policies.routing import POLICIES
from router.config.model import Config, PolicyConfig, ReplicaConfig, VersionConfig
from router.config.secret import Secret
from router.engines.engine import Target
from router.fleet.build import Home, Tokenizers, build_fleet, room_options, target_of
from router.fleet.pools import Kept, Pool
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet

_MOST_RETIRED: Final = 1000
"""Names of versions that are gone, remembered so that clients are told so: the newest."""

Place = tuple[str, str]
"""Model and version."""
_Recipe = tuple[str, str, Secret | None, Target]
_Change = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The fleet of the new configuration, and what is to change in that which goes on."""

    fleet: Fleet
    changes: Sequence[_Change]
    anew: tuple[Replica, ...]
    """Replicas with another policy, or other hashes, than before: what they cache must be told again."""

    def put_in_place(self) -> None:
        for change in self.changes:
            change()


def rebuild(
    fleet: Fleet, before: Config, after: Config, prefix_key: bytes, tokenizers: Tokenizers
) -> Rebuilt:
    """What becomes of `fleet`, which was built from `before`. Changes nothing yet.

    A replica that is added where others of its version serve gets nothing before its first good probes;
    where none do it is presumed up, as at the start: nobody else is there.
    Raises whatever cannot be built.
    """
    succession = _Succession(fleet, before, after)
    made = build_fleet(after, Random(), prefix_key, tokenizers=tokenizers, keep=succession.keep)
    retired = (*fleet.retired, *(name for name in fleet.routes if "@" in name))
    gone = [name for name in dict.fromkeys(retired) if name not in made.routes]
    made.retired = tuple(gone[-_MOST_RETIRED:])
    return Rebuilt(made, succession.changes, tuple(succession.anew))


class _Succession:
    """Compares what was made with what is there, and notes what is to change."""

    def __init__(self, fleet: Fleet, before: Config, after: Config) -> None:
        self.changes: list[_Change] = []
        self.anew: list[Replica] = []
        self._before = before
        self._after = after
        self._pools = fleet.pools
        self._draining = {replica.id for replica in fleet.replicas if replica.draining}
        self._processes = {(each.engine.kind, each.identity.url): each for each in fleet.replicas}
        self._new_room = room_options(before) != room_options(after)
        self._same_retries = before.retries == after.retries

    def keep(self, model: str, version: str, made: Pool) -> Home:
        pool = self._pools.get((model, version))
        there = {} if pool is None else self._unchanged(model, version, pool.replicas)
        replicas = [there.get(each.id, each) for each in made.replicas]
        others_serve = any(replica.serves for replica in there.values())
        for new, used in zip(made.replicas, replicas, strict=True):
            if used is new:
                self._welcome(new, others_serve=others_serve)
            else:
                self.changes.append(partial(used.renew, new, room=self._new_room))
        if pool is None:
            return made, replicas
        kept = self._kept(model, version)
        self.changes.append(partial(_renew, pool, made, replicas, kept))
        if not kept.policy:
            self.anew += replicas
        return pool, replicas

    def _unchanged(self, model: str, version: str, replicas: Iterable[Replica]) -> dict[str, Replica]:
        """Replicas by id that are the same process, asked in the same way."""
        before, after = _recipes(self._before, model, version), _recipes(self._after, model, version)
        return {each.id: each for each in replicas if before.get(each.id) == after.get(each.id)}

    def _welcome(self, replica: Replica, *, others_serve: bool) -> None:
        """What is known already of a replica that is new; its process may have served in another place."""
        replica.draining = replica.id in self._draining
        process = self._processes.get((replica.engine.kind, replica.identity.url))
        if process is not None:
            replica.judge_health(well=process.well)
            replica.load, replica.load_at = process.load, process.load_at
        elif others_serve:
            replica.judge_health(well=False)

    def _kept(self, model: str, version: str) -> Kept:
        before, after = self._before.models[model], self._after.models[model]
        old, new = before.versions[version], after.versions[version]
        policies = self._before.policy_of(before), self._after.policy_of(after)
        same_hashes = (old.tokenizer, old.kv_block_tokens) == (new.tokenizer, new.kv_block_tokens)
        return Kept(
            # What it has learned it knows by hashes.
            policy=same_hashes and _meaning(policies[0]) == _meaning(policies[1]),
            retries=self._same_retries,
            hasher=same_hashes,
        )


def _renew(pool: Pool, made: Pool, replicas: Sequence[Replica], kept: Kept) -> None:
    for replica in pool.replicas:
        if replica not in replicas:
            pool.forget(replica, monotonic())
    pool.renew(made, replicas, kept)


def _recipes(config: Config, model: str, version: str) -> Mapping[str, _Recipe]:
    """By replica: all that makes it another one if it changes."""
    settings = config.models[model].versions[version]
    return {each.replica_id: _recipe(each, settings, model) for each in settings.replicas}


def _recipe(replica: ReplicaConfig, settings: VersionConfig, model: str) -> _Recipe:
    return replica.url, replica.engine, replica.api_key, target_of(replica, settings, model)


def _meaning(policy: PolicyConfig) -> tuple[str, object]:
    """Two that are written differently may be the same."""
    return policy.kind, POLICIES[policy.kind].Options(**policy.options)
