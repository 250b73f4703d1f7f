"""What is told of releases, and what can be asked for, as values. Shares are per cent."""

from collections.abc import Sequence

import msgspec

from policies.release.lifecycle import Release
from policies.release.split import WHOLE
from policies.release.standing import standing, state_of
from router.config.model import CanaryConfig, ModelConfig
from router.control.releases.records import Entry, Evidence, percent_of
from router.fleet.routes import Fleet


class Order(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /api/releases/MODEL`. `percent` is for `weight`, and for `start` instead of the first step."""

    verb: str
    version: str | None = None
    percent: float | None = None
    manual: bool = False
    force: bool = False
    actor: str = "somebody"
    reason: str = ""


class VersionStanding(msgspec.Struct, frozen=True, kw_only=True):
    """One version: its state (see `policies.release.standing`), and its share of the plain name's traffic."""

    version: str
    state: str
    percent: float
    replicas_ready: int
    replicas: int


class ReleaseView(msgspec.Struct, frozen=True, kw_only=True):
    """Where the traffic of a model is. `percent` is the canary's, of what stable would have without it.

    `declared` is what the configuration calls stable. `finding` and `evidence` are of the last evaluation.
    """

    model: str
    phase: str
    stable: str
    declared: str
    canary: str | None = None
    previous: str | None = None
    percent: float = 0.0
    step: int | None = None
    steps: Sequence[float] = ()
    manual: bool = False
    started_at: float | None = None
    step_at: float | None = None
    generation: int = 0
    quarantined: Sequence[str] = ()
    versions: Sequence[VersionStanding] = ()
    finding: str = ""
    evidence: Sequence[Evidence] = ()
    warnings: Sequence[str] = ()
    history: Sequence[Entry] = ()


class ReleasesView(msgspec.Struct, frozen=True):
    """`GET /api/releases`."""

    releases: list[ReleaseView]


def release_view(model: str, config: ModelConfig, fleet: Fleet, stored: Release | None) -> ReleaseView:
    """As it is in force, without evidence and history."""
    stands = standing(stored, config.stable, config.versions)
    release = stands.release
    return ReleaseView(
        model=model,
        phase=release.phase.value,
        stable=release.stable,
        declared=config.stable,
        canary=release.canary,
        previous=release.previous,
        percent=percent_of(release),
        step=release.step,
        steps=(config.canary or CanaryConfig()).steps,
        manual=release.manual,
        started_at=release.started_at or None,
        step_at=release.step_at or None,
        generation=release.generation,
        quarantined=release.quarantined,
        versions=version_standings(model, config, fleet, release),
        warnings=stands.warnings,
    )


def version_standings(
    model: str, config: ModelConfig, fleet: Fleet, release: Release
) -> Sequence[VersionStanding]:
    traffic = fleet.traffic.get(model)
    weights = {} if traffic is None else traffic.weights
    split = {} if config.split is None else config.split.weights
    told = []
    for version in config.versions:
        replicas = fleet.pools[model, version].replicas if (model, version) in fleet.pools else ()
        ready = sum(replica.serves for replica in replicas)
        mismatched = any(replica.verdict.state == "mismatch" for replica in replicas)
        state = state_of(version, release, ready=ready > 0, mismatched=mismatched, split=version in split)
        told.append(
            VersionStanding(
                version=version,
                state=state.value,
                percent=100 * weights.get(version, 0) / WHOLE,
                replicas_ready=ready,
                replicas=len(replicas),
            )
        )
    return told
