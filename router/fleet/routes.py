"""Where public model names lead: what a request reads once and holds to its end."""

import difflib
from collections.abc import Collection, Mapping, Sequence

from router.api.errors import ModelNotAllowed, ModelNotFound, RequestError, VersionRetired
from router.fleet.pools import Pool
from router.fleet.replicas import Replica


class Route:
    """Where one public model name leads: a model, a version, a pool."""

    __slots__ = ("model", "pool", "version")

    def __init__(self, model: str, version: str, pool: Pool) -> None:
        self.model = model
        self.version = version
        self.pool = pool


class Fleet:
    """Every route by public name, and every replica once; what a request reads once and holds to its end."""

    __slots__ = ("names", "replicas", "retired", "routes")

    def __init__(
        self, routes: Mapping[str, Route], names: Mapping[str, str], replicas: Sequence[Replica]
    ) -> None:
        self.routes = routes
        self.names = names
        """What `/v1/models` lists: each public name, and the model name it leads to."""
        self.replicas = tuple(replicas)
        self.retired: Collection[str] = ()
        """Names of versions, as in `model@v1`, that there were before the configuration changed."""

    @property
    def ready(self) -> bool:
        """Some replica is up. A full fleet is ready too: requests may wait for it."""
        return any(replica.serves for replica in self.replicas)

    @property
    def pools(self) -> Mapping[tuple[str, str], Pool]:
        """By model and version, each once."""
        return {(route.model, route.version): route.pool for route in self.routes.values()}

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

    def unknown(self, name: str) -> RequestError:
        """What to say of a name that no route has."""
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
