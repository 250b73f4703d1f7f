"""What the admin listener tells, as values: built from the fleet by plain functions, encoded as JSON.

Units are in the names; null is unknown, which is never 0. `turnout status` decodes these same types.
Fields may be added; none changes its meaning.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from router.admin.limits import LimitsView
from router.admin.model_views import ModelView
from router.config.history import ConfigState
from router.fleet.detection import Seen
from router.fleet.expectation import State, Verdict
from router.fleet.figures import Figure, Figures
from router.fleet.kv_figures import KvFigures
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet


class Reports(Protocol):
    """What is known of replicas beyond what they hold; `router.fleet.scraper.Scraper` is one."""

    def figures(self, replica: Replica) -> Figures | None: ...
    def seen(self, replica: Replica) -> Seen | None: ...
    def warnings(self, replica: Replica) -> tuple[str, ...]: ...


class KvReports(Protocol):
    """How well replicas' KV events are heard; `router.fleet.kv_events.KvEvents` is one."""

    def figures(self, replica: Replica) -> KvFigures | None: ...
    def warnings(self, replica: Replica) -> tuple[str, ...]: ...


class FiguresView(msgspec.Struct, frozen=True, kw_only=True):
    """The production figures. `from_router` names those that the router measured, the engine being silent.

    `stale`: nothing that the engine says is fresh. Ratios are 0 to 1; rates are means over some seconds.
    """

    running_requests: float | None = None
    waiting_requests: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    batch_utilisation: float | None = None
    gpu_utilisation: float | None = None
    kv_usage_ratio: float | None = None
    prefix_hit_ratio: float | None = None
    queue_wait_s: float | None = None
    from_router: list[str] = []
    stale: bool = True


class SeenView(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says it is; `kv_block_tokens` comes from its metrics."""

    engine: str | None = None
    engine_version: str | None = None
    model_ids: list[str] = []
    kv_block_tokens: float | None = None


class VerificationView(msgspec.Struct, frozen=True, kw_only=True):
    """Whether it is what its version says: `verified`, `mismatch`, or while nobody knows `warming`, `gone`.

    `mismatches` are sentences, one a field; `waits_for` says what keeps a warming one. `says` is what it, or
    its artefact, said of itself: only what was asked.
    """

    state: State = "verified"
    mismatches: list[str] = []
    waits_for: str = ""
    says: dict[str, str | int | list[str]] = {}


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica of one version. `ready`: it may get requests; not down, not draining, not full.

    `saturation` is predicted; 0 where nothing bounds it, and from 1 on it has no room for one more.

    `seen` is null until it has answered, `kv_events` where none are listened to: they are summed up over the
    processes that do. `warnings` are sentences on what is not as it is configured.
    """

    id: str
    url: str
    engine: str
    model: str
    version: str
    up: bool
    draining: bool
    ready: bool
    weight: float
    in_flight: int
    waiting_for_first_token: int
    saturation: float = 0.0
    max_in_flight: int | None = None
    metrics_age_s: float | None = None
    figures: FiguresView = FiguresView()
    seen: SeenView | None = None
    kv_events: KvFigures | None = None
    warnings: list[str] = []
    verification: VerificationView = VerificationView()


class ConfigView(msgspec.Struct, frozen=True, kw_only=True):
    """`generation` counts the configurations in force; `reload_failed`: the file was refused, for `mistakes`.

    `rolled_back_to`: an earlier one is in force by an operator's wish. `behind`: workers that do not have the
    one in force yet.
    """

    generation: int
    reload_failed: bool
    mistakes: list[str] = []
    rolled_back_to: int | None = None
    behind: int = 0


class StatusView(msgspec.Struct, frozen=True, kw_only=True):
    """`GET /api/status`: all there is to see at a glance. `ready`: some replica can be sent something."""

    turnout_version: str
    uptime_s: float
    ready: bool
    config: ConfigView
    models: list[ModelView]
    replicas: list[ReplicaView]
    limits: LimitsView = msgspec.field(default_factory=LimitsView)


class ReplicasView(msgspec.Struct, frozen=True):
    """`GET /api/replicas`, and the answer to draining: the replicas that it concerned."""

    replicas: list[ReplicaView]


def replica_views(
    replicas: Sequence[Replica], reports: Reports, kv_events: KvReports | None, now: float
) -> list[ReplicaView]:
    """`now` is the clock of `Replica.load_at`."""
    return [_replica_view(replica, reports, kv_events, now) for replica in replicas]


def config_view(state: ConfigState) -> ConfigView:
    return ConfigView(
        generation=state.generation,
        reload_failed=state.reload_failed,
        mistakes=list(state.mistakes),
        rolled_back_to=state.rolled_back_to,
        behind=state.behind,
    )


def _replica_view(replica: Replica, reports: Reports, kv_events: KvReports | None, now: float) -> ReplicaView:
    identity = replica.identity
    return ReplicaView(
        id=replica.id,
        url=identity.url,
        engine=replica.engine.kind,
        model=identity.model,
        version=identity.version,
        up=replica.up,
        draining=replica.draining,
        ready=replica.ready,
        weight=replica.weight,
        in_flight=replica.own_in_flight,
        waiting_for_first_token=replica.waiting,
        saturation=round(replica.saturation, 3),
        max_in_flight=identity.max_in_flight,
        metrics_age_s=None if replica.load is None else max(0.0, now - replica.load_at),
        figures=figures_view(reports.figures(replica)),
        seen=_seen_view(reports.seen(replica), replica),
        kv_events=None if kv_events is None else kv_events.figures(replica),
        verification=_verification_view(replica.verdict),
        warnings=[*reports.warnings(replica), *(() if kv_events is None else kv_events.warnings(replica))],
    )


def _verification_view(verdict: Verdict) -> VerificationView:
    said = verdict.said.known()
    return VerificationView(
        state=verdict.state,
        mismatches=[str(each) for each in verdict.mismatches],
        waits_for="" if verdict.verified else verdict.reason,
        says={name: list(value) if isinstance(value, tuple) else value for name, value in said.items()},
    )


def figures_view(figures: Figures | None) -> FiguresView:
    if figures is None:
        return FiguresView()
    known: dict[str, Figure] = {
        name: figure for name in NUMBERS if (figure := getattr(figures, name)) is not None
    }
    return FiguresView(
        **{name: figure.value for name, figure in known.items()},
        from_router=[name for name, figure in known.items() if figure.source == "router"],
        stale=figures.stale,
    )


NUMBERS = tuple(name for name in FiguresView.__struct_fields__ if name not in ("from_router", "stale"))
"""The figures by name, as in `Figures`."""


def _seen_view(seen: Seen | None, replica: Replica) -> SeenView | None:
    if seen is None:
        return None
    return SeenView(
        engine=seen.engine,
        engine_version=seen.engine_version,
        model_ids=list(seen.model_ids),
        kv_block_tokens=None if replica.load is None else replica.load.kv_block_tokens,
    )


def find_replicas(fleet: Fleet, replica_id: str) -> list[Replica]:
    """All that have this id: one process may serve several versions."""
    return [replica for replica in fleet.replicas if replica.id == replica_id]
