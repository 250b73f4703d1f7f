"""The admin listener: metrics for Prometheus, status for people and scripts, and draining of replicas.

It has a socket of its own and is never reachable through the one that clients use.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.admin.access import AdminAccess
from router.admin.answers import NO_STORE, json_answer
from router.admin.configuration import ConfigApi
from router.admin.explain import explained
from router.admin.limits import LimitBoard, LimitsView
from router.admin.model_views import ModelsView, model_views
from router.admin.page import Page
from router.admin.releases import ReleaseApi
from router.admin.shadows import shadows_view
from router.admin.views import (
    KvReports,
    ReplicasView,
    ReplicaView,
    Reports,
    StatusView,
    config_view,
    find_replicas,
    replica_views,
)
from router.api.errors import InternalError, MethodNotAllowed, PathNotFound, RequestError, TurnoutError
from router.api.openai import RequestRules
from router.config.model import AdminConfig
from router.config.reload import Reloader
from router.control.keys import ANONYMOUS, Caller, KeyRing
from router.control.releases.office import Office
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet
from router.observe.exposition import CONTENT_TYPE, render
from router.observe.metrics import RouterMetrics
from router.observe.shadow import Tallies

log = logging.getLogger("turnout.admin")


class Workers(Protocol):
    """The processes that serve, where this is not the one; `router.overview.Overview` speaks for them."""

    async def refresh(self) -> None:
        """Bring the fleet and the metrics that are shown up to date."""
        ...

    def draining_changed(self) -> None:
        """`Replica.draining` was set here: it is to be so there."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where what is shown comes from. `fleet` gives the fleet in force, `reports` is what the scraper knows.

    `workers` is None where this process is the whole router, `kv_events` where none are listened to,
    `limits` gives None where nothing is limited, `reloader` is None where the configuration cannot change.
    """

    fleet: Callable[[], Fleet]
    metrics: RouterMetrics
    reports: Reports
    rules: RequestRules
    workers: Workers | None = None
    kv_events: KvReports | None = None
    limits: Callable[[], LimitBoard | None] = lambda: None
    keys: KeyRing | None = None
    reloader: Reloader | None = None
    shadows: Callable[[], Tallies] = dict
    releases: Office | None = None


class AdminApi:
    """The handlers."""

    def __init__(self, sources: Sources) -> None:
        self._fleet = sources.fleet
        self._metrics = sources.metrics
        self._reports = sources.reports
        self._rules = sources.rules
        self._workers = sources.workers
        self._kv_events = sources.kv_events
        self._limits = sources.limits
        self._shadows = sources.shadows
        self._keys = sources.keys or KeyRing((), time.time)
        self._process = _process_collectors()
        self._began = time.monotonic()
        self._version = version("turnout")

    async def metrics(self, _request: Request) -> Response:
        """Prometheus text: `turnout_*`, and `process_*` and `python_*` of this process."""
        await self._refresh()
        families = (family for each in (self._metrics, *self._process) for family in each.collect())
        return Response(render(families), headers={"content-type": CONTENT_TYPE, **NO_STORE})

    async def status(self, _request: Request) -> Response:
        """`StatusView`."""
        await self._refresh()
        fleet = self._fleet()
        config = self._metrics.config
        return json_answer(
            StatusView(
                turnout_version=self._version,
                uptime_s=time.monotonic() - self._began,
                ready=fleet.ready,
                config=config_view(config),
                models=model_views(fleet),
                replicas=self._views(fleet.replicas),
                limits=await self._limits_view(),
            )
        )

    async def replicas(self, _request: Request) -> Response:
        """`ReplicasView`."""
        await self._refresh()
        return json_answer(ReplicasView(self._views(self._fleet().replicas)))

    async def models(self, _request: Request) -> Response:
        """`ModelsView`."""
        await self._refresh()
        return json_answer(ModelsView(model_views(self._fleet())))

    async def limits(self, _request: Request) -> Response:
        """`LimitsView`."""
        await self._refresh()
        return json_answer(await self._limits_view())

    async def shadows(self, _request: Request) -> Response:
        """`ShadowsView`."""
        await self._refresh()
        return json_answer(shadows_view(self._shadows()))

    async def _limits_view(self) -> LimitsView:
        board = self._limits()
        return LimitsView() if board is None else await board.view()

    async def explain(self, request: Request) -> Response:
        """`DecisionView` of an inference request in the body: what would become of it now. Nothing is sent.

        `?key=ID`: as that key's. Without it, anybody's.
        """
        await self._refresh()
        caller = self._caller(request.query_params.get("key"))
        board = self._limits()
        gate = None if board is None else board.gate
        return json_answer(await explained(self._fleet(), await request.body(), self._rules, caller, gate))

    def _caller(self, key_id: str | None) -> Caller:
        if key_id is None:
            return ANONYMOUS
        caller = self._keys.named(key_id)
        if caller is None:
            raise RequestError(f"there is no key {key_id[:128]!r}", param="key")
        return caller

    async def drain(self, request: Request) -> Response:
        """No new requests to this replica in any version; those it has go on. `ReplicasView` of it."""
        return self._set_draining(request, draining=True)

    async def undrain(self, request: Request) -> Response:
        """The replica may get requests again. `ReplicasView` of it."""
        return self._set_draining(request, draining=False)

    def _views(self, replicas: Sequence[Replica]) -> list[ReplicaView]:
        return replica_views(replicas, self._reports, self._kv_events, _now())

    async def _refresh(self) -> None:
        if self._workers is not None:
            await self._workers.refresh()

    def _set_draining(self, request: Request, *, draining: bool) -> Response:
        replica_id = request.path_params["replica"]
        replicas = find_replicas(self._fleet(), replica_id)
        if not replicas:
            return refusal(PathNotFound(f"there is no replica {replica_id[:128]!r}"))
        for replica in replicas:
            replica.draining = draining
        if self._workers is not None:
            self._workers.draining_changed()
        log.info("replica %s: %s by an operator", replica_id, "draining" if draining else "draining ended")
        return json_answer(ReplicasView(self._views(replicas)))


def create_admin_app(sources: Sources, config: AdminConfig) -> Starlette:
    """The whole admin surface. Without `[admin] token` only loopback clients are served."""
    api = AdminApi(sources)
    routes = [
        Route("/", Page().show),
        Route("/metrics", api.metrics),
        Route("/api/status", api.status),
        Route("/api/models", api.models),
        Route("/api/replicas", api.replicas),
        Route("/api/limits", api.limits),
        Route("/api/shadow", api.shadows),
        Route("/api/explain", api.explain, methods=["POST"]),
        *([] if sources.reloader is None else ConfigApi(sources.reloader).routes()),
        # An id may hold slashes.
        Route("/api/replicas/{replica:path}/drain", api.drain, methods=["POST"]),
        Route("/api/replicas/{replica:path}/undrain", api.undrain, methods=["POST"]),
    ]
    if sources.releases is not None:
        routes += ReleaseApi(sources.releases).routes
    app = Starlette(
        routes=routes,
        middleware=[Middleware(AdminAccess, token=config.token)],
        exception_handlers={
            TurnoutError: _refused,
            HTTPException: _http_exception,
            Exception: _http_exception,
        },
    )
    app.router.redirect_slashes = False
    return app


def refusal(error: TurnoutError) -> Response:
    return Response(error.body(), error.status, NO_STORE, media_type="application/json")


async def _refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, TurnoutError)
    return refusal(exc)


async def _http_exception(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    if status == 404:
        return refusal(PathNotFound(f"there is nothing at {request.url.path[:128]}"))
    if status == 405:
        return refusal(MethodNotAllowed(f"{request.method} is not allowed at {request.url.path[:128]}"))
    return refusal(InternalError("the router failed to answer this; its log says why"))


def _process_collectors() -> Iterable[Collector]:
    """In a registry that nobody else has: two routers may live in one process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return (registry,)


def _now() -> float:
    return asyncio.get_running_loop().time()
