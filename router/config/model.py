"""Every option of the configuration file, typed, with its default, its unit in its name and its advice.

Here is the whole, and the public name of every part. A value is never changed, only replaced.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.config.access import KeyConfig, LimitConfig
from router.config.expect import ExpectConfig
from router.config.fleet import (
    DEFAULT_POLICY,
    CanaryConfig,
    DiscoverConfig,
    MarginsConfig,
    ModelConfig,
    ReplicaConfig,
    SplitConfig,
    SplitRule,
    VersionConfig,
)
from router.config.kv_events import KvEventsConfig
from router.config.option import internal, option, section
from router.config.process import (
    AdminConfig,
    HealthConfig,
    QueueConfig,
    RedisConfig,
    ReleasesConfig,
    RetriesConfig,
    ScrapeConfig,
    ServerConfig,
    TimeoutsConfig,
    UpstreamConfig,
)
from router.config.secret import Secret
from router.config.shadow import ShadowConfig
from router.config.source import NOWHERE, Source

__all__ = [
    "DEFAULT_POLICY",
    "AdminConfig",
    "CanaryConfig",
    "Config",
    "DiscoverConfig",
    "ExpectConfig",
    "HealthConfig",
    "KeyConfig",
    "KvEventsConfig",
    "LimitConfig",
    "MarginsConfig",
    "ModelConfig",
    "PolicyConfig",
    "QueueConfig",
    "RedisConfig",
    "ReleasesConfig",
    "ReplicaConfig",
    "RetriesConfig",
    "ScrapeConfig",
    "Secret",
    "ServerConfig",
    "ShadowConfig",
    "SplitConfig",
    "SplitRule",
    "TimeoutsConfig",
    "UpstreamConfig",
    "VersionConfig",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """`[policies.NAME]`: a kind and its options, decoded by the kind's own `Options`, defaults included."""

    name: str
    kind: str
    options: Mapping[str, object] = field(default_factory=dict)


@section
class Config:
    """The whole file. `source` knows the lines it came from and takes no part in comparisons."""

    server: ServerConfig = option("Where clients connect.", default_factory=ServerConfig)
    admin: AdminConfig = option("Metrics, dashboard and releases.", default_factory=AdminConfig)
    redis: RedisConfig | None = option("What several routers share.", default=None)
    releases: ReleasesConfig = option("Where releases are kept.", default_factory=ReleasesConfig)
    timeouts: TimeoutsConfig = option("What a request may wait for.", default_factory=TimeoutsConfig)
    retries: RetriesConfig = option("What happens when a replica fails.", default_factory=RetriesConfig)
    queue: QueueConfig = option("Who waits while the fleet is full.", default_factory=QueueConfig)
    upstream: UpstreamConfig = option("The connections to the replicas.", default_factory=UpstreamConfig)
    health: HealthConfig = option("The probes of the replicas.", default_factory=HealthConfig)
    scrape: ScrapeConfig = option("Reading the replicas' metrics.", default_factory=ScrapeConfig)
    models: Mapping[str, ModelConfig] = option("What clients may ask for.", default_factory=dict)
    policies: Mapping[str, PolicyConfig] = option("Named, tuned policies.", default_factory=dict)
    keys: tuple[KeyConfig, ...] = option("Who may call.", default=())
    limits: tuple[LimitConfig, ...] = option("How much each may use.", default=())
    source: Source = internal(default=NOWHERE)

    def policy_of(self, model: ModelConfig) -> PolicyConfig:
        """The policy a model's `policy` means: a table of that name, else the kind with its defaults."""
        return self.policies.get(model.policy) or PolicyConfig(name=model.policy, kind=model.policy)
