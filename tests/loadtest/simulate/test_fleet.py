from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from loadtest.simulate.asks import Ask, Conversation, Workload, chained, faster, open_loop, shortened
from loadtest.simulate.figures import Promise, figures, judged
from loadtest.simulate.fleet import Incident, Setting, Simulation
from loadtest.simulate.generators import GENERATORS, Shape
from loadtest.simulate.replica import HARDWARE
from policies.routing import POLICIES
from policies.routing.events import BlocksStored, Dispatched, Done, Event, FirstToken, Forgotten, Prompt
from policies.routing.plain import Plain
from policies.routing.policy import Policy, R, RequestFacts

HARD = HARDWARE["8b-h100"]


class Recorder(Plain):
    """Takes replicas in turn and notes what it hears."""

    learns = True

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.turn = 0

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        self.turn += 1
        return candidates[self.turn % len(candidates)]

    def observe(self, event: Event) -> None:
        self.heard.append(event)


def setting(count: int = 4, **changes: object) -> Setting:
    return Setting(hardware=HARD, slowdowns=(1.0,) * count, **changes)  # type: ignore[arg-type]


def policy(kind: str) -> Policy:
    made: Policy = POLICIES[kind](POLICIES[kind].Options(), Random(1))
    return made


def simulated(workload: Workload, kind: str = "least_requests", **changes: object) -> Simulation:
    return Simulation(workload, setting(**changes), lambda _: policy(kind)).run()  # type: ignore[arg-type]


def recorded(workload: Workload, **changes: object) -> tuple[Simulation, list[Recorder]]:
    made: list[Recorder] = []

    def make(_: Random) -> Policy:
        made.append(Recorder())
        return made[-1]

    return Simulation(workload, setting(**changes), make).run(), made  # type: ignore[arg-type]


TOOL = GENERATORS["tool"](Shape(400, 10.0, 3))


def test_every_request_is_answered_once() -> None:
    done = simulated(TOOL)
    assert len(done.records) == TOOL.requests == done.decisions
    assert all(record.ttft_s > 0 and record.ended_at >= record.asked_at for record in done.records)
    assert Counter(record.replica for record in done.records).keys() == {"r0", "r1", "r2", "r3"}
    for replica in done.replicas:
        assert replica.cache.free == replica.cache.num_blocks


def test_equal_seeds_give_equal_runs() -> None:
    one, other = (simulated(TOOL, "expected_latency", workers=3, gossip_loss=0.1) for _ in range(2))
    assert one.records == other.records


def test_a_policy_hears_the_whole_life_of_each_request() -> None:
    _, (heard,) = recorded(TOOL)
    kinds = Counter(type(event) for event in heard.heard)
    assert kinds == {Dispatched: TOOL.requests, FirstToken: TOOL.requests, Done: TOOL.requests}
    times = [event.at for event in heard.heard]
    assert times == sorted(times)
    done = next(event for event in heard.heard if isinstance(event, Done))
    assert done.outcome is not None
    assert done.outcome.prompt_tokens
    assert done.outcome.cached_tokens is not None


def test_workers_hear_of_each_other_later_or_never() -> None:
    _, told = recorded(TOOL, workers=2, gossip_s=0.02)
    assert [len(one.heard) for one in told] == [3 * TOOL.requests] * 2
    assert sum(one.turn for one in told) == TOOL.requests
    _, lossy = recorded(TOOL, workers=2, gossip_loss=0.5)
    assert all(3 * TOOL.requests * 0.6 < len(one.heard) < 3 * TOOL.requests * 0.9 for one in lossy)
    _, alone = recorded(TOOL, workers=2, gossip_s=None)
    assert sum(len(one.heard) for one in alone) == 3 * TOOL.requests


def test_a_killed_worker_loses_no_request() -> None:
    done, (killed, other) = recorded(TOOL, workers=2, killed_worker_at=10.0)
    assert len(done.records) == TOOL.requests
    assert killed.turn < other.turn


def test_a_restarted_replica_is_forgotten_and_its_requests_are_sent_again() -> None:
    done, (heard,) = recorded(TOOL, incidents=(Incident(15.0, "restart", 1),))
    assert len(done.records) == TOOL.requests
    assert [event for event in heard.heard if isinstance(event, Forgotten)] == [Forgotten("r1", 15.0)]
    again = [event for event in heard.heard if isinstance(event, Done) and event.outcome is None]
    assert 0 < len(again) == done.decisions - TOOL.requests


def test_a_replica_that_joins_serves_from_then_on() -> None:
    done = simulated(TOOL, count=3, incidents=(Incident(15.0, "join", 2),))
    joined = [record.asked_at for record in done.records if record.replica == "r2"]
    assert joined
    assert min(joined) >= 15.0


def test_cache_events_tell_what_engines_hold() -> None:
    _, (heard,) = recorded(TOOL, kv_events_s=0.03)
    stored = [event for event in heard.heard if isinstance(event, BlocksStored)]
    asked = {block for each in TOOL.conversations for block in each.turns[0].prompt.blocks}
    assert asked <= {block for event in stored for block in event.blocks}


def test_a_later_turn_follows_the_answer_before_it() -> None:
    first = Ask(1.0, Prompt(chained([1]), 600, 512), 50, "s")
    second = Ask(2.5, Prompt(chained([1, 2]), 1_100, 512), 10, "s")
    done = simulated(Workload("two", (Conversation((first, second)),), 512))
    one, two = done.records
    assert one.asked_at == 1.0
    assert two.asked_at == pytest.approx(one.ended_at + 2.5)
    assert two.cached_tokens in (0, 512)


def test_scrapes_are_as_old_as_they_are() -> None:
    ages: list[float] = []

    class Looks(Recorder):
        def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
            assert candidates[0].load is not None
            ages.append(now - candidates[0].load_at)
            return candidates[0]

    Simulation(shortened(TOOL, 0.3), setting(scrape_s=5.0), lambda _: Looks()).run()
    assert 2.5 < max(ages) < 5.0


def test_figures_are_those_of_the_requests_after_the_warm_up() -> None:
    done = simulated(TOOL)
    kept = judged(done.records)
    assert len(kept) == TOOL.requests - int(TOOL.requests * 0.15)
    found = figures(done.records, Promise(ttft_s=1e9, tpot_s=1e9))
    assert found.goodput == 1.0
    assert found.hit == sum(r.cached_tokens for r in kept) / sum(r.prompt_tokens for r in kept)
    assert found.ttft_p50_s <= found.ttft_p90_s <= found.ttft_p99_s
    assert figures(done.records, Promise(ttft_s=0.0)).goodput == 0.0


def test_the_default_policy_beats_least_requests_where_prefixes_are_shared() -> None:
    """Far fewer tokens computed, and first tokens in half the time."""
    workload = GENERATORS["tool"](Shape(1_500, 14.0, 2))
    ours, theirs = (
        figures(simulated(workload, kind).records, Promise())
        for kind in ("expected_latency", "least_requests")
    )
    assert ours.hit > 1.3 * theirs.hit
    assert ours.ttft_mean_s < 0.5 * theirs.ttft_mean_s


@pytest.mark.parametrize("name", ["no_reuse", "all_same"])
def test_the_default_policy_is_no_worse_where_there_is_nothing_to_gain(name: str) -> None:
    workload = GENERATORS[name](Shape(1_500, 30.0, 2))
    ours, theirs = (
        figures(simulated(workload, kind).records, Promise())
        for kind in ("expected_latency", "least_requests")
    )
    assert ours.ttft_mean_s < 1.05 * theirs.ttft_mean_s
    assert ours.tpot_p50_s < 1.05 * theirs.tpot_p50_s


@pytest.mark.parametrize("name", sorted(GENERATORS))
def test_generators_give_what_they_say(name: str) -> None:
    shape = Shape(600, 20.0, 5)
    workload = GENERATORS[name](shape)
    assert 0.9 * shape.requests <= workload.requests <= shape.requests
    assert workload == GENERATORS[name](shape)
    times = [each.turns[0].at for each in workload.conversations]
    assert times == sorted(times)
    unique = {block for each in workload.conversations for block in each.turns[0].prompt.blocks}
    total = sum(len(each.turns[0].prompt.blocks) for each in workload.conversations)
    reuse = 1 - len(unique) / total
    assert (reuse == 0) if name == "no_reuse" else (reuse > 0.9) if name == "all_same" else 0.2 < reuse < 0.99


def test_faster_is_denser_and_nothing_else() -> None:
    dense = faster(TOOL, 2.0)
    assert [each.turns[0].at for each in dense.conversations] == [
        each.turns[0].at / 2 for each in TOOL.conversations
    ]
    assert open_loop("x", [each.turns[0] for each in TOOL.conversations], 128).requests == TOOL.requests
