"""From a configuration to a contender: what it says, and what it cannot say of a simulated fleet."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadtest.simulate.contender import Contender, OfKind
from loadtest.simulate.fault_words import fault_of
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.setup import ReplicaSetup, Setup
from router.config.model import Config, ModelConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What no configuration holds. `replicas`, `workers`: None is what it does hold."""

    profile: str
    host_tokens: int
    replicas: int | None
    slowdowns: tuple[float, ...]
    workers: int | None
    scrape_interval_s: float | None
    gossip_s: float | None
    gossip_loss: float
    kv_events_s: float | None
    faults: tuple[str, ...]
    seed: int


def contender_of(config: Config, name: str, model: str | None, plan: Plan) -> Contender:
    """The policy and the stable version's replicas of `model`. Raises ValueError."""
    settings = model_of(config, name, model)
    policy = config.policy_of(settings)
    setup = setup_of(config, replicas_of(settings, settings.stable, name, plan), plan)
    faults = tuple(fault_of(text, setup) for text in plan.faults)
    return Contender(f"{name}: {policy.name}", OfKind(policy.kind, policy.options), setup.struck_by(faults))


def setup_of(config: Config, replicas: Sequence[ReplicaSetup], plan: Plan) -> Setup:
    """These replicas behind the workers of the configuration, without faults."""
    return Setup(
        replicas=replicas,
        workers=config.server.workers if plan.workers is None else plan.workers,
        scrape_interval_s=plan.scrape_interval_s,
        gossip_s=plan.gossip_s,
        gossip_loss=plan.gossip_loss,
        kv_events_s=plan.kv_events_s,
        seed=plan.seed,
    )


def model_of(config: Config, name: str, model: str | None) -> ModelConfig:
    """The only one there is, or the one of that name. Raises ValueError."""
    if model is None and len(config.models) == 1:
        return next(iter(config.models.values()))
    if model is None or model not in config.models:
        raise ValueError(f"{name}: --model must be one of {', '.join(config.models)}")
    return config.models[model]


def replicas_of(settings: ModelConfig, version: str, name: str, plan: Plan) -> list[ReplicaSetup]:
    """Of one version. Raises ValueError if the configuration does not hold them."""
    hardware = replace(HARDWARE[plan.profile], host_tokens=plan.host_tokens)
    found = [(replica.replica_id, replica.weight) for replica in settings.versions[version].replicas]
    if plan.replicas is not None:
        found = [(f"r{number}", 1.0) for number in range(plan.replicas)]
    if not found:
        raise ValueError(f"{name}: its replicas are discovered at run time; say how many with --replicas")
    slowdowns = plan.slowdowns
    if min(slowdowns) <= 0:
        raise ValueError(f"a slowdown must be above 0, not {min(slowdowns):g}")
    return [
        ReplicaSetup(id_, hardware, slowdowns[index % len(slowdowns)], weight)
        for index, (id_, weight) in enumerate(found)
    ]
