"""One post per engine process, that follows the fleet and survives its own defects."""

import asyncio
import logging
from collections.abc import Sequence
from random import Random

import pytest

from router.config.model import Config, KvEventsConfig, ModelConfig, ReplicaConfig, Secret, VersionConfig
from router.fleet.build import build_fleet
from router.fleet.stations import Alarm, Rounds, Station, Watched, watched_in
from tests.support.bare_replicas import watched
from tests.support.scripted_server import until


class CountingPost:
    def __init__(self, station: Station, watched: Sequence[Watched]) -> None:
        self.station = station
        self.groups = [tuple(each.replica.identity.version for each in watched)]
        self.runs = 0
        self.hastened = 0
        self.fail = False
        self.ended = False

    def assign(self, watched: Sequence[Watched]) -> None:
        self.groups.append(tuple(each.replica.identity.version for each in watched))

    def hasten(self) -> None:
        self.hastened += 1

    async def run(self) -> None:
        self.runs += 1
        if self.fail:
            raise ValueError("a defect")
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True


def test_a_process_has_one_post() -> None:
    """Versions on one URL share it; two engines' dialects on one URL do not."""

    async def run() -> None:
        rounds = Rounds(CountingPost)
        one, two = watched("http://a", "v1"), watched("http://a", "v2")
        other = watched("http://a", "v3", engine="tgi")
        rounds.follow([one, two, other])
        assert rounds.of(one.replica) is rounds.of(two.replica) is not None
        assert rounds.of(one.replica) is not rounds.of(other.replica)
        post = rounds.of(one.replica)
        assert post is not None
        assert post.groups == [("v1", "v2")]
        await until(lambda: post.runs == 1)
        await rounds.close()
        assert post.ended
        assert rounds.of(one.replica) is None

    asyncio.run(run())


def test_rounds_follow_the_fleet() -> None:
    """Posts that stay keep running, those that are gone end, and one whose settings changed begins anew."""

    async def run() -> None:
        rounds = Rounds(CountingPost)
        stays, goes, changes = watched("http://a"), watched("http://b"), watched("http://c")
        rounds.follow([stays, goes, changes])
        staying, going, changing = (rounds.of(each.replica) for each in (stays, goes, changes))
        assert staying is not None
        assert going is not None
        assert changing is not None
        await until(lambda: staying.runs == going.runs == changing.runs == 1)
        changed = watched("http://c", api_key="new")
        rounds.follow([stays, changed])
        assert rounds.of(stays.replica) is staying
        assert rounds.of(goes.replica) is None
        assert rounds.of(changed.replica) is not changing
        await until(lambda: going.ended and changing.ended)
        assert not staying.ended
        assert staying.groups == [("v1",), ("v1",)]
        await rounds.close()

    asyncio.run(run())


def test_a_defect_does_not_end_the_watch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A post that raises is logged and begun again."""
    monkeypatch.setattr("router.fleet.stations.RESTART_S", 0.001)

    async def run() -> None:
        rounds = Rounds(CountingPost)
        one = watched("http://a")
        rounds.follow([one])
        post = rounds.of(one.replica)
        assert post is not None
        post.fail = True
        await until(lambda: post.runs >= 3)
        await rounds.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert "a defect" in caplog.text


def test_what_is_watched_comes_from_the_configuration() -> None:
    """Every replica of the fleet is watched as its own entry says, under the name its engine should have."""
    replica = ReplicaConfig(
        url="http://a:8000/",
        engine="vllm",
        api_key=Secret("k"),
        max_running=64,
        kv_capacity_tokens=1000,
        metrics_url="http://a:9/metrics",
        kv_events=KvEventsConfig(endpoint="tcp://a:5557"),
    )
    versions = {
        "v1": VersionConfig(served_name="llama", tokenizer="/t", kv_block_tokens=32, replicas=(replica,)),
        "v2": VersionConfig(served_name="llama", adapter="lora", replicas=(replica,)),
    }
    config = Config(models={"m": ModelConfig(stable="v1", versions=versions)})
    fleet = build_fleet(config, Random(1), b"key")
    found = watched_in(config, fleet)
    assert [each.replica for each in found] == list(fleet.replicas)
    assert [each.served_name for each in found] == ["llama", "lora"]
    assert [each.adapter for each in found] == ["", "lora"]
    assert [each.block_tokens for each in found] == [32, None]
    expected = Station(
        engine="vllm",
        url="http://a:8000",
        metrics_url="http://a:9/metrics",
        api_key="k",
        max_running=64,
        kv_capacity_tokens=1000,
        kv_events=KvEventsConfig(endpoint="tcp://a:5557"),
    )
    assert [each.station for each in found] == [expected] * 2


def test_an_alarm_ends_a_pause() -> None:
    """One that rings before or during the pause cuts it short, once."""

    async def run() -> None:
        alarm = Alarm()
        async with asyncio.timeout(5):
            alarm.ring()
            await alarm.pause(60)
            asyncio.get_running_loop().call_soon(alarm.ring)
            await alarm.pause(60)
            asyncio.get_running_loop().call_soon(alarm.ring)
            await alarm.wait()
        begun = asyncio.get_running_loop().time()
        await alarm.pause(0.05)
        assert asyncio.get_running_loop().time() - begun > 0.04

    asyncio.run(run())
