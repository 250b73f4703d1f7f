"""What people and programs get to see."""

import io
import json
from pathlib import Path

import msgspec
from rich.console import Console

from loadtest.bench.candidates import candidates_named
from loadtest.bench.report import TABLE_WIDTH
from loadtest.real_vllm.figures import Forecast, RunFigures
from loadtest.real_vllm.fleet import Fleet
from loadtest.real_vllm.report import json_report, print_report
from loadtest.real_vllm.run import Plan, Results, Sample
from loadtest.real_vllm.workloads import workloads_named

OURS, PEER = "turnout:expected_latency", "vllm-router:cache_aware"
PLAN = Plan(
    workloads_named("chat,shared"),
    candidates_named(f"{OURS},{PEER},sglang-router:cache_aware"),
    rounds=3,
    peers=Path("/peers"),
    fleet=Fleet(Path("vllm"), Path("model")),
    seed=7,
)
FIGURES = RunFigures(
    seconds=30.0,
    hit_share=0.5,
    endless_share=0.75,
    first_token_p50_s=0.2,
    first_token_p90_s=0.9,
    requests=[50, 48, 47, 47],
    preempted=0,
    forecast=Forecast(90, 100),
    errors={},
)


def sample(number: int, candidate: str, **changes: object) -> Sample:
    return Sample(number, "chat", candidate, msgspec.structs.replace(FIGURES, **changes))


RESULTS = Results(
    samples=(
        *(sample(number, OURS, hit_share=share) for number, share in ((1, 0.6), (2, 0.4), (3, 0.5))),
        sample(1, PEER, forecast=None, first_token_p50_s=None, errors={"status 503": 2}),
    ),
    skipped={"sglang-router:cache_aware": "not ready after 60 s"},
)


def printed(results: Results) -> dict[str, str]:
    """Lines by their first word."""
    out = io.StringIO()
    print_report(Console(file=out, width=TABLE_WIDTH), PLAN, results)
    lines = [line.strip("│ ") for line in out.getvalue().splitlines()]
    return {line.split()[0]: line for line in lines if line.strip()}


def test_a_row_has_medians_with_the_spread_of_the_rounds() -> None:
    """Shares in per cent, times in milliseconds, the forecast as a ratio; nothing measured is a dash."""
    lines = printed(RESULTS)
    row = [cell.strip() for cell in lines[OURS].split("│")]
    assert row[1:4] == ["50.0 (40.0-60.0)", "75.0", "200 (200-200)"]
    assert row[-2:] == ["50, 47", "0.90 (0.90-0.90)"]
    peer = [cell.strip() for cell in lines[PEER].split("│")]
    assert (peer[3], peer[-1]) == ("-", "-")


def test_who_was_left_out_and_what_went_wrong_is_said() -> None:
    """Below the tables."""
    lines = printed(RESULTS)
    assert lines["skipped"] == "skipped sglang-router:cache_aware: not ready after 60 s"
    assert lines["errors"] == f"errors  round 1 chat {PEER}: {{'status 503': 2}}"
    assert "errors" not in printed(Results((sample(1, OURS),), {}))


def test_the_json_holds_every_run_and_what_is_needed_to_repeat_it() -> None:
    """Seed, sizes, versions of the peers."""
    document = json.loads(json_report(PLAN, RESULTS))
    assert [run["figures"]["hit_share"] for run in document["runs"]] == [0.6, 0.4, 0.5, 0.5]
    assert (document["settings"]["seed"], document["settings"]["blocks"]) == (7, PLAN.fleet.blocks)
    assert document["peers"]["vllm-router"]
    assert document["skipped"] == RESULTS.skipped
