"""Probes against real sockets that refuse, hang, drip and talk nonsense."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest

from router.config.model import HealthConfig
from router.engines.engine import ReplicaLoad
from router.fleet.prober import HASTE_S, JITTER, HealthChange, Prober
from tests.support.bare_replicas import watched
from tests.support.scripted_server import Reply, ScriptedServer, answer, drip, hang, raw, serving, until

FAST = HealthConfig(interval_s=0.02, timeout_s=1.0, up_after=2, down_after=3)
SLOW = HealthConfig(interval_s=60.0, timeout_s=1.0)
WELL = answer()


class Scene:
    """A prober, what it watches, and what it said."""

    def __init__(self, config: HealthConfig) -> None:
        self.changes: list[tuple[str, bool, str]] = []
        self.gone: list[bool] = []
        self.prober = Prober(config, changed=self._note, random=Random(1))

    def _note(self, change: HealthChange) -> None:
        assert change.replica.up is change.up
        self.changes.append((change.replica.identity.version, change.up, change.reason))
        self.gone.append(change.gone)


def play(
    act: Callable[[Scene, ScriptedServer], Coroutine[Any, Any, None]],
    health: Reply = WELL,
    config: HealthConfig = FAST,
) -> None:
    async def run() -> None:
        async with serving(health=health) as server:
            scene = Scene(config)
            try:
                await act(scene, server)
            finally:
                await scene.prober.close()

    asyncio.run(run())


def test_a_replica_is_presumed_up_and_asked_at_once() -> None:
    """The first probe does not wait for the interval; a good answer changes nothing."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        assert one.replica.up
        await until(lambda: server.seen["/health"] == 1)
        assert one.replica.up
        assert scene.changes == []

    play(act, config=SLOW)


@pytest.mark.parametrize(
    ("health", "reason"),
    [
        (answer(503), "503"),
        (answer(400), "400"),
        (hang, "no answer within"),
        (raw(b"nonsense\r\n\r\n"), "status line"),
    ],
)
def test_one_bad_first_answer_is_enough(health: Reply, reason: str) -> None:
    """A replica that was never seen well is not given the benefit of a streak."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one, asked = watched(server.url), []
        note = scene.prober.changed
        assert note is not None

        def count(change: HealthChange) -> None:
            # What is down is soon asked again.
            asked.append(server.seen["/health"])
            note(change)

        scene.prober.changed = count
        scene.prober.follow([one])
        await until(lambda: not one.replica.up)
        assert [(up, reason in why) for _, up, why in scene.changes] == [(False, True)]
        assert asked == [1]

    play(act, health, config=SLOW)


@pytest.mark.parametrize("bad", [answer(503), answer(400), hang, raw(b""), answer(301)])
def test_a_well_replica_goes_down_after_a_streak(bad: Reply) -> None:
    """Once it has been seen well, it takes `down_after` bad probes, and `up_after` good ones to return."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        await until(lambda: server.seen["/health"] >= 1)
        server.replies["/health"] = bad
        good = server.seen["/health"]
        await until(lambda: not one.replica.up)
        assert server.seen["/health"] - good >= FAST.down_after
        bad_count = server.seen["/health"]
        server.replies["/health"] = answer()
        await until(lambda: one.replica.up)
        assert server.seen["/health"] - bad_count >= FAST.up_after
        assert [up for _, up, _ in scene.changes] == [False, True]
        assert scene.gone == [False, False]

    play(act)


def test_a_refused_connection_needs_no_streak() -> None:
    """Nobody listens: down with the first such probe, although it was well before."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        await until(lambda: server.seen["/health"] == 1)
        await server.stop()
        scene.prober.hasten(one.replica)
        await until(lambda: not one.replica.up)
        assert scene.changes == [("v1", False, "connection refused")]
        assert scene.gone == [True]

    play(act, config=SLOW)


def test_many_alarms_do_not_make_many_probes() -> None:
    """When a thousand requests fail at once, the replica is looked at again soon, not a thousand times."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        now = asyncio.get_running_loop().time
        scene.prober.follow([one])
        await until(lambda: server.seen["/health"] == 1)
        begun = now()
        while server.seen["/health"] < 4:
            scene.prober.hasten(one.replica)
            await asyncio.sleep(0.001)
        assert now() - begun > 1.9 * HASTE_S

    play(act, config=SLOW)


def test_a_return_is_seen_within_a_second_even_with_a_long_interval() -> None:
    """While a replica is down it is asked more often than the interval says."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        await server.stop()
        scene.prober.follow([one])
        await until(lambda: not one.replica.up)
        await server.start()
        await until(lambda: one.replica.up, timeout_s=5)

    play(act, config=SLOW)


def test_a_slow_body_is_not_waited_for() -> None:
    """The status is the answer; a body that never ends makes nobody unwell."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        await until(lambda: server.seen["/health"] >= 3)
        assert one.replica.up

    play(act, drip)


def test_one_that_hangs_holds_up_nobody() -> None:
    """Beside a hung replica the others are probed at their own pace."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        async with serving(health=hang) as hung:
            scene.prober.follow([watched(hung.url), watched(server.url)])
            await until(lambda: server.seen["/health"] >= 20)
            assert hung.seen["/health"] <= 3

    play(act, config=HealthConfig(interval_s=0.01, timeout_s=60.0))


def test_a_sleeping_engine_is_not_ready() -> None:
    """vLLM answers its health probe while it sleeps; the last scrape knows better, as long as it is fresh."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        replica = one.replica
        now = asyncio.get_running_loop().time
        scene.prober.follow([one])
        await until(lambda: server.seen["/health"] >= 1)
        replica.load, replica.load_at = ReplicaLoad(sleeping=True), now()
        await until(lambda: not replica.up)
        assert scene.changes == [("v1", False, "the engine sleeps")]
        assert scene.gone == [True]
        replica.load, replica.load_at = ReplicaLoad(sleeping=False), now()
        await until(lambda: replica.up)
        replica.load, replica.load_at = ReplicaLoad(sleeping=True), now() - 3600
        seen = server.seen["/health"]
        await until(lambda: server.seen["/health"] >= seen + 3)
        assert replica.up

    play(act)


def test_a_replica_that_flaps_is_held_down() -> None:
    """One that changes its mind with every streak ends up held down although its probes are good."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        await until(lambda: server.seen["/health"] >= 1)
        for up in (False, True, False, True, False):
            server.replies["/health"] = answer(200 if up else 503)
            await until(lambda up=up: one.replica.up == up)
        server.replies["/health"] = answer()
        seen = server.seen["/health"]
        await until(lambda: server.seen["/health"] >= seen + 10)
        assert not one.replica.up

    play(act)


def test_versions_on_one_process_share_its_probes() -> None:
    """Two replicas with the same URL are one process: one probe, both verdicts."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        both = [watched(server.url, "v1"), watched(server.url, "v2")]
        scene.prober.follow(both)
        await until(lambda: server.seen["/health"] == 1)
        await server.stop()
        scene.prober.hasten(both[1].replica)
        await until(lambda: not any(each.replica.up for each in both))
        assert [(version, up) for version, up, _ in scene.changes] == [("v1", False), ("v2", False)]

    play(act, config=SLOW)


def test_the_fleet_may_change() -> None:
    """What is no longer followed is no longer asked; a newcomer at a known process gets its verdict."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        async with serving(health=answer()) as other:
            gone, stays = watched(other.url), watched(server.url)
            server.replies["/health"] = answer(503)
            scene.prober.follow([gone, stays])
            await until(lambda: not stays.replica.up and other.seen["/health"] > 0)
            newcomer = watched(server.url, "v2")
            scene.prober.follow([stays, newcomer])
            assert not newcomer.replica.up
            count = other.seen["/health"]
            seen = server.seen["/health"]
            await until(lambda: server.seen["/health"] >= seen + 5)
            assert other.seen["/health"] <= count + 1

    play(act)


def test_a_new_configuration_keeps_the_verdict() -> None:
    """After a reload the streaks are counted anew, and what was down stays down until it is well."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        await until(lambda: not one.replica.up)
        scene.prober.follow([one], HealthConfig(interval_s=0.01, timeout_s=1.0, up_after=1))
        assert not one.replica.up
        server.replies["/health"] = answer()
        await until(lambda: one.replica.up)
        assert [up for _, up, _ in scene.changes] == [False, True]

    play(act, answer(503))


def test_the_replicas_key_is_sent() -> None:
    """An engine behind a key gets it; the health path is the engine's own."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        scene.prober.follow([watched(server.url, engine="triton", api_key="sesame")])
        await until(lambda: server.seen["/v2/health/ready"] == 1)
        assert server.headers[0]["authorization"] == "bearer sesame"

    play(act, config=SLOW)


def test_each_probe_is_a_connection_of_its_own() -> None:
    """Accepting connections is part of being well."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        scene.prober.follow([watched(server.url)])
        await until(lambda: server.seen["/health"] >= 5)
        assert server.connections >= 5

    play(act)


def test_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An operator reads which replica went down, and why."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        one = watched(server.url)
        scene.prober.follow([one])
        await until(lambda: not one.replica.up)

    with caplog.at_level(logging.INFO):
        play(act, answer(503))
    [message] = [record.getMessage() for record in caplog.records if record.name == "turnout.fleet.prober"]
    assert "(vllm, m v1) is down" in message
    assert "answered 503" in message


class ShortDraw(Random):
    """Draws far outside of the range, so that its effect is plain to see."""

    def uniform(self, a: float, b: float) -> float:
        return -1 / JITTER


def test_turns_are_spread() -> None:
    """Probes of many replicas do not march in step: the pause depends on what was drawn for it."""

    async def act(scene: Scene, server: ScriptedServer) -> None:
        scene.prober.random = ShortDraw()
        scene.prober.follow([watched(server.url)])
        await until(lambda: server.seen["/health"] >= 2)

    play(act, config=SLOW)
