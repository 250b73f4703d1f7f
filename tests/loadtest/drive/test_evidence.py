from dataclasses import replace
from random import Random

import pytest

from loadtest.drive.evidence import Choices, Evidence, Spread, by_chance, replayed
from loadtest.drive.pace import Lateness
from loadtest.drive.run import Driven
from loadtest.simulate.contender import Contender, OfKind, Result, run
from loadtest.simulate.generators import all_the_same, gmi_like
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.results import Slo
from loadtest.simulate.setup import Setup, alike
from loadtest.simulate.worker import Candidate, Facts

CONTENDER = Contender("c", OfKind("random"), Setup(replicas=alike(3, HARDWARE["8b-a10g"]), seed=5))
WORK = gmi_like(60, Random(0)).faster(0.5)


@pytest.fixture(scope="module")
def original() -> Result:
    """It stands for a driven run: what is replayed has no chance of its own."""
    return run(CONTENDER, WORK, Slo())


def evidence(of: Result, again: Result) -> Evidence:
    return Evidence(of, Driven(of, Lateness(1, 0.0, 0.0, 0.0, 0), 0.0), again, Spread((0, 1), (0, 1)))


def test_a_replay_does_what_the_other_run_did(original: Result) -> None:
    other_dice = replace(CONTENDER, setup=replace(CONTENDER.setup, seed=99))
    again = replayed(other_dice, WORK, Slo(), original.served)
    assert again.summary == original.summary
    assert evidence(original, again).equally_cached == len(WORK)
    assert run(other_dice, WORK, Slo()).summary != original.summary


def test_other_cached_tokens_are_counted(original: Result) -> None:
    first, *others = original.served
    changed = replace(original, served=[first._replace(cached_tokens=first.cached_tokens + 1), *others])
    assert evidence(original, changed).equally_cached == len(WORK) - 1


def test_equal_prompts_go_in_the_order_of_the_other_run() -> None:
    work = all_the_same(6, Random(0))
    served = run(CONTENDER, work, Slo()).served
    choices, candidates = Choices(served), [Candidate(f"r{n}", 1.0) for n in range(3)]
    facts = Facts(None, served[0].call.prompt)
    assert [choices.choose(facts, candidates, 0.0).id for _ in served] == [one.replica for one in served]
    assert choices.choose(facts, candidates, 0.0).id == "r0"


def test_chance_moves_the_figures_around_the_simulations_own(original: Result) -> None:
    spread = by_chance(CONTENDER, WORK, Slo(), runs=8)
    assert spread.hit[0] < spread.hit[1] and spread.ttft_p50_s[0] < spread.ttft_p50_s[1]
    assert spread.hit[0] - 0.1 < original.summary.hit < spread.hit[1] + 0.1
