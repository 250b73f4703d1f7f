"""One server: logging in, TLS, what it says when it cannot count, and that an operator hears of it once."""

import asyncio
import contextlib
import logging
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import monotonic

import hiredis
import pytest

from router.control.limits import members
from router.control.limits.reservations import CountedReservation, SharedReservation
from router.control.limits.scripts import Scripts
from tests.support.limit_stores import SECOND, ask, looking_into, slot_ask, store
from tests.support.loops import StrictLoop, run_strictly
from tests.support.redis_server import RedisServer, redis_server
from tests.support.scripted_server import until
from tests.support.toxic_proxy import toxic_proxy

OPENSSL = shutil.which("openssl")


@pytest.fixture(scope="module")
def running() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def server(running: RedisServer) -> Iterator[RedisServer]:
    with looking_into(running.url) as client:
        client.flushall()
        yield running
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")
        client.acl_deluser("limits")


def test_a_user_with_a_password_and_few_rights(server: RedisServer) -> None:
    """What it may not ask of the server itself it does without."""
    with looking_into(server.url) as client:
        rights = ["on", ">secret:/@", "~turnout:*", "+eval", "+evalsha", "+script|load", "+time", "+select"]
        allowed = "+mget +get +set +del +incr +zadd +zrem +zcard +zcount +zrange +zrangebyscore +zremrangebyscore +pexpire"
        client.execute_command("ACL", "SETUSER", "limits", *rights, *allowed.split())
    url = f"redis://limits:secret%3A%2F%40@127.0.0.1:{server.port}/3"

    async def run() -> None:
        async with store(url) as limits:
            first = await limits.admit(ask())
            assert isinstance(first, CountedReservation)
            first.settle([-SECOND])
            assert (await limits.admit(slot_ask(1))).verdict.admitted
            await until(lambda: limits.state.unsettled == 0)
            assert "secret" not in limits.state.place
            with looking_into(server.url.removesuffix("0") + "3") as client:
                assert client.dbsize() >= 4
            with looking_into(server.url) as client:
                assert client.dbsize() == 0

    run_strictly(run(), uv=True)


def test_a_wrong_password(server: RedisServer) -> None:
    url = f"redis://limits:wrong@127.0.0.1:{server.port}/0"

    async def run() -> None:
        async with store(url, here=False) as limits:
            assert isinstance(await limits.admit(ask()), SharedReservation)
            assert not limits.state.healthy

    with StrictLoop(uv=True) as loop:
        loop.run(run(), may_say="WRONGPASS")


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed: no certificate can be made")
def test_tls(server: RedisServer, tmp_path: Path) -> None:
    """With the server's certificate checked, or not used at all."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = (
        "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [str(OPENSSL), *words.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def run() -> None:
        async with toxic_proxy(server.port, context) as proxy:
            url = f"rediss://127.0.0.1:{proxy.port}/0"
            async with store(f"{url}?ssl_ca_certs={certificate}") as limits:
                assert isinstance(await limits.admit(ask()), CountedReservation)
            async with store(url, here=False) as limits:
                assert isinstance(await limits.admit(ask()), SharedReservation)

    with StrictLoop() as loop:
        loop.run(run(), may_say="SSL")


class Excuses:
    """A server that answers everything with one error, or lets everything through to a real one."""

    def __init__(self) -> None:
        self.error = b""


@contextlib.asynccontextmanager
async def excusing(port: int) -> AsyncIterator[tuple[str, Excuses]]:
    """Stands before a real server; scripts get the error, where there is one."""
    excuses = Excuses()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection("127.0.0.1", port)
        commands, answers = hiredis.Reader(), hiredis.Reader()
        try:
            while data := await reader.read(65536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    if excuses.error and command[0] in (b"EVALSHA", b"EVAL"):
                        writer.write(b"-" + excuses.error + b"\r\n")
                        continue
                    ahead.write(hiredis.pack_command(tuple(command)))
                    raw = b""
                    while answers.gets() is False:
                        part = await behind.read(65536)
                        answers.feed(part)
                        raw += part
                    writer.write(raw)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            ahead.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0", excuses
    finally:
        listener.close()


@pytest.mark.parametrize(
    "error",
    [
        "LOADING Redis is loading the dataset in memory",
        "CLUSTERDOWN The cluster is down",
        "CROSSSLOT Keys in request don't hash to the same slot",
        "NOPERM no permissions",
        "MOVED 1 127.0.0.1:1",
    ],
)
def test_a_server_with_an_excuse(server: RedisServer, error: str, caplog: pytest.LogCaptureFixture) -> None:
    """L8: the first request hears of it at once and is decided here; one line; counted again afterwards."""

    async def run() -> None:
        async with excusing(server.port) as (url, excuses), store(url) as limits:
            excuses.error = error.encode()
            began = monotonic()
            for _ in range(5):
                got = await limits.admit(ask(SECOND, 1000 * SECOND))
                assert isinstance(got, SharedReservation)
            assert monotonic() - began < 1.0
            assert not limits.state.healthy
            await asyncio.sleep(0.6)
            excuses.error = b""
            await until(lambda: limits.state.healthy and limits.state.unsettled == 0)
            assert (await limits.look(ask(0, 1000 * SECOND))).backlogs_us[0] > SECOND

    with StrictLoop(uv=True) as loop:
        loop.run(run(), may_say=error)
    lines = [record for record in caplog.records if error in record.getMessage()]
    assert len(lines) == 1
    alarm = error.startswith(("CROSSSLOT", "NOPERM"))
    assert lines[0].levelno == (logging.ERROR if alarm else logging.WARNING)


def test_a_defect_is_not_waited_out(server: RedisServer) -> None:
    """An error of one command alone is one request's; three in a row are the server's."""

    async def run() -> None:
        async with store(server.url) as limits:
            with looking_into(server.url) as client:
                client.set("turnout:{t:search}:bad::c", "no set")
            for expected in (True, True, False):
                got = await limits.admit(slot_ask(1, name="bad::c"))
                assert isinstance(got, SharedReservation)
                assert limits.state.healthy is expected

    run_strictly(run(), uv=True)


def test_memory_that_may_drop_limits(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """L9: said once, where it can happen."""

    def lines(memory: int, policy: str) -> int:
        async def run() -> None:
            async with toxic_proxy(server.port) as proxy, store(proxy.url) as limits:
                proxy.cut()
                await until(lambda: limits.state.lost == 1)
                await until(lambda: limits.state.healthy)

        caplog.clear()
        with looking_into(server.url) as client:
            client.config_set("maxmemory-policy", policy)
            client.config_set("maxmemory", memory)
        run_strictly(run(), uv=True)
        return sum("maxmemory-policy" in record.message for record in caplog.records)

    assert lines(10**9, "allkeys-lru") == 1
    assert lines(10**9, "volatile-ttl") == 1, "all keys of limits end"
    assert lines(10**9, "noeviction") == 0
    assert lines(0, "allkeys-lru") == 0


def test_a_clock_that_was_set(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """L7: said when it moves, not when it merely is another."""
    who = members.Members(Scripts(900), "redis://there", 1)
    own_us = [10**9]
    monkeypatch.setattr(members, "monotonic_ns", lambda: own_us[0] * 1000)
    for step_us, server_us in (
        (0, 5),
        (2 * 10**6, 2 * 10**6 + 5),
        (2 * 10**6, 64 * 10**6),
        (10**6, 65 * 10**6),
    ):
        own_us[0] += step_us
        who.read(3, b"mark", server_us)
    moved = [record.message for record in caplog.records if "clock" in record.message]
    assert len(moved) == 1
    assert "+60 s" in moved[0]


def test_who_left_and_who_died_no_longer_counts(server: RedisServer) -> None:
    async def run() -> None:
        async with store(server.url) as one:
            async with store(server.url):
                await until(lambda: one.state.shares == 2)
            with looking_into(server.url) as client:
                client.zadd("turnout:{turnout}:members", {"dead": 1.0})
            await until(lambda: one.state.shares == 1)

    run_strictly(run(), uv=True)


@pytest.mark.parametrize("patient", [True, False])
def test_who_may_not_pass_uncounted_waits(server: RedisServer, patient: bool) -> None:
    """With `deny`, a short pause of Redis refuses nobody."""

    async def run() -> None:
        async with (
            toxic_proxy(server.port) as proxy,
            store(proxy.url, timeout_ms=1000.0, on_failure="deny" if patient else "local_share") as limits,
        ):
            await limits.admit(ask(0))
            proxy.delay_s = 0.4
            got = await asyncio.gather(*(limits.admit(ask(1)) for _ in range(20)))
            counted = sum(isinstance(each, CountedReservation) for each in got)
            assert counted == (20 if patient else 3)

    run_strictly(run(), uv=True)
