"""Models and their versions as the admin listener tells them; see `router.admin.views`."""

from collections.abc import Mapping
from math import inf

import msgspec

from policies.release.split import WHOLE
from router.fleet.pools import Pool
from router.fleet.routes import Fleet


class VersionView(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model. `names` are the public names that lead to it; `replicas` are ids.

    `unverified` says of replicas, by id, why they may not serve it.

    `queued` requests wait in the router, because all of its replicas are saturated. `saturation` is that of
    the freest one; null without any that is up. `percent` is its share of what asks for the plain name.
    """

    version: str
    names: list[str]
    replicas: list[str]
    replicas_ready: int
    in_flight: int
    queued: int = 0
    saturation: float | None = 0.0
    percent: float | None = None
    unverified: dict[str, list[str]] = {}


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One model. `stable` is the version that its plain name means; `release` is where its release stands."""

    model: str
    stable: str | None
    versions: list[VersionView]
    release: str = "idle"


class ModelsView(msgspec.Struct, frozen=True):
    """`GET /api/models`."""

    models: list[ModelView]


def model_views(fleet: Fleet) -> list[ModelView]:
    """Models and versions in the order of the configuration."""
    versions: dict[str, dict[str, Pool]] = {}
    names: dict[tuple[str, str], list[str]] = {}
    for name, route in fleet.routes.items():
        versions.setdefault(route.model, {}).setdefault(route.version, route.pool)
        names.setdefault((route.model, route.version), []).append(name)
    return [_model_view(fleet, model, names, by_version) for model, by_version in versions.items()]


def _model_view(
    fleet: Fleet, model: str, names: Mapping[tuple[str, str], list[str]], pools: Mapping[str, Pool]
) -> ModelView:
    traffic = fleet.traffic.get(model)
    weights = None if traffic is None else traffic.weights
    return ModelView(
        model=model,
        stable=fleet.routes[model].version if model in fleet.routes else None,
        versions=[
            _version_view(version, names[model, version], pool, weights) for version, pool in pools.items()
        ],
        release="idle" if traffic is None else traffic.release.phase.value,
    )


def _version_view(
    version: str, names: list[str], pool: Pool, weights: Mapping[str, int] | None
) -> VersionView:
    return VersionView(
        version=version,
        names=names,
        replicas=[replica.id for replica in pool.replicas],
        replicas_ready=sum(replica.ready for replica in pool.replicas),
        in_flight=sum(replica.own_in_flight for replica in pool.replicas),
        queued=pool.queued,
        saturation=_finite(pool.saturation),
        percent=None if weights is None else 100 * weights.get(version, 0) / WHOLE,
        unverified={
            replica.id: list(replica.verdict.complaints)
            for replica in pool.replicas
            if not replica.verdict.verified
        },
    )


def _finite(value: float) -> float | None:
    return round(value, 3) if value < inf else None
