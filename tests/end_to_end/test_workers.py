"""Several workers behind one port are one router: its numbers, its choices, its crashes and its end."""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from tests.support.flow import LAST_PIECES, piece
from tests.support.loops import run_strictly
from tests.support.peers import LAST_CHUNK, STREAM_HEAD, Peer, PeerConnection, answer, chunk, scripted_peer
from tests.support.raw_client import STREAMED_CHAT, RawAnswer, RawClient, events_in, get, post, raw_client
from tests.support.router_process import router_process
from tests.support.routers import config_text
from tests.support.scripted_server import until
from tests.support.simulated import replica_entry, simulated_engines
from tests.support.workers import Workers, alive, workers

PIECE = piece()
LAST_PIECE = LAST_PIECES
SHARED_S = 0.3
"""By then whatever one worker tells is known to all, even if the first message was lost."""

MORE = "[health]\ninterval_s = 1\nup_after = 1"


def text(*replicas: str, count: int = 2, policy: str = "least_requests", server: str = "") -> str:
    return config_text(*replicas, policy=policy, server=f"workers = {count}\n{server}", more=MORE)


@contextlib.asynccontextmanager
async def clients(port: int, count: int) -> AsyncIterator[list[RawClient]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(raw_client(port)) for _ in range(count)]


async def ask(client: RawClient, request: bytes) -> RawAnswer:
    await client.send(request)
    return await client.answer()


class Held:
    """Replicas that begin every stream and end it when they are told to."""

    def __init__(self) -> None:
        self.there: Counter[str] = Counter()
        self.go_on: dict[str, asyncio.Event] = {}

    @contextlib.asynccontextmanager
    async def replicas(self, names: str) -> AsyncIterator[dict[str, Peer]]:
        async with contextlib.AsyncExitStack() as stack:
            self.go_on = {name: asyncio.Event() for name in names}
            scripts = {name: partial(self._play, name) for name in names}
            yield {name: await stack.enter_async_context(scripted_peer(scripts[name])) for name in names}

    async def release(self, name: str) -> None:
        """End all that this replica has."""
        self.go_on[name].set()
        await until(lambda: not self.there[name])
        self.go_on[name].clear()

    async def _play(self, name: str, connection: PeerConnection) -> None:
        while True:
            head, _ = await connection.request()
            if head.startswith(b"GET "):
                await connection.send(answer(b""))
                continue
            self.there[name] += 1
            try:
                await connection.send(STREAM_HEAD + chunk(PIECE))
                await self._going_on_or_left(name, connection)
                await connection.send(chunk(LAST_PIECE) + LAST_CHUNK)
            finally:
                self.there[name] -= 1
            return

    async def _going_on_or_left(self, name: str, connection: PeerConnection) -> None:
        leaving = asyncio.ensure_future(connection.reader.read(1))
        going_on = asyncio.ensure_future(self.go_on[name].wait())
        try:
            await asyncio.wait({leaving, going_on}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            going_on.cancel()


async def begin(client: RawClient) -> None:
    """A stream whose first piece is there."""
    await client.send(post(STREAMED_CHAT))
    await client.first_piece()


async def finish(client: RawClient) -> None:
    events = events_in(b"".join([piece async for piece in client.chunks()]))
    assert events[-1] == b"[DONE]"


def entries(peers: dict[str, Peer], more: str = "") -> list[str]:
    return [f'url = "{peer.url}", engine = "vllm", id = "{name}"{more}' for name, peer in peers.items()]


async def by_worker(router: Workers, several: Sequence[RawClient], count: int = 2) -> list[list[RawClient]]:
    """The clients of every worker, which must be so many; in the order of the processes."""
    owned: dict[int, list[RawClient]] = {}
    for client in several:
        assert (await ask(client, get(b"/livez"))).status == 200
        owned.setdefault(router.owner(client), []).append(client)
    assert len(owned) == count
    return [owned[pid] for pid in sorted(owned)]


async def status_of(client: RawClient, request: bytes) -> int:
    """The status alone: a stream goes on, an error is read."""
    await client.send(request)
    status, headers = await client.head()
    if status != 200:
        await client.body(headers)
    return status


def test_the_numbers_are_those_of_all(tmp_path: Path) -> None:
    """Both workers serve; requests, tokens and histograms add up; `turnout status` shows it."""

    async def run() -> None:
        async with simulated_engines("vllm", "tgi") as engines:
            async with workers(text(*map(replica_entry, engines)), tmp_path) as router:
                async with clients(router.port, 12) as several:
                    for client in several:
                        assert [(await ask(client, post())).status for _ in range(5)] == [200] * 5
                    assert len({router.owner(client) for client in several}) == 2
                await router.until_metric("turnout_requests_total", 60, outcome="ok")
                assert await router.metric("turnout_request_seconds_count") == 60
                assert await router.metric("turnout_request_seconds_bucket", le="+Inf") == 60
                assert await router.metric("turnout_tokens_total", kind="completion") > 60
                assert await router.metric("turnout_workers") == 2
                assert await router.metric("turnout_replica_up") == 2
                await router.until_metric("turnout_replica_in_flight", 0)
                status = (await router.admin.get("/api/status")).json()
                assert (status["ready"], len(status["replicas"])) == (True, 2)
                assert all(each["figures"]["stale"] is False for each in status["replicas"])

    run_strictly(run())


def test_workers_see_what_the_others_have_in_flight(tmp_path: Path) -> None:
    """One worker leaves a replica full and the other empty: the other worker evens that out."""

    async def run() -> None:
        held = Held()
        async with held.replicas("ab") as peers, workers(text(*entries(peers)), tmp_path) as router:
            async with clients(router.port, 24) as several:
                one, other = await by_worker(router, several)
                for client in one[:8]:
                    await begin(client)
                assert held.there == {"a": 4, "b": 4}
                await held.release("b")
                await asyncio.sleep(SHARED_S)
                for client in other[:4]:
                    await begin(client)
                assert held.there == {"a": 4, "b": 4}
                await router.until_metric("turnout_replica_in_flight", 8)
                replicas = await router.replicas()
                assert [replicas[name]["in_flight"] for name in "ab"] == [4, 4]
                await held.release("a")
                await held.release("b")
                await router.until_metric("turnout_replica_in_flight", 0)

    run_strictly(run())


def test_a_replica_that_one_worker_has_filled_is_full_for_all(tmp_path: Path) -> None:
    """And free for all when it is free."""

    async def run() -> None:
        held = Held()
        async with held.replicas("ab") as peers:
            listed = entries(peers, ", max_in_flight = 1")
            async with workers(text(*listed), tmp_path) as router, clients(router.port, 16) as several:
                one, other = await by_worker(router, several)
                await begin(one[0])
                await begin(one[1])
                await asyncio.sleep(SHARED_S)
                refused = await ask(other[0], post(STREAMED_CHAT))
                assert (refused.status, refused.code) == (503, "no_healthy_replica")
                await held.release("a")
                await asyncio.sleep(SHARED_S)
                await begin(other[1])
                assert held.there == {"a": 1, "b": 1}
                await held.release("a")
                await held.release("b")

    run_strictly(run())


async def work(router: Workers, stop: asyncio.Event, failures: Counter[int], done: Counter[int]) -> None:
    """One client after the other on one connection each, request after request; failures by worker."""
    while not stop.is_set():
        async with raw_client(router.port) as client:
            assert (await ask(client, get(b"/livez"))).status == 200
            owner = router.owner(client)
            try:
                while not stop.is_set():
                    given = await ask(client, post(STREAMED_CHAT))
                    assert (given.status, given.events[-1]) == (200, b"[DONE]")
                    done[owner] += 1
            except (OSError, EOFError):
                failures[owner] += 1


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it(tmp_path: Path) -> None:
    """Under load: the others fail nothing, it is replaced, nothing stays in flight, no count is lost."""

    async def run() -> None:
        async with simulated_engines("vllm", "vllm") as engines:
            config = text(*map(replica_entry, engines), count=3)
            async with workers(config, tmp_path) as router:
                stop = asyncio.Event()
                failures: Counter[int] = Counter()
                done: Counter[int] = Counter()
                working = [asyncio.create_task(work(router, stop, failures, done)) for _ in range(12)]
                await router.until(lambda: min(done[pid] for pid in router.children[1:]) >= 5)
                victim = router.children[1]
                os.kill(victim, signal.SIGKILL)
                await router.until(lambda: victim not in router.children and len(router.children) == 4)
                await router.until_metric("turnout_workers", 3)
                successor = router.children[-1]
                stop.set()
                await asyncio.wait_for(asyncio.gather(*working), 20)
                assert set(failures) <= {victim}
                assert successor != victim
                await router.until_metric("turnout_replica_in_flight", 0, timeout_s=2)
                others = sum(count for pid, count in done.items() if pid != victim)
                counted = await router.metric("turnout_requests_total", outcome="ok")
                assert others <= counted <= others + done[victim] + 12
                async with clients(router.port, 16) as several:
                    await by_worker(router, several, count=3)

    run_strictly(run())


def test_what_a_killed_worker_had_in_flight_is_taken_back(tmp_path: Path) -> None:
    """By the other worker too: the replica that it had filled is free again."""

    async def run() -> None:
        held = Held()
        async with held.replicas("a") as peers:
            (entry,) = entries(peers, ", max_in_flight = 2")
            async with workers(text(entry), tmp_path) as router, clients(router.port, 16) as several:
                one, other = await by_worker(router, several)
                await begin(one[0])
                await begin(one[1])
                await asyncio.sleep(SHARED_S)
                assert (await ask(other[0], post(STREAMED_CHAT))).status == 503
                os.kill(router.owner(one[0]), signal.SIGKILL)
                async with asyncio.timeout(5):
                    while (await status_of(other[1], post(STREAMED_CHAT))) != 200:
                        await asyncio.sleep(0.02)
                await router.until_metric("turnout_replica_in_flight", 1)
                await held.release("a")

    run_strictly(run())


def test_the_counts_of_a_killed_worker_stay(tmp_path: Path) -> None:
    """A counter that fell would look like a restart to Prometheus."""

    async def run() -> None:
        async with simulated_engines("vllm") as engines:
            async with workers(text(*map(replica_entry, engines)), tmp_path) as router:
                async with clients(router.port, 16) as several:
                    for client in several:
                        assert (await ask(client, post())).status == 200
                    await router.until_metric("turnout_requests_total", 16)
                    for _ in range(2):
                        victim = router.children[1]
                        os.kill(victim, signal.SIGKILL)
                        await router.until(lambda: victim not in router.children)
                        await router.until_metric("turnout_workers", 2)
                        assert await router.metric("turnout_requests_total") == 16
                async with raw_client(router.port) as client:
                    assert (await ask(client, post())).status == 200
                await router.until_metric("turnout_requests_total", 17)

    run_strictly(run())


def test_the_overview_may_die(tmp_path: Path) -> None:
    """Requests go on, its successor knows the counts of all who are there, and what an operator drains."""

    async def run() -> None:
        held = Held()
        async with held.replicas("ab") as peers, workers(text(*entries(peers)), tmp_path) as router:
            async with raw_client(router.port) as client:
                await begin(client)
                await router.until_metric("turnout_replica_in_flight", 1)
                there = "".join(held.there)
                assert (await router.admin.post(f"/api/replicas/{there}/drain")).status_code == 200
                await router.until_metric("turnout_workers", 2)
                os.kill(router.children[0], signal.SIGKILL)
                await held.release(there)
                await finish(client)
                await router.until_answers()
                await router.until_metric("turnout_workers", 2)
                await router.until_metric("turnout_requests_total", 1)
                assert (await router.replicas())[there]["draining"] is True

    run_strictly(run())


def test_draining_a_replica_is_so_in_every_worker(tmp_path: Path) -> None:
    """Also in one that is born later; and it ends for all."""

    async def run() -> None:
        async with simulated_engines("vllm", "vllm") as engines:
            config = text(*map(replica_entry, engines), policy="round_robin")
            async with workers(config, tmp_path) as router:
                drained, kept = await router.replicas()

                async def served_by() -> set[str]:
                    async with clients(router.port, 16) as several:
                        return {
                            (await ask(client, post())).headers["x-turnout-replica"] for client in several
                        }

                assert await served_by() == {drained, kept}
                await router.admin.post(f"/api/replicas/{drained}/drain")
                async with asyncio.timeout(10):
                    while await served_by() != {kept}:
                        await asyncio.sleep(0.02)
                os.kill(router.children[1], signal.SIGKILL)
                await router.until_metric("turnout_workers", 2)
                assert await served_by() == {kept}
                await router.admin.post(f"/api/replicas/{drained}/undrain")
                async with asyncio.timeout(10):
                    while await served_by() != {drained, kept}:
                        await asyncio.sleep(0.02)

    run_strictly(run())


def test_sigterm_drains_every_worker(tmp_path: Path) -> None:
    """Not ready, no new connections, open streams to their end, and then the exit code of a clean end."""

    async def run() -> None:
        held = Held()
        async with held.replicas("a") as peers, workers(text(*entries(peers)), tmp_path) as router:
            async with clients(router.port, 12) as several:
                one, other = await by_worker(router, several)
                await begin(one[0])
                await begin(other[0])
                router.router.process.send_signal(signal.SIGTERM)
                await until_refused(router.port)
                assert await router.metric("turnout_replica_in_flight") == 2
                held.go_on["a"].set()
                await finish(one[0])
                await finish(other[0])
            assert await asyncio.to_thread(router.router.process.wait, 10) == 0

    run_strictly(run())


def test_a_second_signal_ends_every_worker_at_once(tmp_path: Path) -> None:
    """Clients hear why; the exit code says so."""

    async def run() -> None:
        held = Held()
        async with held.replicas("a") as peers:
            config = text(*entries(peers)).replace("settle_s = 0", "settle_s = 60")
            async with workers(config, tmp_path, leaves_with=130) as router:
                async with clients(router.port, 8) as several:
                    for client in several:
                        await begin(client)
                    router.router.process.send_signal(signal.SIGTERM)
                    await until_draining(router.port)
                    router.router.process.send_signal(signal.SIGINT)
                    for client in several:
                        (event,) = events_in(b"".join([piece async for piece in client.chunks()]))
                        assert b"router_draining" in event
                assert await asyncio.to_thread(router.router.process.wait, 10) == 130

    run_strictly(run())


def test_renewing_the_workers_fails_no_request(tmp_path: Path) -> None:
    """SIGHUP under load, a connection per request: all are answered, and all workers are others."""

    async def run() -> None:
        async with simulated_engines("vllm", "vllm") as engines:
            async with workers(text(*map(replica_entry, engines)), tmp_path) as router:
                stop = asyncio.Event()
                answered = 0

                async def visit() -> None:
                    nonlocal answered
                    while not stop.is_set():
                        async with raw_client(router.port) as client:
                            assert (await ask(client, post())).status == 200
                        answered += 1

                visiting = [asyncio.create_task(visit()) for _ in range(6)]
                before = router.children
                await router.until(lambda: answered >= 20)
                router.router.process.send_signal(signal.SIGHUP)
                await router.until(lambda: not set(router.children) & set(before[1:]), timeout_s=20)
                so_far = answered
                await router.until(lambda: answered >= so_far + 20)
                stop.set()
                await asyncio.gather(*visiting)
                assert router.children[0] == before[0]
                await router.until_metric("turnout_workers", 2)
                await router.until_metric("turnout_requests_total", answered)

    run_strictly(run())


def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    """Even if it is killed: nobody would replace them."""

    async def run() -> None:
        async with simulated_engines("vllm") as engines:
            config = text(*map(replica_entry, engines))
            async with workers(config, tmp_path, leaves_with=-signal.SIGKILL) as router:
                orphans = router.children
                router.router.process.kill()
                await router.until(lambda: not any(map(alive, orphans)))

    run_strictly(run())


def test_a_port_that_another_router_has(tmp_path: Path) -> None:
    """Ports are shared by the workers of one router, not by two routers."""

    async def run() -> None:
        config = text('url = "http://127.0.0.1:9", engine = "vllm"')
        async with workers(config, tmp_path) as router:
            taken = config.replace("port = 0", f"port = {router.port}", 1)
            (tmp_path / "second").mkdir()
            with pytest.raises(RuntimeError, match=r"cannot start: .* port \d+: Address already in use"):
                await asyncio.to_thread(router_process(taken, tmp_path / "second").__enter__)

    run_strictly(run())


def test_workers_that_cannot_start(tmp_path: Path) -> None:
    """The router ends with the reason."""
    config = text('url = "http://127.0.0.1:9", engine = "vllm"')
    config = config.replace('access_log = "off"', f'access_log = "{tmp_path}/none/access.log"')
    with pytest.raises(RuntimeError, match="No such file or directory") as raised:
        router_process(config, tmp_path).__enter__()
    assert "failed to start 5 times" in str(raised.value)


async def until_refused(port: int) -> None:
    async with asyncio.timeout(10):
        with contextlib.suppress(OSError):
            while True:
                async with raw_client(port):
                    await asyncio.sleep(0.02)


async def until_draining(port: int) -> None:
    """Every worker is: a dozen connections in a row meet no other."""
    async with asyncio.timeout(10):
        while True:
            async with clients(port, 12) as several:
                if all([(await ask(client, get(b"/readyz"))).status == 503 for client in several]):
                    return
