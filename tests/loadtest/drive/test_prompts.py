from collections.abc import Sequence
from itertools import combinations
from random import Random

import msgspec
import pytest

from loadtest.drive.prompts import Wording, bodies_of
from loadtest.engine.kv_cache import chain_hash
from loadtest.engine.tokens import encode
from loadtest.simulate.generators import gmi_like, no_reuse, zipf
from loadtest.simulate.workload import Call, Session, Workload
from policies.routing.events import Prompt
from router.fleet.prompts import BLOCK_BYTES, PromptHasher


def common(one: Sequence[object], other: Sequence[object]) -> int:
    """How many are alike from the start."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return same.index(False) if False in same else len(same)


def chain(tokens: Sequence[int], size: int) -> list[int]:
    """The hashes that an engine with blocks of this size would find these tokens by."""
    hashes = [0]
    for begin in range(0, len(tokens) - size + 1, size):
        hashes.append(chain_hash(hashes[-1], tokens[begin : begin + size]))
    return hashes[1:]


@pytest.fixture(scope="module")
def workload() -> Workload:
    """Sessions over popular system prompts, and a copy of each that shares nothing with it."""
    return gmi_like(30, Random(3)).copied(2, 1.0, Random(4))


def test_lengths_are_those_of_the_workload(workload: Workload) -> None:
    wording = Wording(workload.block_tokens)
    for call in workload.calls:
        question = wording.question(call)
        assert len(encode(question.prompt)) == call.prompt.tokens
        assert question.answer is not None
        assert len(encode(question.answer)) == call.completion_tokens


def test_engines_share_exactly_the_blocks_whose_hashes_are_shared(workload: Workload) -> None:
    size, wording = workload.block_tokens, Wording(workload.block_tokens)
    calls = list(workload.calls)
    chains = [chain(encode(wording.question(call).prompt), size) for call in calls]
    shared = [
        (common(one.prompt.blocks, other.prompt.blocks), common(chains[a], chains[b]))
        for (a, one), (b, other) in combinations(enumerate(calls), 2)
    ]
    assert len({hashes for hashes, _ in shared}) > 3
    assert all(hashes == blocks for hashes, blocks in shared)


def test_the_next_turn_begins_with_the_answer(workload: Workload) -> None:
    size, wording = workload.block_tokens, Wording(workload.block_tokens)
    followed = 0
    for session in workload.sessions:
        questions = [wording.question(call) for call in session.calls]
        for call, before, after in zip(session.calls, questions, questions[1:], strict=False):
            cached = chain(encode(before.prompt + (before.answer or "")), size)
            assert common(cached, chain(encode(after.prompt), size)) == len(call.answer)
            followed += len(call.answer) > len(call.prompt.blocks)
    assert followed


def test_a_router_sees_what_is_shared_in_its_own_blocks() -> None:
    work = zipf(40, Random(1), prefixes=4)
    wording, hasher = Wording(work.block_tokens), PromptHasher(b"key", "m", "v1")
    calls = list(work.calls)
    texts = [wording.question(call).prompt for call in calls]
    for (a, one), (b, other) in combinations(enumerate(calls), 2):
        bytes_shared = common(texts[a].encode(), texts[b].encode())
        seen = common(hasher.hashed(texts[a]).blocks, hasher.hashed(texts[b]).blocks)
        assert seen == bytes_shared // BLOCK_BYTES
        assert (seen > 0) is (common(one.prompt.blocks, other.prompt.blocks) > 0)


def test_what_has_no_hash_is_nobody_elses() -> None:
    call = Call(Prompt((), 20, 128), 5)
    one, other = bodies_of(Workload("w", [Session(0.0, [call, call])], 128), "m")[0]
    assert one != other


def test_an_unknown_answer_is_left_to_the_engine() -> None:
    ((body,), *_) = bodies_of(no_reuse(1, Random(0)), "m")
    document = msgspec.json.decode(body)
    assert document["ignore_eos"] is True and document["stream"] is True
    assert "structured_outputs" not in document


def test_a_known_answer_is_ordered(workload: Workload) -> None:
    document = msgspec.json.decode(bodies_of(workload, "m")[0][0])
    (answer,) = document["structured_outputs"]["choice"]
    assert document["max_tokens"] == len(encode(answer)) == workload.sessions[0].calls[0].completion_tokens
