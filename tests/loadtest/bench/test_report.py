"""What people and programs get to see."""

import io
import json
from pathlib import Path

import msgspec
from rich.console import Console

from loadtest.bench.candidates import candidates_named
from loadtest.bench.figures import Quantiles, RunFigures
from loadtest.bench.processes import Cores
from loadtest.bench.report import TABLE_WIDTH, json_report, print_report
from loadtest.bench.run import Plan, Results, Sample
from loadtest.bench.workloads import workloads_named

FIGURES = RunFigures(
    window_s=2.0,
    requests=20000,
    chunks=400000,
    errors={},
    router_cpu_s=2.0,
    client_cpu_s=0.9,
    upstream_cpu_s=0.9,
    router_core_busy_s=2.0,
    load_core_busy_s=1.8,
    latency=Quantiles(20000, 1500.0, 3000.0),
    first_event=Quantiles(20000, 400.0, 900.0),
    chunk_delay=Quantiles(1000, 60.0, 130.0),
)
PLAN = Plan(
    workloads=workloads_named("W1,W4"),
    candidates=candidates_named("turnout,vllm-router:round_robin,nginx"),
    rounds=2,
    peers=Path("/peers"),
    cores=Cores(0, 1),
    seed=7,
)


def sample(number: int, workload: str, candidate: str, requests: int, **changes: object) -> Sample:
    figures = msgspec.structs.replace(FIGURES, requests=requests, **changes)
    return Sample(number, 0, workload, candidate, figures, 32)


RESULTS = Results(
    samples=tuple(
        sample(number, workload, candidate, requests)
        for number in (1, 2)
        for workload in ("W1", "W4")
        for candidate, requests in (("turnout", 30000), ("vllm-router:round_robin", 20000))
    ),
    skipped={"nginx": "nginx: No such file or directory (apt-get install nginx-light)"},
)


def printed(results: Results) -> str:
    out = io.StringIO()
    print_report(Console(file=out, width=TABLE_WIDTH), PLAN, results)
    return out.getvalue()


def test_tables_show_rates_ratios_and_goals() -> None:
    """A line holds a candidate's rate with its spread, its ratio, its delays and its cores."""
    text = printed(RESULTS)
    (w1_row, *_) = [line for line in text.splitlines() if "vllm-router:round_robin" in line]
    for cell in ("10k / 10k / 10k", "1.50x (1.50-1.50)", "1.50 / 3.00", "1.00, 0.90"):
        assert cell in w1_row
    assert "SSE chunks per CPU-s" in text
    assert "200k / 200k / 200k" in text
    goals = text[text.index("goals") :]
    assert ">= 1.3x" in goals and "holds" in goals and "level (>= 0.9x)" in goals


def test_no_line_is_wider_than_the_table() -> None:
    """So that a pipe into a file keeps the columns."""
    assert max(len(line.rstrip()) for line in printed(RESULTS).splitlines()) <= TABLE_WIDTH


def test_who_is_missing_and_what_went_wrong_is_said() -> None:
    """One line each; and how noisy it was."""
    failed = sample(1, "W1", "turnout", 10, errors={"status 502": 3}, load_core_busy_s=2.0)
    text = printed(Results((failed,), RESULTS.skipped))
    assert "skipped nginx: nginx: No such file or directory (apt-get install nginx-light)" in text
    assert "errors  W1 turnout: {'status 502': 3}" in text
    assert "noise   other processes took 5%" in text


def test_nothing_measured_is_still_a_report() -> None:
    """Only who was skipped, and why."""
    assert "skipped nginx" in printed(Results((), RESULTS.skipped))


def test_json_has_every_run_and_what_was_asked() -> None:
    """Each run alone, so that anybody can take another mean; seed and cores, to do it again."""
    document = json.loads(json_report(PLAN, RESULTS))
    assert len(document["runs"]) == 8
    assert document["runs"][0]["figures"]["requests"] == 30000
    assert document["settings"]["seed"] == 7
    assert document["settings"]["workloads"][1]["name"] == "W4"
    assert document["skipped"] == dict(RESULTS.skipped)
    assert {row["candidate"] for row in document["summary"]} == {"turnout", "vllm-router:round_robin"}
    assert [goal["holds"] for goal in document["goals"]] == [True, True]
    assert document["peers"]["vllm-router"]
