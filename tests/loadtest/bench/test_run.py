"""A whole interleaved run, in small: real replicas, real clients, relays in the place of routers."""

import sys
from pathlib import Path

from loadtest.bench.candidates import Candidate, Launch
from loadtest.bench.processes import Cores
from loadtest.bench.run import Plan, measure, shortened
from loadtest.bench.workloads import WORKLOADS, Workload

RELAY = """
import socket, sys, threading
def copy(source, target):
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)
server = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64)
while True:
    client, _ = server.accept()
    replica = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    for pair in ((client, replica), (replica, client)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""
TINY = (
    Workload("A", "JSON", 2, "shared", 300, warmup_s=0.1, window_s=0.2),
    Workload("B", "stream", 2, "shared", 300, 10, 1, warmup_s=0.1, window_s=0.2),
)


def relay(launch: Launch) -> list[str]:
    return [sys.executable, "-c", RELAY, str(launch.port), launch.replica_urls[0].rpartition(":")[2]]


def test_every_candidate_has_its_turn_in_every_round() -> None:
    """Two rounds, two workloads, three candidates, one of them broken: eight samples and one reason."""
    told: list[str] = []
    advanced: list[int] = []
    plan = Plan(
        workloads=TINY,
        candidates=(
            Candidate("relay", relay, "/health"),
            Candidate("broken", lambda launch: ["/no/such/program"], "/health"),
            Candidate("direct", None, "/health"),
        ),
        rounds=2,
        peers=Path("/peers"),
        cores=Cores.of_this_machine(),
        seed=1,
    )
    results = measure(plan, told.append, advanced.append)
    runs = {(sample.round, sample.workload, sample.candidate) for sample in results.samples}
    expected = {(r, w, c) for r in (1, 2) for w in ("A", "B") for c in ("relay", "direct")}
    assert runs == expected
    assert len(results.samples) == 8
    assert list(results.skipped) == ["broken"]
    assert sum(advanced) == 2 * 2 * 3
    assert all(not sample.figures.errors for sample in results.samples)
    assert all(sample.figures.requests > 0 for sample in results.samples if sample.workload == "A")
    assert all(sample.upstream_connections >= 2 for sample in results.samples)
    assert {bool(s.figures.router_cpu_s) for s in results.samples if s.candidate == "direct"} == {False}


def test_a_short_look_keeps_the_time_that_streams_need_to_get_going() -> None:
    """W4's warm-up outlasts its first streams; the others' is halved."""
    short = {workload.name: shortened(workload) for workload in WORKLOADS}
    assert short["W4"].warmup_s > short["W4"].ramp_s
    assert short["W1"].warmup_s == 0.3
    assert all(workload.window_s == 1.0 for workload in short.values())
