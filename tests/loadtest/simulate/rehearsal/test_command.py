"""`turnout simulate --release`: tables, JSON, the page, and what it refuses."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtest.simulate.command import simulate
from tests.support.rehearsing import CONFIG


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "turnout.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """An access log: sessions of two requests."""
    rows = [
        {
            "time": f"2025-05-01T10:{n // 600:02}:{n // 10 % 60:02}.{n % 10}00+00:00",
            "session": f"s{n // 2}",
            "prompt_tokens": 60,
            "completion_tokens": 6 + n % 7,
        }
        for n in range(400)
    ]
    path = tmp_path / "access.log"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(simulate, [str(argument) for argument in arguments])


def failing(config: Path, trace: Path, *more: object) -> Result:
    return call(
        "--config", config, "--trace", trace, "--profile", "8b-a10g", "--release", "m@v2",
        "--defect", "errors=0.5", *more,
    )  # fmt: skip


def test_the_table_says_what_becomes_of_it_and_why(config: Path, trace: Path) -> None:
    result = failing(config, trace)
    assert result.exit_code == 0, result.output
    first = " ".join(result.output.split())
    assert re.search(r"v2 is rolled back after 0:\d\d and \d+ requests of its own, at 20 %: errors: ", first)
    assert "clients saw 0 errors in" in result.output and "that had failed at v2" in result.output
    assert "m: v2 instead of v1, errors=0.5" in result.output
    assert re.search(r"│ +0:00 │ start +│ +20 % │ +0 │ +0 │", result.output)
    assert re.search(r"│ +0:\d\d │ rollback +│ +0 % │", result.output)


def test_json_says_the_same(config: Path, trace: Path) -> None:
    result = failing(config, trace, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    release = document["release"]
    assert (release["model"], release["stable"], release["version"]) == ("m", "v1", "v2")
    assert (release["phase"], release["decided"], release["percent"]) == ("rolled_back", True, 20)
    assert release["defects"]["errors"] == 0.5 and release["defects"]["slow"] == 1
    start, end = release["moves"]
    assert (start["verb"], start["at_s"], start["weights"]) == ("start", 0, {"v1": 80, "v2": 20})
    assert (end["verb"], end["weights"]) == ("rollback", {"v1": 100, "v2": 0})
    assert end["at_s"] == release["ended_s"] and end["reason"] == release["reason"]
    assert end["canary_requests"] == release["canary_requests"] < 60
    assert release["covered"] > 0 and release["errors"] == {"v1": 0, "v2": 0}
    error = next(one for one in release["evidence"] if one["metric"] == "error")
    assert error["log_e"] >= error["threshold"] or "in a row" in release["reason"]
    assert [one["name"] for one in document["results"]] == ["v1", "v2"]
    assert document["settings"]["release"] == "m@v2" and len(document["sentences"]) == 3
    assert failing(config, trace, "--json").stdout == result.stdout


def test_a_page_with_the_decision_marked(config: Path, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = failing(config, trace, "--html", path)
    assert result.exit_code == 0, result.output
    text = path.read_text()
    assert text.count("<svg") == 5
    assert "What becomes of the release" in text and "Where each wins" not in text
    assert re.search(r'<text class="mark" [^>]*>rolled back</text>', text)
    assert not re.search(r"(src|href)=|@import|https?://", text)


def test_a_trace_that_ends_first(config: Path, trace: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result = call(
        "--config", config, "--trace", trace, "--profile", "8b-a10g", "--release", "m@v2", "--calls", 100,
        "--html", path,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    line = " ".join(result.output.split())
    assert line.startswith("the trace ends before a decision, ")
    assert re.search(r"the next move still needs: \d+ of 100 requests of the canary at this step", line)
    assert 'class="mark" x=' not in path.read_text().split("Time to first token")[0]


def test_replicas_that_only_the_command_line_says(config: Path, trace: Path) -> None:
    config.write_text(CONFIG.replace('id = "v2-', 'id = "other-'))
    result = failing(config, trace, "--replicas", 1, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["release"]["phase"] == "rolled_back"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--defect", "errors=0.1"], "say which with --release MODEL@VERSION"),
        (["--release", "m@v2", "--against", "random"], "rehearse a release without it"),
        (["--release", "m@v2", "--model", "n"], "leave --model n out"),
        (["--release", "m@v9"], "there is no version 'v9'; there are: v1, v2"),
        (["--release", "m@v2", "--defect", "error=1"], "did you mean 'errors'?"),
        (["--release", "m@v2", "--release-at-s", "999"], "begin before 39.9 s"),
    ],
)
def test_what_cannot_be_rehearsed_is_said(
    config: Path, trace: Path, arguments: list[str], complaint: str
) -> None:
    result = call("--config", config, "--trace", trace, *arguments)
    assert result.exit_code == 2
    assert complaint in " ".join(result.output.replace("│", " ").split())
