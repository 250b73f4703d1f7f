"""A whole interleaved run, in small: simulated engines behind a stand-in for vLLM's command."""

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.bench.candidates import Candidate, candidates_named
from loadtest.bench.processes import StartError, ask
from loadtest.real_vllm.fleet import Fleet, counters, fleet_running, flush
from loadtest.real_vllm.run import Plan, measure, rotated, turns_of
from loadtest.real_vllm.workloads import Conversations, SharedPrompts

STAND_IN = f"""#!/bin/sh
test "$1" = serve || exit 3
while [ "$1" != --port ]; do shift; done
exec {sys.executable} -m loadtest.engine.command vllm --port "$2" --model m --speed 50 \
  --block-size 32 --num-blocks 400 --set enable_prompt_tokens_details=true
"""
CHAT = Conversations("chat", "", clients=1, sessions=1, turns_each=16, message_words=(100, 140))
SHARED = SharedPrompts("shared", "", 2, 3, prompt_words=200, exponent=1, requests=16, question_words=(9, 12))
QUESTION = (
    b'{"model":"m","max_tokens":2,"messages":[{"role":"user","content":"' + b"how far is it " * 40 + b'"}]}'
)


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    path = tmp_path / "vllm"
    path.write_text(STAND_IN)
    path.chmod(0o755)
    return path


def plan_with(vllm: Path, *candidates: Candidate, rounds: int = 1) -> Plan:
    fleet = Fleet(vllm, vllm.with_name("model"), replicas=2)
    return Plan((CHAT, SHARED), candidates, rounds, vllm.with_name("peers"), fleet, seed=1)


def test_candidates_are_measured_in_front_of_the_same_replicas(vllm: Path) -> None:
    """All requests arrive, the following policy finds more than the blind one, a broken candidate is named."""
    names = ("turnout:prefix_affinity", "turnout:expected_latency", "turnout:round_robin")
    candidates = candidates_named(",".join(names))
    broken = Candidate("broken", lambda launch: ["/no/such/program"], "/health")
    advanced: list[None] = []
    results = measure(plan_with(vllm, *candidates, broken), lambda text: None, lambda: advanced.append(None))
    figures = {(sample.workload, sample.candidate): sample.figures for sample in results.samples}
    assert len(figures) == 6
    assert list(results.skipped) == ["broken"]
    assert len(advanced) == 8
    assert all(sum(one.requests) == 16 and not one.errors for one in figures.values())
    assert all(0 <= one.hit_share <= one.endless_share + 0.05 for one in figures.values())
    # One conversation, turn after turn: round robin never has two of them in the same place.
    following, learning, blind = (figures["chat", name] for name in names)
    assert following.hit_share > blind.hit_share
    assert learning.forecast is not None and learning.forecast.reported > 0
    assert blind.forecast is None


def test_flushed_replicas_hold_nothing(vllm: Path) -> None:
    """The same prompt is found the second time, and not after a flush."""
    with fleet_running(Fleet(vllm, vllm, replicas=1), lambda text: None) as ports:
        hits = []
        for before in (flush, None, flush):
            if before:
                before(ports)
            (early,) = counters(ports)
            assert ask(ports[0], "POST", "/v1/chat/completions", QUESTION)[0] == 200
            hits.append(counters(ports)[0].since(early).hit)
    assert hits[1] > 0
    assert hits == [0, hits[1], 0]


def test_a_vllm_that_ends_says_its_last_words(tmp_path: Path) -> None:
    """Its code and its log; and one that is not there is named."""
    path = tmp_path / "vllm"
    with (
        pytest.raises(StartError, match="vllm: No such file or directory"),
        fleet_running(Fleet(path, tmp_path), lambda text: None),
    ):
        pass
    path.write_text("#!/bin/sh\necho no kernel for this; exit 4\n")
    path.chmod(0o755)
    with (
        pytest.raises(StartError, match="ended with 4:\nno kernel for this"),
        fleet_running(Fleet(path, tmp_path), lambda text: None),
    ):
        pass


def test_each_candidate_has_every_place_in_the_order() -> None:
    """Over as many rounds as there are candidates, under each workload."""
    plan = plan_with(Path("vllm"), *candidates_named("turnout:round_robin,vllm-router,nginx"), rounds=4)
    turns = list(turns_of(plan))
    assert len(set(turns)) == len(turns) == 4 * 2 * 4
    firsts = Counter((workload.name, candidate.name) for _, workload, candidate in turns[::4])
    assert set(firsts.values()) == {1}
    assert list(turns_of(replace(plan, candidates=()))) == []


def test_rotated_begins_elsewhere_in_the_same_circle() -> None:
    """Also further than once around."""
    assert [rotated("abc", by) for by in (0, 1, 5)] == [list("abc"), list("bca"), list("cab")]
