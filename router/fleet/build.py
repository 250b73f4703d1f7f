"""A fleet from a configuration: replicas, pools, and every name that leads to one."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from policies.limits.saturation import RoomModel, SaturationOptions
from policies.resilience.retry import RetryBudget
from policies.routing import POLICIES
from policies.routing.policy import Policy
from router.config.model import Config, ModelConfig, PolicyConfig, ReplicaConfig, VersionConfig
from router.engines import ENGINES
from router.engines.engine import Target
from router.fleet.extras import ExtraMissing
from router.fleet.identity import Identity
from router.fleet.pools import Pool
from router.fleet.prompts import PromptHasher
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.fleet.token_blocks import TokenBlocks
from router.fleet.token_prompts import TokenPrompts
from router.fleet.tokenizing import Tokenizer
from router.fleet.traffic import with_traffic

log = logging.getLogger("turnout.fleet")

_LOAD_FRESH_S = 5.0
_ROOM_IS_ALL = frozenset({"tgi"})
"""Engines whose most requests count those that wait in them too: they refuse one more with 429."""


Home = tuple[Pool, Sequence[Replica]]
Keep = Callable[[str, str, Pool], Home]
"""Takes a model, a version and the pool that was made for it; returns the one to use, and its replicas."""


def build_fleet(
    config: Config,
    random: Random,
    prefix_key: bytes,
    *,
    tokenizers: "Tokenizers | None" = None,
    keep: Keep | None = None,
) -> Fleet:
    """Everything that `config.models` describes. `prefix_key` keys the hashes of prompts.

    `tokenizers` are those that are loaded already; `keep` may put a pool that serves in place of a new one.
    """
    names: dict[str, str] = {}
    pools: dict[tuple[str, str], Pool] = {}
    replicas: list[Replica] = []
    make = _Pools(config, random, prefix_key, tokenizers or Tokenizers())
    for name, model in config.models.items():
        for version, settings in model.versions.items():
            pool = make.pool(name, model, version, settings)
            home = (pool, pool.replicas) if keep is None else keep(name, version, pool)
            pools[name, version] = home[0]
            replicas += home[1]
        names[name] = name
        names |= dict.fromkeys(model.aliases, name)
        names |= {f"{name}@{version}": name for version in model.versions}
    return with_traffic(Fleet({}, names, pools, replicas), config.models)


class Tokenizers:
    """By their directories, each loaded once: that takes a second for a large vocabulary."""

    def __init__(self) -> None:
        self._loaded: dict[str, Tokenizer | None] = {}

    def of(self, path: str) -> Tokenizer | None:
        """None for one that cannot be used."""
        if path not in self._loaded:
            self._loaded[path] = _tokenizer(path)
        return self._loaded[path]

    def load(self, config: Config) -> None:
        """All that `config` names, and forget the others. May be called in a thread."""
        wanted = [
            version.tokenizer for model in config.models.values() for version in model.versions.values()
        ]
        self._loaded = {path: self.of(path) for path in wanted if path is not None}


class _Pools:
    """Makes the pools of one configuration."""

    def __init__(self, config: Config, random: Random, prefix_key: bytes, tokenizers: Tokenizers) -> None:
        self._config = config
        self._random = random
        self._key = prefix_key
        self._tokenizers = tokenizers

    def pool(self, name: str, model: ModelConfig, version: str, settings: VersionConfig) -> Pool:
        retries = self._config.retries
        return Pool(
            [
                _replica(replica, settings, name, version, _room(self._config, replica.engine))
                for replica in settings.replicas
            ],
            make_policy(self._config.policy_of(model), self._random),
            RetryBudget(retries.budget_ratio, retries.budget_floor_per_s),
            PromptHasher(self._key, name, version, self._token_prompts(settings)),
            model.policy,
        )

    def _token_prompts(self, version: VersionConfig) -> TokenPrompts | None:
        """None for a version without a tokenizer, or with one that cannot be used."""
        tokenizer = None if version.tokenizer is None else self._tokenizers.of(version.tokenizer)
        blocks = TokenBlocks(self._key, version.kv_block_tokens)
        return None if tokenizer is None else TokenPrompts(tokenizer, blocks)


def _tokenizer(path: str) -> Tokenizer | None:
    try:
        return Tokenizer(Path(path))
    except (ExtraMissing, OSError, ValueError) as error:
        log.warning("prompts are compared as texts, for want of a tokenizer: %s", error)
        return None


def room_options(config: Config) -> SaturationOptions | None:
    """None where nobody may wait: then nothing is known to be too much for an engine."""
    if not config.queue.max_requests:
        return None
    fresh_s = max(_LOAD_FRESH_S, 3 * config.scrape.interval_s)
    return SaturationOptions(waiting_share=config.queue.engine_share, fresh_s=fresh_s)


def _room(config: Config, engine: str) -> RoomModel | None:
    options = room_options(config)
    return None if options is None else RoomModel(options, queues=engine not in _ROOM_IS_ALL)


def target_of(config: ReplicaConfig, settings: VersionConfig, model: str) -> Target:
    """What of a configuration a replica's adapter is made of."""
    return Target(
        served_name=settings.adapter or settings.served_name,
        public_name=model,
        model_name=config.model_name or "",
        layout=config.triton_layout,
        output=config.output,
        chat_template=config.chat_template or "",
    )


def _replica(
    config: ReplicaConfig, settings: VersionConfig, model: str, version: str, room: RoomModel | None
) -> Replica:
    target = target_of(config, settings, model)
    identity = Identity(
        id=config.replica_id,
        url=config.url,
        model=model,
        version=version,
        weight=config.weight,
        max_in_flight=config.max_in_flight,
        api_key=config.api_key.reveal() if config.api_key is not None else None,
    )
    return Replica(identity, ENGINES[config.engine](target), room)


def make_policy(config: PolicyConfig, random: Random) -> Policy:
    """The policy that a table, or a kind with its defaults, describes."""
    kind = POLICIES[config.kind]
    policy: Policy = kind(kind.Options(**config.options), random)
    return policy
