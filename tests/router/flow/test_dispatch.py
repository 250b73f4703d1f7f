"""The attempt loop: who is asked after a failure, for how long, and what becomes of it when the client goes."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest

from policies.routing.events import Done
from router.api.errors import EndpointNotSupported
from router.api.request import InferenceRequest
from router.engines.engine import UpstreamRequest
from router.flow.connection import Connection
from router.flow.upstream import Upstream
from tests.support.exchanges import RecordedExchange
from tests.support.flow import (
    LAST_PIECES,
    WHOLE,
    Flow,
    answers,
    hang,
    piece,
    plays,
    reset,
    streamed,
    streams,
    through,
    whole,
)
from tests.support.peers import PeerConnection, answer
from tests.support.scripted_server import until


def endings(flow: Flow) -> list[tuple[str, str]]:
    """Why each attempt of the last request was made, and how it ended."""
    return [(attempt.reason, attempt.ending) for attempt in flow.events[-1].attempts]


async def close(connection: PeerConnection) -> None:
    """Close in good order without a byte of an answer."""


def test_another_replica_is_asked_after_a_failure() -> None:
    """Each only once, and the event tells what happened at each."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        event = await flow.serve(exchange)
        assert (exchange.status, exchange.finished) == (200, 1)
        assert exchange.answer_headers["x-turnout-attempts"] == "3"
        assert exchange.answer_headers["x-turnout-replica"] == flow.router.fleet.replicas[2].id
        assert endings(flow) == [
            ("first", "failed"),
            ("upstream_reset", "failed"),
            ("upstream_error", "completed"),
        ]
        assert (event.outcome, event.replica) == ("ok", flow.router.fleet.replicas[2].id)

    through(test, plays(then=reset), plays(answer(b"", status=b"500 No")), answers())


def test_when_all_have_failed_the_last_failure_is_told() -> None:
    """Not that nobody is left."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome, event.status) == (502, "upstream_error", 502)
        assert '"code":"upstream_error"' in exchange.text

    through(test, plays(then=reset), plays(answer(b"", status=b"500 No")))


@pytest.mark.parametrize("status", [b"204 No Content", b"302 Found", b"206 Partial Content"])
def test_an_odd_status_is_the_replicas_failure(status: bytes) -> None:
    """Neither followed nor taken for the client's mistake."""

    async def test(flow: Flow) -> None:
        exchange = whole()
        await flow.serve(exchange)
        assert exchange.status == 200
        assert endings(flow) == [("first", "failed"), ("upstream_protocol", "completed")]
        assert flow.connections == [1, 1]

    location = b"content-type: application/json\r\nlocation: http://127.0.0.1:9/\r\n"
    through(test, plays(answer(b"", status=status, headers=location)), answers())


def test_an_error_without_end_is_judged_by_its_beginning() -> None:
    """A 500 whose body never ends is no reason to wait for the timeout."""

    async def endless(connection: PeerConnection) -> None:
        while True:
            await connection.send(b"x" * 10_000)

    async def test(flow: Flow) -> None:
        exchange = whole()
        await flow.serve(exchange)
        assert exchange.status == 200
        assert endings(flow) == [("first", "failed"), ("upstream_error", "completed")]

    head = b"HTTP/1.1 500 No\r\ncontent-length: 1000000000\r\n\r\n"
    through(test, plays(head, then=endless), answers())


def test_a_stale_connection_is_replaced_once() -> None:
    """The same replica over a fresh connection, as one attempt; if that fails too, it is a failure."""
    answers_left = [answer(WHOLE)]

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        while answers_left:
            await connection.send(answers_left.pop())
            await connection.request()

    async def test(flow: Flow) -> None:
        await flow.serve(whole())
        assert flow.connections == [1]
        exchange = whole()
        event = await flow.serve(exchange)
        assert flow.connections == [2]
        assert (event.outcome, endings(flow)) == ("upstream_reset", [("first", "failed")])
        assert exchange.answer_headers["x-turnout-attempts"] == "1"

    through(test, script)


@pytest.mark.parametrize("uv", [False, True])
def test_a_stale_connection_that_a_fresh_one_replaces_is_not_seen(uv: bool) -> None:
    """The peer's idle limit struck as the request was written."""

    async def once_each(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(answer(WHOLE))
        await connection.request()

    async def test(flow: Flow) -> None:
        for number in range(1, 4):
            exchange = whole()
            await flow.serve(exchange)
            assert exchange.status == 200
            assert endings(flow) == [("first", "completed")]
            assert flow.connections == [number]

    through(test, once_each, uv=uv)


def test_no_fresh_connection_for_a_client_that_has_gone() -> None:
    """It left in the moment in which the kept connection turned out to be stale."""
    leaving: list[RecordedExchange] = []

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.send(answer(WHOLE))
        await connection.request()
        leaving[0].disconnected = True  # as a connection says it that nobody has a callback on

    async def test(flow: Flow) -> None:
        await flow.serve(whole())
        exchange = whole()
        leaving.append(exchange)
        event = await flow.serve(exchange)
        assert flow.connections == [1]
        assert (event.outcome, exchange.status, exchange.finished) == ("client_left", None, 0)

    through(test, script)


def test_no_further_attempt_for_a_client_that_has_gone() -> None:
    """It left between two attempts: the second replica hears of nothing."""
    leaving: list[RecordedExchange] = []

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        leaving[0].disconnected = True
        connection.reset()

    async def test(flow: Flow) -> None:
        exchange = whole()
        leaving.append(exchange)
        event = await flow.serve(exchange)
        assert flow.connections == [1, 0]
        assert (event.outcome, event.status, exchange.status) == ("client_left", 499, None)

    through(test, script, answers())


def test_a_client_that_goes_while_a_connection_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection comes too late and is closed; the replica never sees a request, and is not blamed."""
    connecting, go_on = asyncio.Event(), asyncio.Event()
    requests = []
    connect = Upstream.connect

    async def slow_connect(self: Upstream) -> Connection:
        connecting.set()
        await go_on.wait()
        return await connect(self)

    async def script(connection: PeerConnection) -> None:
        requests.append(await connection.request())

    async def test(flow: Flow) -> None:
        exchange = streamed()
        serving = flow.begin(exchange)
        await connecting.wait()
        exchange.leave()
        go_on.set()
        await serving
        assert flow.events[0].outcome == "client_left"
        assert endings(flow) == [("first", "client_left")]
        assert flow.events[0].overhead_s <= flow.events[0].duration_s
        assert requests == []
        assert flow.router.upstreams.open_connections == 0

    monkeypatch.setattr(Upstream, "connect", slow_connect)
    through(test, script)


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port on which connections are neither accepted nor refused: its backlog is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        yield listener.getsockname()[1]
        for client in waiting:
            client.close()


def test_the_time_that_a_connection_takes_is_not_the_routers(deaf_port: int) -> None:
    """A replica that does not accept costs `connect_s`, which is a wait, and the next one answers."""

    async def test(flow: Flow) -> None:
        deaf = flow.router.upstreams.of(flow.router.fleet.replicas[0])
        deaf.address = replace(deaf.address, port=deaf_port)
        exchange = whole()
        event = await flow.serve(exchange)
        assert exchange.status == 200
        assert endings(flow) == [("first", "failed"), ("upstream_reset", "completed")]
        assert event.duration_s > 0.3
        assert event.overhead_s < event.duration_s - 0.29
        assert float(exchange.answer_headers["x-turnout-overhead-ms"]) / 1000 < event.duration_s - 0.29

    through(test, answers(), answers(), more="[timeouts]\nconnect_s = 0.3")


def done_in(flow: Flow) -> list[Done]:
    """What others are told of the ends of requests, from now on."""
    told: list[Done] = []
    for pool in flow.router.fleet.pools.values():
        pool.share(lambda event: told.append(event) if isinstance(event, Done) else None, count(1))
    return told


@pytest.mark.parametrize(
    ("policy", "engine", "blocks"),
    [("expected_latency", "vllm", 3), ("expected_latency", "tgi", None), ("round_robin", "vllm", None)],
)
def test_who_learns_is_told_prompt_and_answer(policy: str, engine: str, blocks: int | None) -> None:
    """Where the engine caches both; of a failed attempt before it, nothing."""

    async def test(flow: Flow) -> None:
        told = done_in(flow)
        while not (event := await flow.serve(whole())).attempts[1:]:
            told.clear()
        assert event.outcome == "ok"
        assert [done.answer and len(done.answer.blocks) for done in told] == [None, blocks]

    long = WHOLE.replace(b"hello", b"hello" * 320)
    through(test, plays(answer(b"", status=b"500 No")), answers(long), policy=policy, engine=engine)


def test_of_a_stream_nothing_is_kept() -> None:
    async def test(flow: Flow) -> None:
        told = done_in(flow)
        await flow.serve(streamed())
        assert [done.answer for done in told] == [None]

    frames = [piece("hello" * 320), LAST_PIECES]
    through(test, streams(*frames), policy="expected_latency")


class Unable:
    """An engine that only finds out late what it cannot do."""

    kind = "vllm"
    offers = frozenset({"chat"})

    def to_upstream(self, request: InferenceRequest) -> UpstreamRequest:
        raise EndpointNotSupported("not by this engine")


def test_an_engine_that_cannot_is_passed_over() -> None:
    """Only its adapter saw that: another replica is asked, and the first never hears of it."""

    async def test(flow: Flow) -> None:
        first, second = flow.router.fleet.replicas
        first.engine = Unable()  # type: ignore[assignment]
        exchange = whole()
        await flow.serve(exchange)
        assert exchange.status == 200
        assert flow.connections == [0, 1]
        assert endings(flow) == [("endpoint_not_supported", "completed")]
        second.engine = first.engine
        exchange = whole()
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome, event.attempts) == (501, "endpoint_not_supported", [])

    through(test, answers(), answers())


def test_all_attempts_share_one_deadline() -> None:
    """Two replicas that hang do not make it last twice as long; no third is asked after it."""

    async def test(flow: Flow) -> None:
        exchange = streamed()
        event = await flow.serve(exchange)
        assert (exchange.status, event.outcome) == (504, "total_timeout")
        assert flow.connections == [1, 1, 0]
        assert 0.7 <= event.duration_s < 3

    limits = "[timeouts]\nfirst_token_s = 0.4\ntotal_s = 0.7"
    through(test, plays(then=hang), plays(then=hang), streams(piece(), LAST_PIECES), more=limits)


def test_attempts_are_limited() -> None:
    """Two of four, if the configuration says two."""

    async def test(flow: Flow) -> None:
        event = await flow.serve(whole())
        assert event.outcome == "upstream_reset"
        assert flow.connections == [1, 1, 0, 0]

    scripts = [plays(then=close)] * 4
    through(test, *scripts, more="[retries]\nmax_attempts = 2")


@pytest.mark.parametrize("make", [whole, streamed])
def test_a_cancelled_request_leaves_nothing(make: Callable[[], RecordedExchange]) -> None:
    """The process ends under it: the replica is told, the slot is given back, the event is written."""
    gone = asyncio.Event()

    async def script(connection: PeerConnection) -> None:
        await connection.request()
        await connection.closed_by_peer()
        gone.set()

    async def test(flow: Flow) -> None:
        exchange = make()
        serving = flow.begin_task(exchange)
        await until(lambda: len(flow.router.watch) == 1)
        serving.cancel()
        await asyncio.wait({serving})
        assert serving.cancelled()
        await asyncio.wait_for(gone.wait(), 5)
        assert flow.events[0].outcome == "client_left"
        assert endings(flow) == [("first", "client_left")]
        assert exchange.on_disconnect is None

    through(test, script)
