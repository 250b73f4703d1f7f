"""How each model's traffic is divided among its versions: pins, then header rules, then the split in force.

A release or a reload makes new routes over the same pools; a request reads them once and holds them to its
end.
"""

from collections.abc import Mapping, Sequence

from policies.release.lifecycle import Release
from policies.release.split import Arm as SplitArm
from policies.release.split import Split
from policies.release.standing import Standing, standing
from router.api.openai import read_user
from router.api.prompt_text import beginning_of
from router.api.request import InferenceRequest
from router.config.model import ModelConfig, SplitRule
from router.control.keys import Caller
from router.fleet.pools import Pool
from router.fleet.routes import Arm, Fleet, Route

_NOBODY = ""


class Traffic:
    """One model's. `weights` are in hundredths of a per cent, by version."""

    __slots__ = ("_by", "_routes", "_rules", "_split", "release", "weights")

    def __init__(self, name: str, model: ModelConfig, release: Release, pools: Mapping[str, Pool]) -> None:
        self.release = release
        self._by = model.split_by
        self._split = split_of(name, model, release)
        self.weights = self._split.weights
        self._rules: Sequence[tuple[str, SplitRule, Route]] = [
            (rule.header.lower(), rule, Route(name, rule.version, pools[rule.version]))
            for rule in (() if model.split is None else model.split.rules)
        ]
        stable = Route(name, release.stable, pools[release.stable])
        self._routes = {
            arm: _route(arm, stable, pools, release, self._split.canary_share)
            for arm in _arms(self._split, release)
            if arm.version in pools
        }

    @property
    def divides(self) -> bool:
        """Whether requests for the plain name may get different versions."""
        return bool(self._rules) or self._split.single is None

    def assign(
        self, request: InferenceRequest, headers: Mapping[str, str], caller: Caller
    ) -> tuple[Route, str]:
        """The version, and the unit that it was drawn for: empty where a rule, or nothing, decided."""
        for header, rule, route in self._rules:
            if headers.get(header) == rule.equals:
                return route, _NOBODY
        unit = unit_of(self._by, request, caller) if self._split.single is None else _NOBODY
        return self._routes[self._split.arm_of(unit)], unit


def with_traffic(
    fleet: Fleet, models: Mapping[str, ModelConfig], releases: Mapping[str, Release] | None = None
) -> Fleet:
    """The same pools under the routes that these releases mean."""
    routes: dict[str, Route] = {}
    traffic: dict[str, Traffic] = {}
    for name, model in models.items():
        pools = {version: fleet.pools[name, version] for version in model.versions}
        release = _standing(name, model, releases or {}).release
        traffic[name] = Traffic(name, model, release, pools)
        routes |= _routes(name, model, traffic[name], pools)
    return Fleet(routes, fleet.names, fleet.pools, fleet.replicas, traffic, fleet.retired)


def disagreements(
    models: Mapping[str, ModelConfig], releases: Mapping[str, Release]
) -> Mapping[str, Sequence[str]]:
    """Where the configuration and a release say different things: sentences, by model."""
    return {name: _standing(name, model, releases).warnings for name, model in models.items()}


def split_of(name: str, model: ModelConfig, release: Release) -> Split:
    """What the file gives to the version that it calls stable goes to the one that is."""
    weights: dict[str, float] = {}
    for version, weight in ({} if model.split is None else model.split.weights).items():
        heir = release.stable if version == model.stable else version
        weights[heir] = weights.get(heir, 0.0) + weight
    return Split(name, release.stable, weights, release.ramp)


def unit_of(by: str, request: InferenceRequest, caller: Caller) -> str:
    """What stays on one version: a session, user or key of a tenant.

    Without the wished one it is the nearest that there is; without any session the first turns are one.
    """
    if by == "request":
        return request.id
    if by == "api_key":
        # Where nobody has a key all would be one.
        unit = caller.key_id if caller.key_id != "anonymous" else None
    else:
        unit = read_user(request.members) if by == "user" else request.session
    if not unit:
        unit = request.session or beginning_of(request) or request.id
    return f"{caller.tenant}\x00{unit}"


def _standing(name: str, model: ModelConfig, releases: Mapping[str, Release]) -> Standing:
    return standing(releases.get(name), model.stable, model.versions)


def _routes(
    name: str, model: ModelConfig, traffic: Traffic, pools: Mapping[str, Pool]
) -> Mapping[str, Route]:
    release = traffic.release
    pool = pools[release.stable]
    plain = Route(name, release.stable, pool, traffic=traffic if traffic.divides else None)
    routes = {name: plain, f"{name}:stable": Route(name, release.stable, pool)}
    routes |= dict.fromkeys(model.aliases, plain)
    if release.under_way and release.canary is not None and release.canary in pools:
        routes[f"{name}:canary"] = Route(name, release.canary, pools[release.canary])
    routes |= {f"{name}@{version}": Route(name, version, pool) for version, pool in pools.items()}
    return routes


def _arms(split: Split, release: Release) -> Sequence[SplitArm]:
    if split.single is not None:
        return [split.single]
    arms = [SplitArm(version) for version in split.weights]
    if release.ramp is not None:
        arms += [
            SplitArm(release.stable, canary=False, compared=True),
            SplitArm(release.ramp.version, canary=True, compared=True),
        ]
    return arms


def _route(arm: SplitArm, stable: Route, pools: Mapping[str, Pool], release: Release, share: float) -> Route:
    """A version that fails before its first token leaves the answer to stable."""
    return Route(
        stable.model,
        arm.version,
        pools[arm.version],
        fallback=None if arm.version == stable.version else stable,
        arm=Arm(release.salt, arm.version, arm.canary, share) if arm.compared else None,
    )
