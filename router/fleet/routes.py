"""Where public model names lead: what a request reads once and holds to its end."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policies.release.lifecycle import Release
from router.api.errors import ModelNotAllowed, ModelNotFound, RequestError, VersionRetired
from router.api.request import InferenceRequest
from router.control.keys import Caller
from router.fleet.pools import Pool
from router.fleet.replicas import Replica


class Divides(Protocol):
    """How a model's traffic is divided; `router.fleet.traffic.Traffic` is it."""

    @property
    def release(self) -> Release: ...
    @property
    def weights(self) -> Mapping[str, int]:
        """Hundredths of a per cent, by version."""
        ...

    def assign(
        self, request: InferenceRequest, headers: Mapping[str, str], caller: Caller
    ) -> "tuple[Route, str]": ...


@dataclass(frozen=True, slots=True)
class Arm:
    """A request that a release compares. `share`: the canary's, 0 to 1, when the request was assigned.

    `version` is whom it was assigned to, whoever answered in the end. `salt` is the release's.
    """

    salt: str
    version: str
    canary: bool
    share: float


class Route:
    """Where one public model name leads: a model, a version, a pool.

    `traffic` is there where several versions may get what asks for this name. `fallback` answers if this one
    cannot. `arm`: what a release makes of it.
    """

    __slots__ = ("arm", "fallback", "model", "pool", "traffic", "version")

    def __init__(
        self,
        model: str,
        version: str,
        pool: Pool,
        *,
        traffic: Divides | None = None,
        fallback: "Route | None" = None,
        arm: Arm | None = None,
    ) -> None:
        self.model = model
        self.version = version
        self.pool = pool
        self.traffic = traffic
        self.fallback = fallback
        self.arm = arm


class Fleet:
    """Every route by public name, and every replica once; what a request reads once and holds to its end."""

    __slots__ = ("names", "pools", "replicas", "retired", "routes", "traffic")

    def __init__(
        self,
        routes: Mapping[str, Route],
        names: Mapping[str, str],
        pools: Mapping[tuple[str, str], Pool],
        replicas: Sequence[Replica],
        traffic: Mapping[str, Divides] | None = None,
        retired: Collection[str] = (),
    ) -> None:
        self.routes = routes
        self.names = names
        """What `/v1/models` lists: each public name, and the model name it leads to."""
        self.pools = pools
        """By model and version, each once."""
        self.replicas = tuple(replicas)
        self.traffic = traffic or {}
        """How each model's traffic is divided now."""
        self.retired = retired
        """Names of versions, as in `model@v1`, that there were before the configuration changed."""

    @property
    def ready(self) -> bool:
        """Some replica is up. A full fleet is ready too: requests may wait for it."""
        return any(replica.serves for replica in self.replicas)

    @property
    def only_model(self) -> str | None:
        """The model's name, where there is but one: what a request that names none means."""
        models = {route.model for route in self.routes.values()}
        return models.pop() if len(models) == 1 else None

    def route_for(self, name: str, allowed: Collection[str] | None = None) -> Route:
        """Where `name` leads. `allowed` are the models that may be used, all if None.

        Raises `ModelNotFound`, `VersionRetired`, or `ModelNotAllowed` for any other than the allowed ones:
        whoever may not use a model does not learn either whether it exists.
        """
        route = self.routes.get(name)
        if allowed is not None and (route is None or route.model not in allowed):
            raise ModelNotAllowed(f"this key may not use a model {name[:128]!r}", param="model")
        if route is None:
            raise self.unknown(name)
        return route

    def assign(
        self, request: InferenceRequest, headers: Mapping[str, str], caller: Caller
    ) -> tuple[Route, str]:
        """The version of a request, and the unit drawn for it, if any. Raises what `route_for` does."""
        route = self.route_for(request.model, caller.models)
        if route.traffic is None:
            return route, ""
        return route.traffic.assign(request, headers, caller)

    def unknown(self, name: str) -> RequestError:
        """What to say of a name that no route has."""
        model, role, _ = name.partition(":canary")
        if role and model in self.routes:
            return ModelNotFound(f"no release of {model!r} is under way: it has no canary", param="model")
        model, _, version = name.partition("@")
        versions = ", ".join(sorted(known for known in self.routes if known.startswith(f"{model}@")))
        if name in self.retired:
            if model not in self.routes:
                return VersionRetired(f"{name} was retired, and its model with it", param="model")
            text = f"{name} was retired; use {model!r}, or one of {versions}"
            return VersionRetired(text, param="model", instead=model)
        if version and model in self.routes:
            return ModelNotFound(
                f"model {model!r} has no version {version!r}; there are: {versions}", param="model"
            )
        near = difflib.get_close_matches(name, self.names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "GET /v1/models lists what there is"
        return ModelNotFound(f"the model {name[:128]!r} does not exist; {hint}", param="model")
