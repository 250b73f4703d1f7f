"""The whole command on small traces."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtest.simulate.command import simulate

REPLICAS = ", ".join(
    f'{{ url = "http://10.0.0.{n}:8000", engine = "vllm", id = "gpu-{n}", weight = {n}.0 }}' for n in (1, 2)
)
CONFIG = """
[server]
workers = 2
[models.m]
stable = "v1"
policy = "POLICY"
[models.m.versions.v1]
served_name = "m"
replicas = [ REPLICAS ]
[models.other]
stable = "v1"
policy = "random"
[models.other.versions.v1]
served_name = "m"
discover = { kind = "dns", host = "vllm.svc", port = 8000, engine = "vllm" }
[policies.sticky]
kind = "session_affinity"
load_factor = 2.0
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "old.toml"
    path.write_text(CONFIG.replace("POLICY", "round_robin").replace("REPLICAS", REPLICAS))
    return path


@pytest.fixture
def against(tmp_path: Path) -> Path:
    path = tmp_path / "new.toml"
    path.write_text(CONFIG.replace("POLICY", "sticky").replace("REPLICAS", REPLICAS))
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    rows = [
        {
            "timestamp": 400 * n,
            "input_length": 2000,
            "output_length": 20,
            "hash_ids": [n % 7, 100 + n, 200 + n],
        }
        for n in range(120)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(simulate, [str(argument) for argument in arguments])


def test_a_table_for_one_configuration(config: Path, trace: Path) -> None:
    result = call("--config", config, "--trace", trace, "--model", "m")
    assert result.exit_code == 0, result.output
    assert "old: round_robin" in result.output and "102 requests after the warm-up" in result.output
    assert "120 requests in" in result.output and "wins" not in result.output


def test_two_configurations_as_json(config: Path, against: Path, trace: Path) -> None:
    """Weights of 1 and 2 send the second replica two thirds; the report repeats itself but for wall time."""
    arguments = ("--config", config, "--against", against, "--trace", trace, "--model", "m", "--json")
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    old, new = document["results"]
    assert (old["name"], new["name"]) == ("old: round_robin", "new: sticky")
    assert old["requests"] == new["requests"] == 102
    assert old["busiest"] == pytest.approx(4 / 3, abs=0.05)
    assert any("by prompt" in sentence for sentence in document["comparison"])
    again = json.loads(call(*arguments).stdout)
    for result_again, before in zip(again["results"], document["results"], strict=True):
        assert {**result_again, "wall_s": 0, "requests_per_minute": 0} == {
            **before,
            "wall_s": 0,
            "requests_per_minute": 0,
        }


def test_a_page_that_needs_nothing_else(config: Path, against: Path, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = call("--config", config, "--against", against, "--trace", trace, "--model", "m", "--html", path)
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert text.count("<svg") == 6
    assert "Where each wins" in text and "prefers-color-scheme: dark" in text
    assert not re.search(r"(src|href)=|@import|https?://", text)
    assert text.count("gpu-1") == 2


def test_faults_workers_and_everything_else_reach_the_fleet(config: Path, trace: Path) -> None:
    arguments = ["--config", config, "--trace", trace, "--model", "other", "--replicas", 3, "--json"]
    arguments += [
        "--fault",
        "restart@5:1",
        "--fault",
        "crash@10:1",
        "--fault",
        "scale@8:2",
        "--slowdowns",
        "1,4",
    ]
    arguments += [
        "--kv-events-ms",
        30,
        "--gossip-loss",
        0.1,
        "--scrape-interval-s",
        0,
        "--profile",
        "70b-4xh100",
    ]
    result = call(*arguments, "--host-tokens", 100000, "--speed", 3)
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)["results"]
    assert found["requests"] == 102 and found["failed"] > 0
    assert json.loads(result.stdout)["settings"]["tpot_slo_s"] == 0.1


def test_generated_traffic(config: Path) -> None:
    result = call("--config", config, "--generator", "zipf", "--calls", 50, "--model", "m")
    assert result.exit_code == 0 and "43 requests after the warm-up" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "one of --trace and --generator"),
        (["--generator", "zipf"], "--model must be one of m, other"),
        (["--generator", "zipf", "--model", "other"], "say how many with --replicas"),
        (["--generator", "zipf", "--model", "m", "--fault", "explode@1:1"], "is expected"),
        (["--generator", "zipf", "--model", "m", "--fault", "flush@1:9"], "there is no number 9"),
        (["--generator", "zipf", "--model", "m", "--slowdowns", "1,x"], "x"),
        (["--generator", "zipf", "--model", "m", "--slowdowns", "1,0"], "slowdown must be above 0"),
    ],
)
def test_what_cannot_be_done_is_said(config: Path, arguments: list[str], complaint: str) -> None:
    result = call("--config", config, *arguments)
    assert result.exit_code == 2
    assert complaint in result.output


def test_a_file_that_is_no_trace(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("hello")
    result = call("--config", config, "--trace", path, "--form", "mooncake")
    assert result.exit_code == 2 and "x.jsonl:1: no JSON" in result.output
    path.write_text("")
    result = call("--config", config, "--trace", path, "--form", "mooncake")
    assert result.exit_code == 2 and "there is no request in it" in result.output


def test_a_configuration_with_mistakes(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[models.m]\nstabel = 1\n")
    result = call("--config", path, "--generator", "zipf", "--calls", 5)
    assert result.exit_code == 2 and "stabel" in result.output


def test_requests_that_fit_nowhere(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"timestamp": 0, "input_length": 40_000, "output_length": 1, "hash_ids": []}))
    arguments = (
        "--config",
        config,
        "--trace",
        path,
        "--form",
        "mooncake",
        "--model",
        "m",
        "--profile",
        "8b-a10g",
    )
    result = call(*arguments)
    assert result.exit_code == 1 and "longer than a replica's memory" in result.output
    trace = [
        json.dumps(
            {"timestamp": n, "input_length": 40_000 if n == 5 else 10, "output_length": 1, "hash_ids": []}
        )
        for n in range(9)
    ]
    path.write_text("\n".join(trace))
    result = call(*arguments, "--html", tmp_path / "few.html")
    assert result.exit_code == 0, result.output
    assert "1 requests are longer than a replica's memory and were left out" in result.output


def test_files_of_one_name_are_told_apart(config: Path, trace: Path, tmp_path: Path) -> None:
    other = tmp_path / "next"
    other.mkdir()
    (other / config.name).write_text(config.read_text())
    result = call(
        "--config", config, "--against", other / config.name, "--trace", trace, "--model", "m", "--json"
    )
    names = [one["name"] for one in json.loads(result.stdout)["results"]]
    assert len(set(names)) == 2 and "next" in names[1]


def test_against_another_routers_rule_or_nobodys(config: Path, trace: Path) -> None:
    """A policy by its name, on the same fleet; a name that is none is not taken for a file."""
    arguments = ["--config", config, "--trace", trace, "--model", "m", "--json"]
    result = call(*arguments, "--against", "smg")
    assert result.exit_code == 0, result.output
    old, smg = json.loads(result.stdout)["results"]
    assert (old["name"], smg["name"]) == ("old: round_robin", "smg")
    assert smg["hit"] > old["hit"]
    result = call(*arguments, "--against", "smgg")
    assert result.exit_code == 2
    assert "no file 'smgg', and no policy; did you mean 'smg'?" in " ".join(result.output.split())
