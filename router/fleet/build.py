"""A fleet from a configuration: replicas, pools, and every name that leads to one."""

import logging
from pathlib import Path
from random import Random

from policies.limits.saturation import RoomModel, SaturationOptions
from policies.resilience.retry import RetryBudget
from policies.routing import POLICIES
from policies.routing.policy import Policy
from router.config.model import Config, PolicyConfig, ReplicaConfig, VersionConfig
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


def build_fleet(config: Config, random: Random, prefix_key: bytes) -> Fleet:
    """Everything that `config.models` describes. `prefix_key` keys the hashes of prompts."""
    names: dict[str, str] = {}
    pools: dict[tuple[str, str], Pool] = {}
    tokens = _Tokens(prefix_key)
    for name, model in config.models.items():
        for version, settings in model.versions.items():
            pools[name, version] = Pool(
                [
                    _replica(replica, settings, name, version, _room(config, replica.engine))
                    for replica in settings.replicas
                ],
                make_policy(config.policy_of(model), random),
                RetryBudget(config.retries.budget_ratio, config.retries.budget_floor_per_s),
                PromptHasher(prefix_key, name, version, tokens.prompts_of(settings)),
                model.policy,
            )
        names[name] = name
        names |= dict.fromkeys(model.aliases, name)
        names |= {f"{name}@{version}": name for version in model.versions}
    replicas = [replica for pool in pools.values() for replica in pool.replicas]
    return with_traffic(Fleet({}, names, pools, replicas), config.models)


class _Tokens:
    """Tokenizers, each loaded once: that takes a second for a large vocabulary."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._loaded: dict[str, Tokenizer | None] = {}

    def prompts_of(self, version: VersionConfig) -> TokenPrompts | None:
        """None for a version without a tokenizer, or with one that cannot be used."""
        path = version.tokenizer
        if path is None:
            return None
        if path not in self._loaded:
            self._loaded[path] = _tokenizer(path)
        tokenizer = self._loaded[path]
        blocks = TokenBlocks(self._key, version.kv_block_tokens)
        return None if tokenizer is None else TokenPrompts(tokenizer, blocks)


def _tokenizer(path: str) -> Tokenizer | None:
    try:
        return Tokenizer(Path(path))
    except (ExtraMissing, OSError, ValueError) as error:
        log.warning("prompts are compared as texts, for want of a tokenizer: %s", error)
        return None


def _room(config: Config, engine: str) -> RoomModel | None:
    """None where nobody may wait: then nothing is known to be too much for an engine."""
    if not config.queue.max_requests:
        return None
    fresh_s = max(_LOAD_FRESH_S, 3 * config.scrape.interval_s)
    options = SaturationOptions(waiting_share=config.queue.engine_share, fresh_s=fresh_s)
    return RoomModel(options, queues=engine not in _ROOM_IS_ALL)


def _replica(
    config: ReplicaConfig, settings: VersionConfig, model: str, version: str, room: RoomModel | None
) -> Replica:
    target = Target(
        served_name=settings.adapter or settings.served_name,
        public_name=model,
        model_name=config.model_name or "",
        layout=config.triton_layout,
        output=config.output,
        chat_template=config.chat_template or "",
    )
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
