"""Replicas and fleets without engines behind them, for those who watch and show them."""

from collections.abc import Sequence

from policies.resilience.retry import RetryBudget
from policies.routing.plain import Plain
from policies.routing.policy import R
from router.api.request import InferenceRequest
from router.engines.engine import Answer, Failure, StreamReader, UpstreamRequest
from router.fleet.identity import Identity
from router.fleet.pools import Pool
from router.fleet.prompts import PromptHasher
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet, Route
from router.fleet.stations import Station, Watched


class SilentEngine:
    """An adapter that is never asked to translate."""

    offers: frozenset[str] = frozenset()
    caches_answers = True

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        raise AssertionError("no request is sent here")

    def open_stream(self, request: InferenceRequest) -> StreamReader:
        raise AssertionError("no request is sent here")

    def read_answer(self, request: InferenceRequest, body: bytes) -> Answer | Failure:
        raise AssertionError("no request is sent here")


class First(Plain):
    """The policy that takes the first candidate."""

    def choose(self, request: object, candidates: Sequence[R], now: float) -> R:
        return candidates[0]


HASHER = PromptHasher(b"key", "m", "v1")


def replica(
    url: str = "http://a:8000", *, model: str = "m", version: str = "v1", engine: str = "vllm"
) -> Replica:
    identity = Identity(id=url.removeprefix("http://"), url=url, model=model, version=version)
    return Replica(identity, SilentEngine(engine))


def watched(
    url: str,
    version: str = "v1",
    *,
    engine: str = "vllm",
    api_key: str | None = None,
    metrics_url: str | None = None,
    served_name: str = "",
) -> Watched:
    station = Station(engine=engine, url=url, api_key=api_key, metrics_url=metrics_url)
    return Watched(replica(url, version=version, engine=engine), station, served_name)


def fleet(*replicas: Replica) -> Fleet:
    """Every version pinned as `model@version`; the model's own name leads to the version seen first."""
    by_version: dict[tuple[str, str], list[Replica]] = {}
    for each in replicas:
        by_version.setdefault((each.identity.model, each.identity.version), []).append(each)
    routes: dict[str, Route] = {}
    pools = {
        name: Pool(members, First(), RetryBudget(0.1, 3), HASHER) for name, members in by_version.items()
    }
    for (model, version), pool in pools.items():
        route = Route(model, version, pool)
        routes.setdefault(model, route)
        routes[f"{model}@{version}"] = route
    return Fleet(routes, {name: route.model for name, route in routes.items()}, pools, replicas)
