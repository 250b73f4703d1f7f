"""The JSON of the admin listener: its shape, its units, and unknown that is null."""

import dataclasses
import json
from typing import Any

import msgspec

from router.admin.model_views import model_views
from router.admin.views import (
    NUMBERS,
    FiguresView,
    ReplicasView,
    figures_view,
    find_replicas,
    replica_views,
)
from router.engines.engine import ReplicaLoad
from router.fleet.detection import Seen
from router.fleet.figures import Figure, Figures
from router.fleet.kv_figures import KvFigures
from router.fleet.leases import Lease
from router.fleet.replicas import Replica
from tests.support.bare_replicas import fleet, replica

UNKNOWN = Figures(
    running_requests=None,
    waiting_requests=None,
    prefill_tokens_per_s=None,
    decode_tokens_per_s=None,
    batch_utilisation=None,
    gpu_utilisation=None,
    kv_usage_ratio=None,
    prefix_hit_ratio=None,
    queue_wait_s=None,
    stale=False,
    restarted=False,
)


class Told:
    """Reports that are set by the test."""

    def __init__(
        self, figures: Figures | None = None, seen: Seen | None = None, warnings: tuple[str, ...] = ()
    ) -> None:
        self._figures, self._seen, self._warnings = figures, seen, warnings

    def figures(self, replica: Replica) -> Figures | None:
        return self._figures

    def seen(self, replica: Replica) -> Seen | None:
        return self._seen

    def warnings(self, replica: Replica) -> tuple[str, ...]:
        return self._warnings


def shown(one: Replica, told: Told, now: float = 0.0) -> dict[str, Any]:
    [view] = json.loads(msgspec.json.encode(replica_views([one], told, None, now)))
    return dict(view)


def test_a_replica_of_which_nothing_is_known() -> None:
    """Before the first probe and scrape there is its identity, and null for the rest."""
    assert shown(replica("http://a:8000", engine="tgi"), Told()) == {
        "id": "a:8000",
        "url": "http://a:8000",
        "engine": "tgi",
        "model": "m",
        "version": "v1",
        "up": True,
        "draining": False,
        "ready": True,
        "weight": 1.0,
        "in_flight": 0,
        "waiting_for_first_token": 0,
        "saturation": 0.0,
        "max_in_flight": None,
        "metrics_age_s": None,
        "figures": dict.fromkeys(NUMBERS) | {"from_router": [], "stale": True},
        "seen": None,
        "kv_events": None,
        "warnings": [],
        "verification": {"state": "verified", "mismatches": [], "waits_for": "", "says": {}},
    }


def test_a_replica_that_is_known_well() -> None:
    """State, figures, identity and warnings are all there."""
    one = replica("http://a:8000")
    lease = Lease(one)
    Lease(one).first_token(0.0)
    one.draining = True
    one.load, one.load_at = ReplicaLoad(kv_block_tokens=16), 100.0
    figures = dataclasses.replace(
        UNKNOWN, kv_usage_ratio=Figure(0.5, "engine"), decode_tokens_per_s=Figure(70, "router")
    )
    seen = Seen(engine="vllm", engine_version="0.27.0", model_ids=("llama",))
    view = shown(one, Told(figures, seen, ("it serves 'llama', not 'x'",)), now=101.5)
    assert (view["in_flight"], view["waiting_for_first_token"], view["ready"]) == (2, 1, False)
    assert view["metrics_age_s"] == 1.5
    assert view["figures"]["kv_usage_ratio"] == 0.5
    assert view["figures"]["decode_tokens_per_s"] == 70
    assert view["figures"]["from_router"] == ["decode_tokens_per_s"]
    assert view["figures"]["gpu_utilisation"] is None
    assert view["figures"]["stale"] is False
    assert view["seen"] == {
        "engine": "vllm", "engine_version": "0.27.0", "model_ids": ["llama"], "kv_block_tokens": 16.0,
    }  # fmt: skip
    assert view["warnings"] == ["it serves 'llama', not 'x'"]
    lease.close(None, 0.0)


def test_kv_events_are_shown_with_their_warnings() -> None:
    """After those of others, and null stays null."""

    class Heard:
        def figures(self, replica: Replica) -> KvFigures | None:
            return KvFigures(connected=True, events=7)

        def warnings(self, replica: Replica) -> tuple[str, ...]:
            return ("nothing is heard",)

    views = replica_views([replica()], Told(warnings=("it is odd",)), Heard(), 0.0)
    [view] = json.loads(msgspec.json.encode(views))
    assert (view["kv_events"]["connected"], view["kv_events"]["events"]) == (True, 7)
    assert view["kv_events"]["last_event_age_s"] is None
    assert view["warnings"] == ["it is odd", "nothing is heard"]


def test_every_figure_is_shown() -> None:
    """A figure that is added one day cannot be forgotten here, and zero is not unknown."""
    names = {field.name for field in dataclasses.fields(Figures)} - {"stale", "restarted"}
    assert set(NUMBERS) == names
    zero = dataclasses.replace(UNKNOWN, **dict.fromkeys(names, Figure(0.0, "engine")))
    assert msgspec.structs.asdict(figures_view(zero)) == dict.fromkeys(names, 0.0) | {
        "from_router": [],
        "stale": False,
    }
    assert figures_view(None) == FiguresView()


def test_a_secret_is_in_no_view() -> None:
    """Neither the replica's key nor anything that holds it is shown."""
    one = replica()
    one.identity = dataclasses.replace(one.identity, api_key="sesame")
    assert b"sesame" not in msgspec.json.encode(replica_views([one], Told(), None, 0.0))


def test_models_list_versions_and_the_names_that_lead_to_them() -> None:
    """The stable version, the replicas by id, how many of them are ready and how busy the freest is."""
    down, up, other = replica("http://a"), replica("http://b"), replica("http://c", version="v2")
    down.up = False
    Lease(up)
    up.limit = 4
    other.up = False
    shown_fleet = fleet(down, up, other)
    shown_fleet.pools["m", "v1"].queued = 3
    [model] = json.loads(msgspec.json.encode(model_views(shown_fleet)))
    assert model == {
        "model": "m",
        "stable": "v1",
        "versions": [
            {
                "version": "v1",
                "names": ["m", "m@v1"],
                "replicas": ["a", "b"],
                "replicas_ready": 1,
                "in_flight": 1,
                "queued": 3,
                "saturation": 0.25,
                "percent": None,
                "unverified": {},
            },
            {
                "version": "v2",
                "names": ["m@v2"],
                "replicas": ["c"],
                "replicas_ready": 0,
                "in_flight": 0,
                "queued": 0,
                "saturation": None,
                "percent": None,
                "unverified": {},
            },
        ],
        "release": "idle",
    }


def test_an_id_finds_all_versions_of_a_process() -> None:
    """Draining concerns the process, whatever it serves."""
    v1, v2, other = replica("http://a"), replica("http://a", version="v2"), replica("http://b")
    assert find_replicas(fleet(v1, v2, other), "a") == [v1, v2]
    assert find_replicas(fleet(v1), "nobody") == []


def test_views_can_be_read_back() -> None:
    """The types that encode are those that `turnout status` decodes with."""
    views = ReplicasView(replica_views([replica()], Told(UNKNOWN, Seen()), None, 0.0))
    assert msgspec.json.decode(msgspec.json.encode(views), type=ReplicasView) == views
