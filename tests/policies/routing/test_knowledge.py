from random import Random

import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import Dispatched, Done, FirstToken, Prompt
from policies.routing.expected_latency import ExpectedLatency
from policies.routing.knowledge import Knowledge, Mirror, dumped, loaded
from tests.support.routing import NOW, FakeRequest, replicas


def policy() -> ExpectedLatency:
    return ExpectedLatency(ExpectedLatency.Options(cache_tokens=20_000), Random(1))


def prompt(number: int) -> Prompt:
    blocks = tuple(hash((number, part)) & (2**60 - 1) for part in range(20))
    return Prompt(blocks, 2_000, 100)


def test_a_dump_is_loaded_as_it_was() -> None:
    known = Knowledge(
        100.0,
        55.5,
        [0.1, 0.2, 0.3],
        [0.4, 0.5],
        [Mirror("a", 1e5, 1.1, [1, 2**60 - 1]), Mirror("b", 2e5, 1.0, [])],
    )
    again = loaded(dumped(known))
    assert again[:-1] == known[:-1]
    assert [(*one[:-1], list(one.blocks)) for one in again.mirrors] == [tuple(one) for one in known.mirrors]


@pytest.mark.parametrize("state", [b"", b"{}\n", b'["other", 1, 1, [], [], []]\n', b"[1]\nxxx", b"\xff\n"])
def test_what_is_no_dump_is_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match=r"knowledge"):
        loaded(state)


def test_a_cut_dump_is_refused() -> None:
    state = dumped(Knowledge(1.0, 1.0, [1], [1], [Mirror("a", 1.0, 1.0, [1, 2, 3])]))
    for size in (len(state) - 8, len(state) - 1):
        with pytest.raises(ValueError, match="knowledge"):
            loaded(state[:size])


def test_a_newcomer_with_a_dump_weighs_like_its_giver() -> None:
    """Same hits, same predicted seconds; what is under way it hears of otherwise."""
    giver, fleet = policy(), replicas(1, 1, 1)
    rng = Random(2)
    now = NOW
    for number in range(400):
        asked, replica = prompt(rng.randrange(60)), fleet[rng.randrange(3)]
        giver.observe(Dispatched(replica.id, number, now, asked))
        giver.observe(FirstToken(replica.id, number, now + 0.3))
        now += 1.0
        outcome = Outcome(Ending.COMPLETED, now - 1, now - 0.7, now, 2_000, None, 40)
        giver.observe(Done(replica.id, number, now, outcome))
    taker = policy()
    taker.load(giver.dump())
    for number in range(60):
        request = FakeRequest(None, prompt(number))
        mine, theirs = (each.weigh(request, fleet, now) for each in (taker, giver))
        for one, other in zip(mine, theirs, strict=True):
            assert one.terms["hit_tokens"] == other.terms["hit_tokens"]
            assert one.terms["prefill_s"] == pytest.approx(other.terms["prefill_s"], rel=0.1)


def test_what_is_known_already_is_kept() -> None:
    giver, taker = policy(), policy()
    fleet = replicas(1, 1)
    giver.observe(Dispatched(fleet[0].id, 1, NOW, prompt(1)))
    taker.observe(Dispatched(fleet[1].id, 2, NOW, prompt(2)))
    taker.load(giver.dump())
    hits = [
        [one.terms["hit_tokens"] for one in taker.weigh(FakeRequest(None, prompt(number)), fleet, NOW)]
        for number in (1, 2)
    ]
    assert hits == [[2_000, 0], [0, 2_000]]
