from random import Random

import pytest

from loadtest.engine.latency import LatencyModel
from loadtest.simulate.hardware import Hardware
from loadtest.simulate.oracle import Oracle
from loadtest.simulate.replica import VirtualReplica
from loadtest.simulate.sequence import VirtualSequence
from loadtest.simulate.timeline import Timeline
from loadtest.simulate.worker import Candidate, Facts
from policies.routing.events import Prompt

HARDWARE = Hardware(
    latency=LatencyModel(
        base_s=1.0, prefill_token_s=0.5, attention_pair_s=0, decode_s=0.0, context_token_s=0.0
    ),
    kv_tokens=4_000,
    host_tokens=8_000,
)
CANDIDATES = [Candidate("a", 1.0), Candidate("b", 1.0)]
PROMPT = Prompt((1, 2), 9, 4)


def fleet() -> tuple[Timeline, dict[str, VirtualReplica], Oracle]:
    timeline = Timeline()
    replicas = {name: VirtualReplica(name, HARDWARE, 4, timeline) for name in ("a", "b")}
    oracle = Oracle(Random(1), decode_weight=0.0)
    oracle.see(replicas)
    return timeline, replicas, oracle


def costs(oracle: Oracle) -> dict[str, float]:
    return {one.replica: one.cost for one in oracle.weigh(Facts(None, PROMPT), CANDIDATES, 0.0)}


def test_an_idle_fleet_costs_the_prefill_and_ties_go_by_chance() -> None:
    _, _, oracle = fleet()
    assert costs(oracle) == {"a": 4.5, "b": 4.5}
    chosen = [oracle.choose(Facts(None, PROMPT), CANDIDATES, 0.0).id for _ in range(200)]
    assert 70 < chosen.count("a") < 130


def test_it_sees_caches_the_tier_behind_them_and_the_queue() -> None:
    """a computed the prompt: one token is left. b is 2 s into a step of 11, and has 6 tokens to do after it."""
    timeline, replicas, oracle = fleet()
    replicas["a"].submit(VirtualSequence(0, 9, 1, (1, 2), 0.0))
    timeline.run()
    assert costs(oracle) == {"a": 0.5, "b": 4.5}
    replicas["a"].scheduler.cache.lose()
    replicas["a"].scheduler.tier.stored([1, 2], None, ())  # type: ignore[union-attr]
    assert costs(oracle)["a"] == pytest.approx(0.5 + 8 * 0.5 * 0.045)
    start = timeline.now
    replicas["b"].submit(VirtualSequence(1, 20, 1, (), start))
    timeline.at(start + 1.0, replicas["b"].submit, VirtualSequence(2, 6, 1, (), start + 1.0))
    timeline.at(start + 2.0, timeline.stop)
    timeline.run()
    terms = oracle.weigh(Facts(None, PROMPT), CANDIDATES, timeline.now)[1].terms
    assert terms["prefill_s"] == 4.5
    assert terms["queue_s"] == pytest.approx(9.0 + 6 * 0.5)


def test_a_request_without_a_prompt_is_placed_too() -> None:
    _, _, oracle = fleet()
    assert oracle.choose(Facts(None, None), CANDIDATES, 0.0).id in ("a", "b")
