"""Each peer on a hand-made case, decided as its own documentation or source says."""

from collections.abc import Sequence
from random import Random

import pytest

from loadtest.peers import PEERS
from policies.outcome import Ending, Outcome
from policies.routing.events import (
    BlocksRemoved,
    BlocksStored,
    Dispatched,
    Done,
    FirstToken,
    Forgotten,
    Prompt,
)
from policies.routing.policy import Policy
from tests.support.routing import NOW, FakeLoad, FakeReplica, FakeRequest

A, B, C = "a", "b", "c"
CACHE = 1e6


def prompt(*names: str, size: int = 10) -> Prompt:
    """`size` blocks of 100 tokens a name."""
    blocks = [hash((names[: at + 1], part)) & (2**60 - 1) for at in range(len(names)) for part in range(size)]
    return Prompt(tuple(blocks), 100 * len(blocks), 100)


class There:
    """A peer and three replicas."""

    def __init__(self, name: str) -> None:
        self.policy: Policy = PEERS[name](Random(1), CACHE)
        self.replicas = {each: FakeReplica(each, load=FakeLoad(0, 0, 0.0, CACHE)) for each in (A, B, C)}
        self._ticket = 0

    def send(
        self, replica: str, asked: Prompt, *, at: float = NOW, first: bool = True, done: bool = False
    ) -> None:
        self._ticket += 1
        self.policy.observe(Dispatched(replica, self._ticket, at, asked))
        self.replicas[replica].in_flight += 1
        if first or done:
            self.policy.observe(FirstToken(replica, self._ticket, at))
        if done:
            outcome = Outcome(Ending.COMPLETED, at, at, at, asked.tokens, 0, 100)
            self.policy.observe(Done(replica, self._ticket, at, outcome))
            self.replicas[replica].in_flight -= 1

    def choose(self, asked: Prompt, among: Sequence[str] = (A, B, C), session: str | None = None) -> str:
        candidates = [self.replicas[each] for each in among]
        return self.policy.choose(FakeRequest(session, asked), candidates, NOW).id


def test_cache_aware_follows_a_match_of_more_than_half() -> None:
    """vllm-router: cache_threshold 0.5."""
    there = There("vllm_router_cache_aware")
    there.send(B, prompt("system", "x"), done=True)
    assert there.choose(prompt("system", "x", "y")) == B
    there.send(A, prompt("other", "x"), done=True)
    assert there.choose(prompt("system", "p", "q")) == C, "a third is no match: the smallest tree"


def test_cache_aware_evens_out_when_loads_part() -> None:
    """vllm-router: more than 32 apart and 1.1 times."""
    there = There("vllm_router_cache_aware")
    there.send(B, prompt("system", "x"), done=True)
    there.replicas[B].in_flight, there.replicas[A].in_flight, there.replicas[C].in_flight = 40, 9, 8
    assert there.choose(prompt("system", "x")) == B
    there.replicas[B].in_flight = 41
    assert there.choose(prompt("system", "x")) == C


def test_smg_is_more_patient_and_sends_misses_to_the_least_loaded() -> None:
    """SMG: 64 and 1.5, threshold 0.3, misses to the fewest in flight."""
    there = There("smg_cache_aware")
    there.send(B, prompt("system", "x"), done=True)
    assert there.choose(prompt("system", "p", "q")) == B, "a third is a match"
    there.replicas[B].in_flight = 60
    assert there.choose(prompt("system", "x")) == B
    there.replicas[A].in_flight, there.replicas[C].in_flight = 2, 1
    assert there.choose(prompt("new")) == C


def test_lmetric_multiplies_tokens_by_the_batch() -> None:
    """1,000 uncached tokens times a batch of 4 is more than 2,000 times 1, less than 5,000 times 1."""
    there = There("lmetric")
    there.send(A, prompt("system", size=40), done=True)
    for _ in range(3):
        there.send(A, prompt("system", size=40))
    asked = Prompt(prompt("system", size=40).blocks + prompt("mine").blocks, 5_000, 100)
    assert there.choose(asked, (A, B)) == A
    for _ in range(3):
        there.send(A, prompt("system", size=40))
    assert there.choose(asked, (A, B)) == B


def test_gorgo_and_mooncake_count_what_is_queued() -> None:
    """GORGO the queued prompts in full, Mooncake's conductor what of them must be computed."""
    for name, chosen in (("gorgo", B), ("mooncake", A)):
        there = There(name)
        there.send(A, prompt("system", size=40), done=True)
        there.send(A, prompt("system", size=40), first=False)
        there.send(B, prompt("x", size=20), first=False)
        assert there.choose(prompt("new"), (A, B)) == chosen


def test_llm_d_adds_its_scores() -> None:
    """3 prefix + 2 queue + 2 KV: a whole match outweighs the longest queue, not queue and full memory together."""
    there = There("llm_d_default")
    there.send(A, prompt("system"), done=True)
    there.replicas[A].load = FakeLoad(8, 9, 0.0, CACHE)
    assert there.choose(prompt("system"), (A, B)) == A
    there.replicas[A].load = FakeLoad(8, 9, 0.9, CACHE)
    assert there.choose(prompt("system"), (A, B)) == B


def test_llm_d_affinity_filters_holders_unless_they_are_far_behind() -> None:
    """0.8 of the prompt; 18 s of prefill at 15,928 tokens/s are 286,704 tokens."""
    there = There("llm_d_affinity")
    there.send(A, prompt("system", "x", "y", "z"), done=True)
    asked = prompt("system", "x", "y", "z", "new")
    there.send(A, prompt("queued", size=2_800), first=False)
    assert there.choose(asked, (A, B)) == A
    there.send(A, prompt("more", size=100), first=False)
    assert there.choose(asked, (A, B)) == B


def test_dynamo_weighs_prefill_and_blocks_in_use_by_kv_events() -> None:
    """What was sent is not yet cached; what the engine stored is; shared blocks in use count once."""
    there = There("dynamo")
    there.send(A, prompt("system"), done=True)
    assert {there.choose(prompt("system"), (A, B)) for _ in range(40)} == {A, B}
    there.policy.observe(BlocksStored(A, NOW, prompt("system").blocks))
    assert there.choose(prompt("system"), (A, B)) == A
    there.send(A, prompt("busy", size=30))
    assert there.choose(prompt("system"), (A, B)) == B
    there.policy.observe(BlocksStored(B, NOW, prompt("system").blocks))
    there.policy.observe(BlocksRemoved(A, NOW, prompt("system").blocks))
    assert there.choose(prompt("system"), (A, B)) == B


def test_preble_exploits_more_than_half_and_redirects_the_overloaded() -> None:
    there = There("preble")
    there.send(A, prompt("system", "x"), done=True)
    assert there.choose(prompt("system", "x", "y"), (A, B)) == A
    assert there.choose(prompt("system", "p", "q"), (A, B)) == B, "a third is explored: the least load"
    for number in range(20):
        there.send(A, prompt(f"load {number}", size=50), done=True)
    assert there.choose(prompt("system", "x", "y"), (A, B)) == B


def test_preble_forgets_after_three_minutes() -> None:
    there = There("preble")
    for number in range(20):
        there.send(A, prompt(f"load {number}", size=50), done=True, at=NOW - 200)
    there.send(B, prompt("one"), done=True)
    assert there.choose(prompt("new"), (A, B)) == A


def test_aibrix_keeps_to_the_mean_and_one_deviation() -> None:
    """A match counts only below that; a spread of more than 8 sends to the least loaded."""
    there = There("aibrix")
    there.send(A, prompt("system"), done=True)
    there.replicas[A].in_flight, there.replicas[B].in_flight, there.replicas[C].in_flight = 4, 3, 2
    assert there.choose(prompt("system")) == C, "4 is more than 3 + 0.82"
    there.replicas[A].in_flight = 3
    assert there.choose(prompt("system")) == A
    there.replicas[B].in_flight = 12
    assert there.choose(prompt("system")) == C


def test_prefix_hash_is_steady_and_bounded() -> None:
    there = There("prefix_hash")
    home = there.choose(prompt("x"), session="s")
    assert all(there.choose(prompt(f"{n}"), session="s") == home for n in range(10))
    there.replicas[home].in_flight = 5
    assert there.choose(prompt("x"), session="s") != home
    assert there.choose(prompt("a", "b")) == there.choose(prompt("a", "c"))


@pytest.mark.parametrize("name", sorted(PEERS))
def test_a_restarted_replica_has_no_advantage(name: str) -> None:
    """Forgotten, and no metrics: every peer still chooses, and none by what was cached there."""
    there = There(name)
    there.send(A, prompt("system", "x"), done=True)
    there.policy.observe(BlocksStored(A, NOW, prompt("system", "x").blocks))
    there.policy.observe(Forgotten(A, NOW))
    for each in there.replicas.values():
        each.load = None
    chosen = {there.choose(prompt("system", "x"), session=f"{n}") for n in range(200)}
    assert chosen <= {A, B, C}
    assert len(chosen) > 1 or name in {"vllm_router_cache_aware", "preble"}
    weighed = there.policy.weigh(FakeRequest(None, prompt("q")), list(there.replicas.values()), NOW)
    assert [one.replica for one in weighed] == [A, B, C]
