"""The load client: a closed loop over keep-alive connections that parses as little as it must.

It reads the CPU clocks of the router itself, at the two ends of the measured window, and prints `RunFigures`.
"""

import asyncio
import gc
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import msgspec
import uvloop

from loadtest.bench.cpu import core_busy_s, cpu_s, process_tree
from loadtest.bench.figures import RunFigures, quantiles
from loadtest.bench.frames import now_us, sent_times_us
from loadtest.bench.prompts import requests_of
from loadtest.bench.workloads import Workload

_READS_PER_SAMPLE = 16
_END_OF_CHUNKS = b"\r\n0\r\n\r\n"
_RETRY_S = 0.05
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")


class Assignment(msgspec.Struct, frozen=True):
    """What to send where, and whose CPU time to read; `router_pid` 0 is no router."""

    workload: Workload
    ports: list[int]
    router_pid: int
    upstream_pid: int
    router_core: int
    load_core: int
    first_number: int


@dataclass(slots=True)
class Tally:
    """What the connections count; `restart` begins the measured window."""

    requests: int = 0
    chunks: int = 0
    reads: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies_us: list[int] = field(default_factory=list)
    first_events_us: list[int] = field(default_factory=list)
    chunk_delays_us: list[int] = field(default_factory=list)

    def restart(self) -> None:
        self.requests = self.chunks = self.reads = 0
        self.latencies_us.clear()
        self.first_events_us.clear()
        self.chunk_delays_us.clear()

    def sample(self, data: bytes) -> None:
        """Every so many reads, the delay of all chunks in one: each chunk has the same chance."""
        now = now_us()
        self.chunk_delays_us += [now - sent for sent in sent_times_us(data)]


class Connection(asyncio.Protocol):
    """Sends one request after the other; `events_due` is what a whole stream holds at least, 0 for JSON."""

    __slots__ = (
        "_events",
        "_events_due",
        "_head",
        "_in_head",
        "_left",
        "_requests",
        "_sent_us",
        "_tail",
        "_tally",
        "_transport",
        "lost",
    )

    def __init__(self, requests: Iterator[bytes], tally: Tally, events_due: int) -> None:
        self._requests = requests
        self._tally = tally
        self._events_due = events_due
        self._transport: asyncio.Transport
        self._in_head = True
        self._head = b""
        self._left = 0
        self._events = 0
        self._tail = b""
        self._sent_us = 0
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.lost.done():
            self._tally.errors["connection lost"] += 1
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            data = self._read_head(data)
            if not data:
                return
        if self._events_due:
            self._read_events(data)
        else:
            self._left -= len(data)
            if self._left <= 0:
                self._finish(whole=self._left == 0 and data.endswith(b"}"))

    def _send(self) -> None:
        self._in_head, self._head, self._events, self._tail = True, b"", 0, b""
        self._sent_us = now_us()
        self._transport.write(next(self._requests))

    def _read_head(self, data: bytes) -> bytes:
        """The part of the body that came with the head; nothing while the head is not whole."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            return b""
        head, body = self._head[:end].lower(), self._head[end + 4 :]
        self._in_head = False
        if not head.startswith(b"http/1.1 200"):
            self._fail(f"status {head[9:12].decode(errors='replace')}")
            return b""
        if self._events_due:
            if b"chunked" not in head:
                self._fail("stream not chunked")
                return b""
        elif length := _LENGTH.search(head):
            self._left = int(length[1])
        else:
            self._fail("answer without length")
            return b""
        return body

    def _read_events(self, data: bytes) -> None:
        tally = self._tally
        events = data.count(b"\n\n")
        if data[0] == 10 and self._tail[-1:] == b"\n":
            events += 1
        if events:
            if not self._events:
                tally.first_events_us.append(now_us() - self._sent_us)
            self._events += events
            tally.chunks += events
        tally.reads += 1
        if tally.reads % _READS_PER_SAMPLE == 0:
            tally.sample(data)
        self._tail = data[-7:] if len(data) >= 7 else (self._tail + data)[-7:]
        if self._tail == _END_OF_CHUNKS:
            self._finish(whole=self._events >= self._events_due)

    def _finish(self, *, whole: bool) -> None:
        if not whole:
            self._fail("short answer")
            return
        self._tally.requests += 1
        self._tally.latencies_us.append(now_us() - self._sent_us)
        self._send()

    def _fail(self, kind: str) -> None:
        """Counts the failure and leaves the connection, whose state nobody knows now."""
        self._tally.errors[kind] += 1
        self.lost.set_result(None)
        self._transport.abort()


async def _keep_connected(
    port: int, delay_s: float, requests: Iterator[bytes], tally: Tally, due: int
) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.sleep(delay_s)
    while True:
        try:
            transport, connection = await loop.create_connection(
                lambda: Connection(requests, tally, due), "127.0.0.1", port
            )
        except OSError as error:
            tally.errors[f"connect: {error.strerror}"] += 1
        else:
            try:
                await connection.lost
            finally:
                transport.abort()
        await asyncio.sleep(_RETRY_S)


@dataclass(frozen=True, slots=True)
class Clocks:
    """Seconds of wall and CPU time at one moment."""

    wall: float
    router: float
    client: float
    upstream: float
    router_core: float
    load_core: float


def _read_clocks(assignment: Assignment, router: tuple[int, ...]) -> Clocks:
    return Clocks(
        wall=time.monotonic(),
        router=cpu_s(router),
        client=time.process_time(),
        upstream=cpu_s((assignment.upstream_pid,)),
        router_core=core_busy_s(assignment.router_core),
        load_core=core_busy_s(assignment.load_core),
    )


async def run(assignment: Assignment) -> RunFigures:
    """Warm-up, then the measured window."""
    workload = assignment.workload
    tally = Tally()
    requests = requests_of(workload, f"127.0.0.1:{assignment.ports[0]}", assignment.first_number)
    due = workload.output_tokens + 3 if workload.streams else 0  # role, finish reason, [DONE]
    gc.collect()
    gc.freeze()
    gc.disable()
    ports = cycle(assignment.ports)
    tasks = [
        asyncio.create_task(
            _keep_connected(next(ports), workload.ramp_s * i / workload.connections, requests, tally, due)
        )
        for i in range(workload.connections)
    ]
    await asyncio.sleep(workload.warmup_s)
    router = process_tree(assignment.router_pid) if assignment.router_pid else ()
    before = _read_clocks(assignment, router)
    tally.restart()
    await asyncio.sleep(workload.window_s)
    after = _read_clocks(assignment, router)
    figures = _figures(tally, before, after)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    return figures


def _figures(tally: Tally, before: Clocks, after: Clocks) -> RunFigures:
    return RunFigures(
        window_s=after.wall - before.wall,
        requests=tally.requests,
        chunks=tally.chunks,
        errors=dict(tally.errors),
        router_cpu_s=after.router - before.router,
        client_cpu_s=after.client - before.client,
        upstream_cpu_s=after.upstream - before.upstream,
        router_core_busy_s=after.router_core - before.router_core,
        load_core_busy_s=after.load_core - before.load_core,
        latency=quantiles(tally.latencies_us),
        first_event=quantiles(tally.first_events_us),
        chunk_delay=quantiles(tally.chunk_delays_us),
    )


if __name__ == "__main__":
    measured = uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.read(), type=Assignment)))
    sys.stdout.buffer.write(msgspec.json.encode(measured))
