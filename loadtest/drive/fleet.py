"""The configuration under test, with the engines of this run in the place of its own replicas."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from loadtest.drive.engines import MODEL
from loadtest.simulate.setup import ReplicaSetup
from router.config.fleet import ReplicaConfig, VersionConfig
from router.config.model import AdminConfig, Config, ModelConfig


def driven_config(
    config: Config, policy: str, replicas: Sequence[ReplicaSetup], urls: Mapping[str, str]
) -> Config:
    """All that decides how requests are routed; the listeners take free ports, and nobody is kept out."""
    members = tuple(
        ReplicaConfig(id=one.id, url=urls[one.id], engine="vllm", weight=one.weight) for one in replicas
    )
    version = VersionConfig(served_name=MODEL, replicas=members)
    server = replace(
        config.server, host="127.0.0.1", port=0, settle_s=0.0, drain_timeout_s=1.0, access_log="off"
    )
    return replace(
        config,
        server=server,
        admin=AdminConfig(host="127.0.0.1", port=0),
        redis=None,
        models={MODEL: ModelConfig(stable="v1", policy=policy, versions={"v1": version})},
        keys=(),
        limits=(),
    )
