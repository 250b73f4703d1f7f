import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from loadtest.simulate.job import Job
from loadtest.simulate.pool import Bench, Pool
from loadtest.simulate.suite_command import bench_routing


def call(*arguments: object) -> Result:
    return CliRunner().invoke(
        bench_routing, [str(argument) for argument in arguments], env={"TURNOUT_TRACES": ""}
    )


def test_tables_and_verdicts(tmp_path: Path) -> None:
    """A generated workload, one process, two policies."""
    path = tmp_path / "tables.json"
    arguments = ["--subject", "session_affinity", "--policies", "random", "--scenarios", "tool8,conv8"]
    result = call(*arguments, "--quick", "--goals", "G5", "--processes", 1, "--json", path)
    assert result.exit_code == 0, result.output
    assert "left out: conv8, for want of conversation_trace.jsonl" in result.output
    assert "G5: hit rate" in result.output and "tool8: against the pool" in result.output
    (section,) = json.loads(path.read_text())["sections"]
    assert [row[0] for row in section["rows"]] == ["tool8"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--subject", "no_such"], "--subject: there is no 'no_such'"),
        (["--subject", "random", "--goals", "G3"], "--goals: there is no 'G3'"),
        (["--subject", "random", "--policies", "x"], "--policies: there is no 'x'"),
        (["--subject", "random", "--scenarios", "conv8"], "none of these scenarios has its trace"),
        (["--subject", "random", "--table", "nowhere.at.all:X"], "--table nowhere.at.all:X"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], complaint: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and complaint in result.output


def test_jobs_on_two_processes_are_answered_in_order_and_once() -> None:
    """A job that fails raises here what it raised there."""
    jobs = [Job(scenario="tool8", policy="random", speed=speed) for speed in (1.0, 2.0, 1.0)]
    told: list[int] = []
    with Pool(Bench(None, 200, ""), 2) as pool:
        answers = pool.answers(jobs, lambda: told.append(1))
        assert len(told) == 2 and answers[0] == answers[2] != answers[1]
        assert pool.answers(jobs[:1], lambda: told.append(1)) == answers[:1] and len(told) == 2
        with pytest.raises(FileNotFoundError, match="conversation_trace"):
            pool.answers([Job(scenario="conv8", policy="random", speed=1.0)], lambda: None)
