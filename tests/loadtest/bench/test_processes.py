"""Starting and stopping what a run needs, with real processes."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.bench.candidates import Candidate, Launch
from loadtest.bench.processes import (
    Cores,
    StartError,
    ask,
    free_ports,
    replicas_running,
    router_running,
    started_on,
    stop,
)

RELAY = """
import asyncio, sys
port, *targets = map(int, sys.argv[1:])
async def copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def relay(reader, writer):
    target = targets.pop(0); targets.append(target)
    there_reader, there_writer = await asyncio.open_connection('127.0.0.1', target)
    await asyncio.gather(copy(reader, there_writer), copy(there_reader, writer))
async def main():
    async with await asyncio.start_server(relay, '127.0.0.1', port) as server:
        await server.serve_forever()
asyncio.run(main())
"""
CORES = Cores.of_this_machine()


def relay_command(launch: Launch) -> list[str]:
    targets = [url.rpartition(":")[2] for url in launch.replica_urls]
    return [sys.executable, "-c", RELAY, str(launch.port), *targets]


def start(candidate: Candidate, timeout_s: float = 20.0) -> int:
    """Runs it for a moment before two replicas; the number of replicas' connections it came to."""
    with replicas_running(2, CORES.load) as replicas:
        before = replicas.connections_made()
        with router_running(candidate, replicas.ports, Path("/peers"), CORES.router, timeout_s) as router:
            assert ask(router.ports[0], "GET", "/health")[0] == 200
        return replicas.connections_made() - before - 1


def test_a_router_is_handed_over_when_it_answers() -> None:
    """Health check, one chat, and the test's own question: three connections reached the replicas."""
    assert start(Candidate("relay", relay_command, "/health")) >= 3


def test_without_a_command_the_replicas_answer_themselves() -> None:
    """No process, the replicas' own ports."""
    assert start(Candidate("direct", None, "/health")) == 1


def test_a_program_that_is_absent_says_what_to_do() -> None:
    """The reason names the program and the hint."""
    absent = Candidate("x", lambda launch: ["/no/such/program"], "/health", hint="install it")
    with pytest.raises(StartError, match=r"/no/such/program: No such file or directory \(install it\)"):
        start(absent)


def test_a_program_that_ends_says_its_last_words() -> None:
    """Its code and its last line, not a timeout."""
    quitter = Candidate("x", lambda launch: [sys.executable, "-c", "print('bad port'); exit(3)"], "/health")
    with pytest.raises(StartError, match="ended with code 3: bad port"):
        start(quitter)


def test_a_program_that_never_answers_is_given_up() -> None:
    """After the timeout, and it is stopped."""
    sleeper = Candidate("x", lambda launch: [sys.executable, "-c", "import time; time.sleep(60)"], "/health")
    with pytest.raises(StartError, match="not ready after 0 s: it said nothing"):
        start(sleeper, timeout_s=0.3)


def test_processes_start_on_their_core() -> None:
    """The child has one core from its first instruction; the parent keeps its own."""
    own = os.sched_getaffinity(0)
    core = max(own)
    program = "import os; print(*os.sched_getaffinity(0))"
    with started_on(core):
        said = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout
    assert said.split() == [str(core).encode()]
    assert os.sched_getaffinity(0) == own
    with started_on(None):
        said = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE).stdout
    assert {int(each) for each in said.split()} == own


def test_stop_ends_a_group_that_does_not_want_to() -> None:
    """A shell that ignores the signal, and its child, are both gone."""
    script = "trap '' TERM; sleep 60 & echo $!; wait; wait"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with contextlib.closing(process.stdout) as out:
        assert int(out.readline()) > 0
        stop(process, patience_s=0.2)
        assert out.read() == b""  # nobody is left to hold the other end
    assert process.returncode == -9


def test_free_ports_are_different() -> None:
    """They are held together while they are chosen."""
    assert len(set(free_ports(20))) == 20
