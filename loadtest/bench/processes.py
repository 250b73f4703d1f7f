"""The processes of a run: each starts on the core it is meant for and ends with the run."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtest.bench.candidates import Candidate, Launch

_STOP_S = 5.0
_POLL_S = 0.05
_QUESTION = b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"ready?"}]}'
_HEADERS = {"authorization": "Bearer sk-bench", "content-type": "application/json"}


class StartError(Exception):
    """A program that is absent, ends at once or never gets ready; the text says which."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The router has `router` for itself; client and replicas share `load`."""

    router: int
    load: int

    @classmethod
    def of_this_machine(cls) -> "Cores":
        """The first two cores this process may use; one and the same when there is no second."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(usable[0], usable[min(1, len(usable) - 1)])


@contextlib.contextmanager
def started_on(core: int | None) -> Iterator[None]:
    """Processes started inside run on this core with all their threads, from their first instruction on.

    None: wherever this process may run.
    """
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, own if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def ask(port: int, method: str, path: str, body: bytes = b"", timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Status and body of one exchange on a connection of its own. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, body or None, _HEADERS)
        answer = connection.getresponse()
        return answer.status, answer.read()


def stop(process: subprocess.Popen[bytes], patience_s: float = _STOP_S) -> None:
    """The whole process group, kindly and then not."""
    for how, wait_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, _STOP_S)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait_s)


@dataclass(frozen=True, slots=True)
class Replicas:
    """The simulated replicas: one process, some ports."""

    pid: int
    ports: list[int]

    def pace(self, interval_ms: int) -> None:
        """Streams that start from now on write a token each `interval_ms`."""
        ask(self.ports[0], "POST", f"/pace?interval_ms={interval_ms}")

    def connections_made(self) -> int:
        """Connections that they have accepted so far, this question's own among them."""
        return int(ask(self.ports[0], "GET", "/connections")[1])


@contextlib.contextmanager
def replicas_running(count: int, core: int) -> Iterator[Replicas]:
    """Simulated replicas on free ports."""
    command = [sys.executable, "-m", "loadtest.bench.upstream", str(count)]
    with started_on(core):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    with process:
        try:
            assert process.stdout is not None
            yield Replicas(process.pid, json.loads(process.stdout.readline()))
        finally:
            stop(process)


@dataclass(frozen=True, slots=True)
class Router:
    """A candidate that answers; `pid` 0 and the replicas' ports when there is no router."""

    pid: int
    ports: list[int]
    spare_port: int = 0
    """Where it shows its metrics."""


@contextlib.contextmanager
def router_running(
    candidate: Candidate, replica_ports: list[int], peers: Path, core: int | None, timeout_s: float
) -> Iterator[Router]:
    """The candidate in front of the replicas, from its first good answer on. Raises StartError."""
    if candidate.command is None:
        yield Router(0, replica_ports)
        return
    port, spare_port = free_ports(2)
    urls = tuple(f"http://127.0.0.1:{replica_port}" for replica_port in replica_ports)
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as name:
        folder = Path(name)
        command = candidate.command(Launch(folder, port, spare_port, urls, peers.absolute()))
        process = _start(candidate, command, folder / "log", core)
        try:
            _wait_until_ready(candidate, process, port, folder / "log", timeout_s)
            yield Router(process.pid, [port], spare_port)
        finally:
            stop(process)


def _start(candidate: Candidate, command: list[str], log: Path, core: int | None) -> subprocess.Popen[bytes]:
    environment = os.environ | dict(candidate.environment)
    try:
        with log.open("wb") as out, started_on(core):
            return subprocess.Popen(
                command, stdout=out, stderr=out, env=environment, cwd=log.parent, start_new_session=True
            )
    except OSError as error:
        hint = f" ({candidate.hint})" if candidate.hint else ""
        raise StartError(f"{command[0]}: {error.strerror}{hint}") from error


def _wait_until_ready(
    candidate: Candidate, process: subprocess.Popen[bytes], port: int, log: Path, timeout_s: float
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StartError(f"ended with code {process.returncode}: {_last_line(log)}")
        if _answers(port, candidate.health_path):
            return
        time.sleep(_POLL_S)
    raise StartError(f"not ready after {timeout_s:.0f} s: {_last_line(log)}")


def _answers(port: int, health_path: str) -> bool:
    try:
        return (
            ask(port, "GET", health_path)[0] == 200
            and ask(port, "POST", "/v1/chat/completions", _QUESTION)[0] == 200
        )
    except (OSError, http.client.HTTPException):
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
