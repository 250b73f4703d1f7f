"""The one who looks after all client connections."""

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from router.serving import front
from tests.support.direct import Direct, direct
from tests.support.flow import WHOLE, hang
from tests.support.loops import StrictLoop
from tests.support.peers import PeerConnection, answer, scripted_peer
from tests.support.raw_client import get, post, raw_client
from tests.support.routers import config_text, running_router
from tests.support.scripted_server import until


async def whole(connection: PeerConnection) -> None:
    await connection.send(answer(WHOLE))


def test_connections_and_requests_are_counted() -> None:
    """Of both kinds, while they are there."""

    async def test(stage: Direct) -> None:
        front_end = stage.running.router.front_end
        async with stage.connect() as one, stage.connect() as two:
            await one.send(get(b"/livez"))
            assert (await one.answer()).status == 200
            await two.send(post())
            await until(lambda: front_end.open_requests == 1)
            assert stage.connections == 2
        await until(lambda: stage.connections == front_end.open_requests == 0)

    direct(test, play=hang)


def test_every_answer_has_its_date() -> None:
    """In HTTP's form, made once a second."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as client:
            await client.send(post())
            given = await client.answer()
            assert parsedate_to_datetime(given.headers["date"]).tzinfo is not None
        front_end = stage.running.router.front_end
        assert front_end.date_line() is front_end.date_line()

    direct(test, play=whole)


def test_a_defect_in_one_connection_does_not_end_the_watch_over_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Slow clients are still found out."""
    monkeypatch.setattr(front, "_SWEEP_S", 0.05)

    async def run() -> None:
        async with (
            scripted_peer(hang) as peer,
            running_router(
                config_text(f'url = "{peer.url}", engine = "vllm"', server="head_timeout_s = 0.3")
            ) as running,
            raw_client(running.port) as broken,
            raw_client(running.port) as slow,
        ):
            own = running.router.front_end._own
            await until(lambda: len(own) == 2)
            next(iter(own)).look = _defect  # type: ignore[method-assign]
            assert await asyncio.gather(slow.closed(), broken.closed()) == [b"", b""]

    with StrictLoop() as loop:
        loop.run(run(), may_say="of a test")


def _defect(_now: float) -> None:
    raise RuntimeError("a defect of a test")


def test_the_end_closes_every_connection() -> None:
    """Idle ones, busy ones, and those of the ASGI app."""

    async def test(stage: Direct) -> None:
        async with stage.connect() as idle, stage.connect() as busy, stage.connect() as ordinary:
            await ordinary.send(get(b"/livez"))
            assert (await ordinary.answer()).status == 200
            await busy.send(post())
            await until(lambda: len(stage.posts) == 1)
            await until(lambda: stage.connections == 3)
            stage.running.router.front_end.close()
            for client in (idle, busy, ordinary):
                assert await client.closed() == b""
            assert stage.connections == 0

    direct(test, play=hang)
