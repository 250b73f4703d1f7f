"""How replicas are asked who they are: when, how often, and what holds until they have answered."""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

import pytest

from router.api.errors import UpstreamReset
from router.config.model import ExpectConfig, HealthConfig
from router.engines.fingerprint import Subject
from router.fleet.fingerprint import Verifier
from router.fleet.replicas import Replica
from router.fleet.stations import Watched
from tests.support.bare_replicas import watched
from tests.support.loops import run_strictly
from tests.support.scripted_server import ScriptedServer, answer, hang, serving, until

HEALTH = HealthConfig(interval_s=0.1, timeout_s=5.0)
M, OTHER = (answer(200, b'{"data": [{"id": "%b"}]}' % name) for name in (b"m", b"other"))


def asked(server: ScriptedServer, version: str = "v1", expect: ExpectConfig | None = None) -> Watched:
    return dataclasses.replace(watched(server.url, version), subject=Subject("m"), expect=expect)


class Scene:
    """A verifier and what it told of."""

    def __init__(self, server: ScriptedServer, health: HealthConfig) -> None:
        self.server = server
        self.one = asked(server)
        self.replica = self.one.replica
        self.changes: list[str] = []
        self.verifier = Verifier(health, changed=self._note)

    def _note(self, replica: Replica) -> None:
        self.changes.append(replica.verdict.state)

    async def until(self, state: str) -> None:
        await until(lambda: self.replica.verdict.state == state)


def play(act: Callable[[Scene], Awaitable[None]], models: object = M, health: HealthConfig = HEALTH) -> None:
    async def run() -> None:
        async with serving(**{"v1/models": models}) as server:
            scene = Scene(server, health)
            try:
                await act(scene)
            finally:
                await scene.verifier.close()

    run_strictly(run())


def test_nothing_serves_before_it_has_answered() -> None:
    """From the moment on that it is followed."""

    async def act(scene: Scene) -> None:
        assert scene.replica.up
        scene.verifier.follow([scene.one])
        assert not scene.replica.up
        assert scene.replica.verdict.state == "warming"
        await scene.verifier.first_round(10)
        assert scene.replica.up
        assert scene.changes == ["verified"]

    play(act)


def test_health_and_identity_are_both_needed() -> None:
    async def act(scene: Scene) -> None:
        scene.replica.judge_health(well=False)
        scene.verifier.follow([scene.one])
        await scene.until("verified")
        assert not scene.replica.up
        scene.replica.judge_health(well=True)
        assert scene.replica.up

    play(act)


def test_a_start_does_not_wait_for_one_that_hangs() -> None:
    """And others are asked all the while."""

    async def act(scene: Scene) -> None:
        async with serving(**{"v1/models": M}) as quick:
            other = asked(quick)
            scene.verifier.follow([scene.one, other])
            async with asyncio.timeout(5):
                await scene.verifier.first_round(0.05)
            await until(lambda: other.replica.up)
            assert scene.replica.verdict.state == "warming"

    play(act, hang, HealthConfig(interval_s=0.1, timeout_s=60))


def test_one_that_loads_is_waited_for_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Once in the log, however long it takes."""

    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await until(lambda: scene.server.seen["/v1/models"] > 3)
        assert scene.replica.verdict.complaints == (
            "waits to be verified: it is loading: /v1/models answered 503",
        )
        assert sum("it is loading" in record.message for record in caplog.records) == 1
        scene.server.replies["/v1/models"] = M
        await scene.until("verified")
        assert scene.changes == ["warming", "verified"]

    with caplog.at_level(logging.INFO, "turnout.fleet.verifier"):
        play(act, answer(503))


def test_one_that_does_not_listen_yet() -> None:
    async def act(scene: Scene) -> None:
        await scene.server.stop()
        scene.verifier.follow([scene.one])
        await until(lambda: "connection refused" in scene.replica.verdict.reason)
        assert scene.replica.verdict.state == "warming"
        await scene.server.start()
        await scene.until("verified")

    play(act)


def test_a_mismatch_is_logged_and_mended(caplog: pytest.LogCaptureFixture) -> None:
    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await scene.until("mismatch")
        assert "name: expected 'm', the replica says 'other'" in caplog.text
        scene.server.replies["/v1/models"] = M
        await scene.until("verified")
        assert scene.changes == ["mismatch", "verified"]

    play(act, OTHER)


def test_a_swap_behind_the_same_address_is_found_in_time() -> None:
    """As behind a balancer, where no connection breaks."""

    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await scene.until("verified")
        scene.server.replies["/v1/models"] = OTHER
        await scene.until("mismatch")

    play(act)


def test_a_slow_answer_takes_nothing_away_from_one_that_is_verified() -> None:
    """Unless there is reason to doubt it."""

    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await scene.until("verified")
        scene.server.replies["/v1/models"] = hang
        before = scene.server.seen["/v1/models"]
        scene.verifier.hasten(scene.replica)
        await until(lambda: scene.server.seen["/v1/models"] > before + 1)
        assert scene.replica.up
        scene.verifier.doubt(scene.replica)
        await scene.until("gone")
        assert not scene.replica.up
        assert "no answer" in scene.replica.verdict.reason

    play(act, health=HealthConfig(interval_s=0.05, timeout_s=0.3))


def test_while_a_replica_is_doubted_new_connections_wait() -> None:
    """The answer must be to a question that was put after the doubt."""

    async def act(scene: Scene) -> None:
        verifier, replica = scene.verifier, scene.replica
        verifier.follow([scene.one])
        await scene.until("verified")
        await verifier.settle(replica, 1.0)
        verifier.doubt(replica)
        assert replica.doubted
        assert replica.up
        before = scene.server.seen["/v1/models"]
        await verifier.settle(replica, 10.0)
        assert not replica.doubted
        assert scene.server.seen["/v1/models"] > before
        scene.server.replies["/v1/models"] = OTHER
        verifier.doubt(replica)
        with pytest.raises(UpstreamReset, match="not what its version says"):
            await verifier.settle(replica, 10.0)
        scene.server.replies["/v1/models"] = hang
        verifier.doubt(replica)
        with pytest.raises(UpstreamReset, match="does not say what it serves"):
            await verifier.settle(replica, 0.05)

    play(act, health=HealthConfig(interval_s=600, timeout_s=60))


def test_a_process_that_begins_anew_is_doubted_at_once() -> None:
    """With an hour between two probes."""

    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await scene.until("verified")
        scene.server.replies["/v1/models"] = OTHER
        await scene.server.stop()
        await scene.server.start()
        await scene.until("mismatch")
        assert "verified" not in scene.changes[1:]

    play(act, health=HealthConfig(interval_s=3600, timeout_s=5))


def test_one_that_is_gone_serves_nothing_until_it_is_asked_again() -> None:
    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await scene.until("verified")
        scene.verifier.doubt(scene.replica, gone=True)
        assert scene.replica.verdict.state == "gone"
        assert not scene.replica.up
        await scene.until("verified")

    play(act)


def test_two_versions_on_one_process_are_asked_once_and_judged_apart() -> None:
    async def act(scene: Scene) -> None:
        other = asked(scene.server, "v2", ExpectConfig(max_model_len=5))
        scene.verifier.follow([scene.one, other])
        await scene.verifier.first_round(10)
        assert scene.replica.up
        assert [str(each) for each in other.replica.verdict.mismatches] == [
            "max_model_len: expected 5, the replica does not say"
        ]

    play(act)


def test_a_version_that_expects_something_else_is_asked_again() -> None:
    """After a new configuration nothing serves before it is."""

    async def act(scene: Scene) -> None:
        scene.verifier.follow([scene.one])
        await scene.until("verified")
        stricter = dataclasses.replace(scene.one, expect=ExpectConfig(model="x"))
        scene.verifier.follow([stricter])
        assert not scene.replica.up
        await scene.until("mismatch")

    play(act)


def test_one_that_has_no_such_path_is_verified_unless_something_is_expected() -> None:
    async def act(scene: Scene) -> None:
        strict = asked(scene.server, "v2", ExpectConfig(engine_version="*"))
        scene.verifier.follow([scene.one, strict])
        await scene.verifier.first_round(10)
        assert (scene.replica.verdict.state, scene.replica.verdict.reason) == (
            "verified",
            "it cannot be asked",
        )
        assert strict.replica.verdict.state == "mismatch"

    play(act, answer(404))
