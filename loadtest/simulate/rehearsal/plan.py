"""From a configuration to a rehearsal: which versions take part, and how the release begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from loadtest.simulate.contender import Contender, OfKind
from loadtest.simulate.fault_words import fault_of
from loadtest.simulate.plan import Plan, replicas_of, setup_of
from loadtest.simulate.rehearsal.defects import Defects
from loadtest.simulate.setup import Fault, Setup
from policies.release.lifecycle import Command, Ground, Refused, Release, Verb, moved
from policies.release.standing import standing
from router.config.model import CanaryConfig, Config, ModelConfig
from router.config.scalars import nearest

_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """A release that is possible. `pools`: what serves each version that may get traffic."""

    model: str
    settings: ModelConfig
    version: str
    before: Release
    start: Command
    ground: Ground
    pools: Mapping[str, Contender]
    faults: Sequence[Fault]
    defects: Defects
    seed: int

    @property
    def stable(self) -> str:
        return self.before.stable

    @property
    def longest_step_s(self) -> float:
        return (self.settings.canary or CanaryConfig()).max_step_s

    @property
    def most_tokens(self) -> int:
        """That a request may have, its answer included: what the smallest replica holds."""
        setups = [pool.setup for pool in self.pools.values()]
        return min(replica.hardware.kv_tokens for setup in setups for replica in setup.replicas)


def rehearsal_of(
    config: Config, name: str, target: str, plan: Plan, defects: Defects, starts_s: float
) -> Rehearsal:
    """`target` is MODEL@VERSION; `name` is the configuration's. Raises ValueError: it names the remedy."""
    model, version = _parts(config, target)
    settings = config.models[model]
    canary = settings.canary
    if canary is None:
        raise ValueError(
            f"{name}: {model} has no [models.{model}.canary] table, and without it only people move a "
            "release; write one with its steps"
        )
    before = standing(None, settings.stable, settings.versions).release
    weights = {} if settings.split is None else settings.split.weights
    split = {one for one in weights if one != settings.stable}
    ground = Ground(canary.steps, settings.versions, settings.versions, split)
    salt = Random(f"{plan.seed}:salt").randbytes(_SALT_BYTES).hex()
    start = Command(verb=Verb.START, at=starts_s, version=version, salt=salt)
    _must_begin(target, before, start, ground)
    pools = {
        one: _pool(config, settings, one, name, plan)
        for one in settings.versions
        if one in (settings.stable, version) or one in split
    }
    pools[version] = _with_defects(pools[version], defects)
    return Rehearsal(
        model=model,
        settings=settings,
        version=version,
        before=before,
        start=start,
        ground=ground,
        pools=pools,
        faults=_faults(plan, pools, settings.stable, version),
        defects=defects,
        seed=plan.seed,
    )


def _parts(config: Config, target: str) -> tuple[str, str]:
    model, at, version = target.rpartition("@")
    if not at or not version:
        raise ValueError(f"--release {target}: MODEL@VERSION is expected, such as llama-8b@v2")
    if model not in config.models:
        raise ValueError(
            f"--release {target}: there is no model {model!r}; {nearest(model, [*config.models])}"
        )
    return model, version


def _must_begin(target: str, before: Release, start: Command, ground: Ground) -> None:
    try:
        moved(before, start, ground)
    except Refused as error:
        raise ValueError(f"--release {target}: {error}") from error


def _pool(config: Config, settings: ModelConfig, version: str, name: str, plan: Plan) -> Contender:
    """Replicas have the version's name where the configuration does not name them."""
    policy = config.policy_of(settings)
    replicas = replicas_of(settings, version, name, plan)
    if plan.replicas is not None:
        replicas = [one.named(f"{version}-{one.id}") for one in replicas]
    return Contender(version, OfKind(policy.kind, policy.options), setup_of(config, replicas, plan))


def _with_defects(pool: Contender, defects: Defects) -> Contender:
    setup = replace(pool.setup, replicas=defects.slowed(pool.setup.replicas))
    return replace(pool, setup=setup)


def _faults(plan: Plan, pools: Mapping[str, Contender], stable: str, version: str) -> Sequence[Fault]:
    """Replicas are counted from stable's first to the canary's last."""
    setup: Setup = pools[stable].setup
    both = replace(setup, replicas=[*setup.replicas, *pools[version].setup.replicas])
    return [fault_of(text, both) for text in plan.faults]
