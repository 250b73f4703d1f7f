"""Readings against real sockets: kept places, stalls, lies, restarts, and metrics that reading empties."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

from router.config.model import ScrapeConfig
from router.engines.telemetry import TELEMETRY
from router.fleet.replicas import Replica
from router.fleet.scraper import Scraper, metrics_places
from router.fleet.stations import Station
from tests.support.bare_replicas import watched
from tests.support.scripted_server import Reply, ScriptedServer, answer, drip, hang, raw, serving, until

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines"
VLLM = (FIXTURES / "vllm" / "metrics_v0.27.prom").read_bytes()
TRTLLM_JSON = (FIXTURES / "trtllm" / "metrics_iteration_stats.json").read_bytes()
FAST = ScrapeConfig(interval_s=0.02, timeout_s=1.0)
MODELS = answer(200, json.dumps({"data": [{"id": "llama", "owned_by": "vllm"}]}).encode())


def vllm(generated: int = 100, awake: int = 1) -> bytes:
    return (
        f'vllm:generation_tokens_total{{engine="0"}} {generated}.0\n'
        f'vllm:engine_sleep_state{{sleep_state="awake"}} {awake}.0\n'
        'vllm:num_requests_running{engine="0"} 3.0\n'
    ).encode()


class Scene:
    def __init__(self, config: ScrapeConfig) -> None:
        self.noticed: list[Replica] = []
        self.scraper = Scraper(config, noticed=self.noticed.append, random=Random(1))


def play(
    act: Callable[[Scene, ScriptedServer], Coroutine[Any, Any, None]],
    replies: dict[str, Reply] | None = None,
    config: ScrapeConfig = FAST,
) -> None:
    async def run() -> None:
        async with serving() as server:
            server.replies = {"/metrics": answer(200, VLLM)} if replies is None else replies
            scene = Scene(config)
            try:
                await act(scene, server)
            finally:
                await scene.scraper.close()

    asyncio.run(run())


def test_a_reading_reaches_the_replica_and_its_figures() -> None:
    """`load`, `load_at` and the figures come from what the engine said."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.scraper.follow([one])
        assert scene.scraper.figures(one.replica) is None
        await until(lambda: one.replica.load is not None)
        assert one.replica.load is not None
        assert one.replica.load.running_requests == 7
        assert abs(asyncio.get_running_loop().time() - one.replica.load_at) < 5
        figures = scene.scraper.figures(one.replica)
        assert figures is not None
        assert figures.running_requests is not None
        assert (figures.running_requests.value, figures.running_requests.source) == (7, "engine")
        assert not figures.stale

    play(act)


def test_rates_come_from_two_readings() -> None:
    """A counter that grows becomes tokens per second."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        tokens = iter(range(100, 10**9, 50))

        async def growing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answer(200, vllm(next(tokens)))(reader, writer)

        server.replies["/metrics"] = growing
        one = watched(server.url)
        scene.scraper.follow([one])

        def rate() -> float:
            figures = scene.scraper.figures(one.replica)
            figure = None if figures is None else figures.decode_tokens_per_s
            return 0.0 if figure is None or figure.source != "engine" else figure.value

        await until(lambda: rate() > 0)

    play(act)


def test_the_first_place_that_works_is_kept() -> None:
    """trtllm-serve without Prometheus is read as JSON, and the other path is not asked again."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url, engine="trtllm")
        scene.scraper.follow([one])
        await until(lambda: server.seen["/metrics"] >= 4)
        assert one.replica.load is not None
        assert server.seen["/prometheus/metrics"] == 1

    play(act, {"/metrics": answer(200, TRTLLM_JSON)})


def test_a_place_that_is_gone_is_looked_for_again() -> None:
    """After an upgrade moved the metrics, the other place is found."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url, engine="trtllm")
        scene.scraper.follow([one])
        await until(lambda: server.seen["/metrics"] >= 2)
        text = (FIXTURES / "trtllm" / "prometheus_2026.prom").read_bytes()
        server.replies = {"/prometheus/metrics": answer(200, text)}
        await until(lambda: server.seen["/prometheus/metrics"] >= 4)
        assert one.replica.load is not None
        assert one.replica.load.running_requests == 7

    play(act, {"/metrics": answer(200, TRTLLM_JSON)})


def test_metrics_that_reading_empties_have_one_reader() -> None:
    """Two versions on one process share its readings, and both get them."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        both = [watched(server.url, version, engine="trtllm") for version in ("v1", "v2")]
        scene.scraper.follow(both)
        await until(lambda: server.seen["/metrics"] >= 1 and both[0].replica.load is not None)
        assert server.seen["/metrics"] == 1
        assert both[0].replica.load is both[1].replica.load

    play(act, {"/metrics": answer(200, TRTLLM_JSON)}, ScrapeConfig(interval_s=60.0))


def test_no_alarm_makes_it_read_more_often_than_the_period() -> None:
    """However often something is noticed, a process is read once a period."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url, engine="trtllm")
        now = asyncio.get_running_loop().time
        scene.scraper.follow([one])
        await until(lambda: one.replica.load is not None)
        begun, count = now(), server.seen["/metrics"]
        while now() < begun + 0.6:
            scene.scraper.hasten(one.replica)
            await asyncio.sleep(0.005)
        assert server.seen["/metrics"] - count <= (now() - begun) / 0.18 + 1
        assert server.seen["/metrics"] > count

    play(act, {"/metrics": answer(200, TRTLLM_JSON)}, ScrapeConfig(interval_s=0.2))


@pytest.mark.parametrize(
    "trouble",
    [hang, drip, answer(404), answer(500), answer(200, b"<html>hello</html>"), raw(b"garbage\r\n"), raw(b"")],
)
def test_trouble_leaves_the_last_load_and_says_so(trouble: Reply, caplog: pytest.LogCaptureFixture) -> None:
    """Metrics that hang, drip or are not metrics make the figures stale, with one warning, until they return."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.scraper.follow([one])
        await until(lambda: one.replica.load is not None)
        load = one.replica.load
        server.replies["/metrics"] = trouble

        def stale() -> bool:
            figures = scene.scraper.figures(one.replica)
            return figures is not None and figures.stale

        await until(stale)
        assert one.replica.load is load
        [warning] = scene.scraper.warnings(one.replica)
        assert "metrics cannot be read" in warning
        server.replies["/metrics"] = answer(200, VLLM)
        scene.scraper.hasten(one.replica)
        await until(lambda: not stale())
        assert scene.scraper.warnings(one.replica) == ()

    with caplog.at_level(logging.INFO, logger="turnout.fleet.scraper"):
        play(act)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_one_that_hangs_holds_up_nobody() -> None:
    """Beside hung metrics the others are read at their own pace."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        async with serving(metrics=hang) as hung:
            scene.scraper.follow([watched(hung.url), watched(server.url)])
            await until(lambda: server.seen["/metrics"] >= 10)
            assert hung.seen["/metrics"] <= 2

    play(act, config=ScrapeConfig(interval_s=0.01, timeout_s=60.0))


def test_failures_are_asked_ever_less_often() -> None:
    """The pause grows with each failure in a row."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        times: list[float] = []
        now = asyncio.get_running_loop().time

        async def failing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            times.append(now())
            await answer(500)(reader, writer)

        server.replies["/metrics"] = failing
        scene.scraper.follow([watched(server.url)])
        await until(lambda: len(times) >= 5)
        assert times[4] - times[3] > 4 * FAST.interval_s

    play(act)


def test_a_restart_is_noticed() -> None:
    """Counters that fall mean a new process: somebody is told, and it is asked who it is."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.scraper.follow([one])
        await until(lambda: server.seen["/metrics"] >= 2 and scene.scraper.seen(one.replica) is not None)
        assert scene.noticed == []
        assert server.seen["/version"] == 1
        server.replies["/metrics"] = answer(200, vllm(5))
        await until(lambda: scene.noticed == [one.replica])
        await until(lambda: server.seen["/version"] == 2)
        seen = server.seen["/metrics"]
        await until(lambda: server.seen["/metrics"] > seen + 2)
        assert scene.noticed == [one.replica]

    play(act, {"/metrics": answer(200, vllm(100)), "/v1/models": MODELS})


def test_falling_asleep_and_waking_are_noticed() -> None:
    """The prober is told at once, both times and only then."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.scraper.follow([one])
        await until(lambda: server.seen["/metrics"] >= 3)
        assert scene.noticed == []
        server.replies["/metrics"] = answer(200, vllm(awake=0))
        await until(lambda: len(scene.noticed) == 1)
        assert one.replica.load is not None
        assert one.replica.load.sleeping
        server.replies["/metrics"] = answer(200, vllm())
        await until(lambda: len(scene.noticed) == 2)

    play(act, {"/metrics": answer(200, vllm())})


def test_the_identity_is_found_and_differences_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """A wrong served name is a warning in the log and in what the admin listener shows."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        wrong, right = (
            watched(server.url, "v1", served_name="mistral"),
            watched(server.url, "v2", served_name="llama"),
        )
        scene.scraper.follow([wrong, right])
        await until(lambda: scene.scraper.seen(wrong.replica) is not None)
        seen = scene.scraper.seen(right.replica)
        assert seen is not None
        assert (seen.engine, seen.engine_version, seen.model_ids) == ("vllm", "0.27.0", ("llama",))
        assert scene.scraper.warnings(wrong.replica) == ("it serves 'llama', not 'mistral'",)
        assert scene.scraper.warnings(right.replica) == ()

    version = answer(200, b'{"version": "0.27.0"}')
    play(act, {"/metrics": answer(200, VLLM), "/v1/models": MODELS, "/version": version})
    assert [record.getMessage() for record in caplog.records if "mistral" in record.getMessage()]


def test_the_identity_does_not_need_metrics() -> None:
    """A process whose metrics are off is identified all the same, also one that starts later."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url, served_name="llama")
        await server.stop()
        scene.scraper.follow([one])
        await until(lambda: scene.scraper.warnings(one.replica) != ())
        await server.start()
        await until(lambda: scene.scraper.seen(one.replica) is not None)
        assert one.replica.load is None

    play(act, {"/v1/models": MODELS})


def test_what_is_not_followed_is_not_read() -> None:
    """After the fleet changed, the old process is left alone and nothing is known of its replica."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        async with serving(metrics=answer(200, VLLM)) as other:
            gone, stays = watched(other.url), watched(server.url)
            scene.scraper.follow([gone, stays])
            await until(lambda: other.seen["/metrics"] >= 1 and stays.replica.load is not None)
            scene.scraper.follow([stays])
            count = other.seen["/metrics"]
            seen = server.seen["/metrics"]
            await until(lambda: server.seen["/metrics"] >= seen + 5)
            assert other.seen["/metrics"] <= count + 1
            assert scene.scraper.figures(gone.replica) is None
            assert scene.scraper.seen(gone.replica) is None
            assert scene.scraper.warnings(gone.replica) == ()

    play(act)


def test_connections_are_kept() -> None:
    """Readings a second apart do not open a connection each."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        scene.scraper.follow([watched(server.url)])
        await until(lambda: server.seen["/metrics"] >= 10)
        assert server.connections <= 6

    play(act)


@pytest.mark.parametrize(
    ("station", "urls"),
    [
        (Station(engine="vllm", url="http://a:8000"), ["http://a:8000/metrics"]),
        (Station(engine="trtllm", url="http://a"), ["http://a/prometheus/metrics", "http://a/metrics"]),
        (Station(engine="triton", url="http://a:8000"), ["http://a:8002/metrics"]),
        (Station(engine="triton", url="http://[::1]:8000"), ["http://[::1]:8002/metrics"]),
        (Station(engine="triton", url="http://a", metrics_url="http://b:9/m?x=1"), ["http://b:9/m?x=1"]),
    ],
)
def test_where_metrics_are_asked_for(station: Station, urls: list[str]) -> None:
    """On the engine's own port unless the configuration says otherwise."""
    places = metrics_places(station, TELEMETRY[station.engine]())
    assert [place.url for place in places] == urls


def test_the_replicas_key_goes_to_its_own_host_only() -> None:
    """An exporter on another host does not get the engine's key, and no message shows a query."""
    own = Station(engine="vllm", url="http://a:8000", api_key="k", metrics_url="http://a:9000/m?token=t")
    other = Station(engine="vllm", url="http://a:8000", api_key="k", metrics_url="http://b:9000/m")
    telemetry = TELEMETRY["vllm"]()
    assert metrics_places(own, telemetry)[0].headers == {"authorization": "Bearer k"}
    assert str(metrics_places(own, telemetry)[0]) == "http://a:9000/m"
    assert metrics_places(other, telemetry)[0].headers == {}
    assert "k'" not in repr(own)
