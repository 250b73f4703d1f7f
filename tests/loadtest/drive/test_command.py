"""The whole command, and a short comparison whose hits must agree. Its times are the machine's affair."""

from pathlib import Path
from random import Random

import pytest
import uvloop
from click.testing import CliRunner, Result

from loadtest.drive.agreement import HIT_POINTS
from loadtest.drive.command import drive_
from loadtest.drive.evidence import replayed
from loadtest.drive.run import Subject, drive
from loadtest.drive.scenario import drivable
from loadtest.simulate.contender import Contender, OfKind, run
from loadtest.simulate.generators import zipf
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.results import Slo
from loadtest.simulate.setup import Setup, alike
from router.config.model import Config

CONFIG = """
[models.m]
stable = "v1"
policy = "round_robin"
[models.m.versions.v1]
served_name = "m"
discover = { kind = "dns", host = "vllm.svc", port = 8000, engine = "vllm" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "turnout.toml"
    path.write_text(CONFIG)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(drive_, [str(argument) for argument in arguments])


def test_a_table_of_both_runs(config: Path) -> None:
    """Whether they agree is the machine's affair: it may be too slow for so quick engines."""
    result = call(
        "--config", config, "--generator", "same", "--calls", 12, "--replicas", 2, "--profile", "8b-h100"
    )
    assert result.exit_code in (0, 1), result.output
    assert "turnout: round_robin, 11 requests after the warm-up" in result.output
    assert "simulated and driven: " in result.output and "0 requests failed" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--replicas", 2], "one of --trace and --generator"),
        (["--generator", "zipf"], "say how many with --replicas"),
        (["--generator", "zipf", "--replicas", 2, "--model", "n"], "--model must be one of m"),
        (["--generator", "zipf", "--replicas", 2, "--slowdowns", "0"], "slowdown must be above 0"),
    ],
)
def test_what_cannot_be_done_is_said(config: Path, arguments: list[object], complaint: str) -> None:
    result = call("--config", config, *arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["round_robin", "expected_latency"])
def test_simulated_and_driven_hits_agree(policy: str) -> None:
    """Eight prefixes on four replicas four times as fast as an A10G, six calls a second for 20 s.

    What engines do must agree on any machine; what the router chose hangs on times, too.
    """
    setup = Setup(replicas=alike(4, HARDWARE["8b-a10g"], [0.25]))
    workload = drivable(zipf(120, Random(0), prefixes=8).faster(0.3), setup)
    contender, told = Contender(policy, OfKind(policy), setup), list[None]()
    simulated = run(contender, workload, Slo())
    subject = Subject(contender, Config(), policy)
    tried = uvloop.run(drive(subject, workload, Slo(), lambda: told.append(None)))
    driven = tried.result
    assert len(told) == len(driven.served) == 120 and not driven.summary.failed
    assert all(
        one.prompt_tokens == one.call.prompt.tokens and one.completion_tokens == one.call.completion_tokens
        for one in driven.served
    )
    again = replayed(contender, workload, Slo(), driven.served)
    assert 100 * abs(driven.summary.hit - again.summary.hit) <= HIT_POINTS
    if not tried.lateness.kept_up(setup.replicas[0].hardware.latency.base_s * setup.replicas[0].slowdown):
        pytest.skip("this machine did not keep real time: the router chose at other times")
    assert 100 * abs(driven.summary.hit - simulated.summary.hit) <= HIT_POINTS
