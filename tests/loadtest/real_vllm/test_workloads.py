"""The texts of the workloads: who says what, how much is shared, and how it compares with the caches."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest

from loadtest.real_vllm.fleet import Fleet
from loadtest.real_vllm.workloads import (
    WORKLOADS,
    Conversations,
    SharedPrompts,
    Turn,
    Workload,
    workloads_named,
)

CHAT = Conversations("c", "", clients=3, sessions=12, turns_each=4, message_words=(5, 9))
SHARED = SharedPrompts(
    "s", "", 4, prompts=5, prompt_words=30, exponent=1.0, requests=400, question_words=(2, 6)
)


def everything(workload: Workload, seed: int = 1) -> list[Turn]:
    return [turn for client in workload.turns(Random(seed)) for turn in client]


@pytest.mark.parametrize("workload", [CHAT, SHARED], ids=["chat", "shared"])
def test_equal_seeds_make_equal_texts_and_others_others(workload: Workload) -> None:
    """All candidates of a round get the same; the next round is new to every cache."""
    assert workload.turns(Random(1)) == workload.turns(Random(1))
    first, second = (
        {message.content for turn in everything(workload, seed) for message in turn.said} for seed in (1, 2)
    )
    assert not first & second


@pytest.mark.parametrize("workload", [CHAT, SHARED, *WORKLOADS], ids=["chat", "shared", "CHAT", "SHARED"])
def test_a_session_is_one_client_s(workload: Workload) -> None:
    """Two clients would race for what its history is."""
    clients = [{turn.session for turn in client} for client in workload.turns(Random(1))]
    assert sum(map(len, clients)) == len(set().union(*clients))
    assert min(map(len, clients)) > 0


def test_every_conversation_has_all_its_turns() -> None:
    """Each turn is one message of the user, of a length within the bounds."""
    turns = everything(CHAT)
    assert Counter(turn.session for turn in turns) == dict.fromkeys(range(12), 4)
    assert {len(turn.said) for turn in turns} == {1}
    lengths = {len(message.content.split()) for turn in turns for message in turn.said}
    assert lengths == set(range(5, 10))


def test_conversations_do_not_take_turns_in_a_fixed_order() -> None:
    """Else `round_robin` would meet the same session on the same replica, by chance of the numbers."""
    sessions = [turn.session for turn in CHAT.turns(Random(1))[0]]
    orders = {tuple(sessions[begin : begin + 4]) for begin in range(0, len(sessions), 4)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(sessions)}


def test_system_prompts_are_shared_by_zipf_s_law_and_questions_are_not() -> None:
    """400 draws of 5: the first is expected 175 times, the fifth 35 times."""
    turns = everything(SHARED)
    drawn = Counter(turn.said[0].content for turn in turns)
    most, *_, least = (count for _, count in drawn.most_common())
    assert len(drawn) == 5
    assert 2.5 < most / least < 10
    assert len({turn.said[1].content for turn in turns}) > 0.99 * len(turns)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_one_cache_holds_about_a_third(workload: Workload) -> None:
    """Where every replica holds everything, it does not matter where a request goes."""
    fleet = Fleet(Path("vllm"), Path("model"))
    texts = {(turn.session, said) for turn in everything(workload) for said in turn.said}
    shared = {said: None for _, said in texts}
    needed = sum(len(said.content.split()) for said in shared)
    assert 2.5 < needed / (fleet.blocks * fleet.block_tokens) < 3.6
    assert needed < fleet.replicas * fleet.blocks * fleet.block_tokens


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_smaller_is_a_fraction(workload: Workload) -> None:
    """Of the same kind, with every client busy."""
    small = workload.smaller()
    assert type(small) is type(workload)
    assert 0 < len(everything(small)) <= len(everything(workload)) / 4
    assert all(small.turns(Random(1)))


def test_workloads_are_found_by_name() -> None:
    """In the table's order; another name is refused with what there is."""
    assert workloads_named("shared, chat") == tuple(WORKLOADS)
    with pytest.raises(ValueError, match="unknown workload 'tools'; there are chat, shared"):
        workloads_named("chat,tools")
