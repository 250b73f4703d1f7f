import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.simulate.contestants import contestants
from loadtest.simulate.hardware import Hardware
from loadtest.simulate.job import INCIDENTS, Hopeless, Job, measure
from loadtest.simulate.pooled import pooled_hit_rate
from loadtest.simulate.results import Served, Slo
from loadtest.simulate.scenarios import SCENARIOS, TRACE_FILES, Library
from loadtest.simulate.setup import Setup, alike
from loadtest.simulate.workload import Call
from policies.routing.events import Prompt


def trace(path: Path, requests: int = 40) -> Path:
    rows = [
        json.dumps(
            {
                "timestamp": 3000 * (n // 10),
                "input_length": 1100,
                "output_length": 9,
                "hash_ids": [0, n % 4, n],
            }
        )
        for n in range(requests)
    ]
    text = "\n".join(rows).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    trace(tmp_path / "synthetic_trace.jsonl")
    library = Library(tmp_path)
    missing = {name: library.missing(scenario.source) for name, scenario in SCENARIOS.items()}
    assert {name for name, file in missing.items() if file} == {"conv8", "conv8mix", "agent8"}
    assert missing["conv8"] == "conversation_trace.jsonl"
    assert Library(None).missing("synthetic") == "synthetic_trace.jsonl"
    with pytest.raises(FileNotFoundError, match=r"conversation_trace\.jsonl"):
        library.workload("conversation", 0)


def test_a_trace_is_found_by_any_of_its_names_and_read_once(tmp_path: Path) -> None:
    """The conversation trace is spread inside its quantum, by the seed."""
    trace(tmp_path / "mooncake_conversation.jsonl.gz")
    library = Library(tmp_path, 20)
    work = library.workload("conversation", 1)
    assert len(work) == 20 and work is library.workload("conversation", 1)
    starts = [session.starts_s for session in work.sessions]
    assert len(set(starts)) == 20 and max(starts) > 3.5
    assert starts != [session.starts_s for session in library.workload("conversation", 2).sessions]


def test_agents_are_copied(tmp_path: Path) -> None:
    folder = tmp_path / "miniswe"
    folder.mkdir()
    (folder / "a.jsonl").write_text(json.dumps({"timestamp": 1, "input": "x" * 300, "output": "y"}))
    work = Library(tmp_path).workload("agent", 0)
    assert len(work.sessions) == 60
    assert len({tuple(session.calls[0].prompt.blocks) for session in work.sessions}) == 60


def test_every_source_can_be_had() -> None:
    known = {scenario.source for scenario in SCENARIOS.values()} - set(TRACE_FILES)
    for source in known:
        assert 100 <= len(Library(None, 100).workload(source, 0)) < 130
    for scenario in SCENARIOS.values():
        assert scenario.speeds[0] < scenario.speed < scenario.speeds[1]
        assert len(scenario.replicas) == 8


@pytest.mark.parametrize("incident", INCIDENTS)
def test_every_incident_can_happen(incident: str) -> None:
    job = Job(
        scenario="tool8", policy="least_requests", speed=2.0, incident=incident, workers=2, gossip_loss=0.1
    )
    answer = measure(job, Library(None, 400), contestants())
    assert 0 < answer.summary.requests < 400
    assert (answer.summary.failed > 0) is (incident == "worker killed")
    assert answer.pooled_hit is None


def test_a_job_has_its_contestants_way_of_looking_unless_it_says_otherwise() -> None:
    """The bound is asked for, and lies above what was found."""
    job = Job(scenario="gmi8", policy="least_requests", speed=1.0, pooled=True, scrape_interval_s=None)
    answer = measure(job, Library(None, 300), contestants())
    assert answer.pooled_hit is not None and answer.pooled_hit > answer.summary.hit > 0
    assert answer.summary.requests == pytest.approx(255, abs=5)


def test_the_pool_is_one_lru_of_all() -> None:
    """Two replicas of two blocks of 4 hold four: a, b, c, d; then e drives out the oldest."""

    def ask(at: int, block: int) -> Served:
        call = Call(Prompt((block,), 5, 4), 1)
        return Served(call, float(at), 5, 0, 1, "r", 0, 1, at, at, at, True)

    setup = Setup(replicas=alike(2, Hardware(kv_tokens=8)))
    warm_up = [ask(at, 90) for at in range(3)]
    asked = [*"abcdaeab", *"xxxxxxxxx"]
    served = warm_up + [ask(3 + at, ord(letter)) for at, letter in enumerate(asked)]
    # a, a found; b was driven out by e; of nine x eight are found.
    assert pooled_hit_rate(served, setup, 4) == pytest.approx(4 * (2 + 8) / (5 * 17))
    assert pooled_hit_rate([], setup, 4) == 0.0


def test_a_hopeless_run_is_cut_short_and_says_so() -> None:
    """A tenth of 1,000 and the warm-up may miss: 150 + 85; then the run may stop, never before."""
    job = Job(scenario="tool8", policy="random", speed=30.0)
    library = Library(None, 1000)
    whole = measure(job, library, contestants()).summary
    short = measure(replace(job, enough=0.9), library, contestants()).summary
    assert short.requests < 0.8 * whole.requests
    assert whole.goodput < 0.9 and short.goodput < 0.9
    easy = replace(job, speed=1.0)
    assert measure(easy, library, contestants()) == measure(replace(easy, enough=0.9), library, contestants())


def test_what_is_bearable() -> None:
    """Of 100 calls 15 are warm-up and 8.5 may miss besides: the 24th is too much."""
    watch = Hopeless(100, Slo(), 0.9)
    miss = Served(Call(Prompt((), 5, 4), 1), 0.0, 5, 0, 1, "r", 0, 1, 0.0, 9.0, 9.0, True)
    good = miss._replace(first_token_at=1.0, ended_at=1.0)
    assert not any(watch(one) for one in [miss, good] * 23)
    assert watch(miss)
