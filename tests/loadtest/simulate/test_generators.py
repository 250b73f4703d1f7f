from collections import Counter
from collections.abc import Iterable
from random import Random

import pytest

from loadtest.simulate.generators import (
    GENERATORS,
    all_the_same,
    drift,
    giant_tenant,
    gmi_like,
    no_reuse,
    tool,
    zipf,
)
from loadtest.simulate.transcript import Transcript
from loadtest.simulate.workload import Call, Workload


def reuse(calls: Iterable[Call]) -> float:
    """Share of all blocks that an earlier prompt, or its answer, had."""
    seen: set[int] = set()
    known = total = 0
    for call in calls:
        known += sum(block in seen for block in call.prompt.blocks)
        total += len(call.prompt.blocks)
        seen.update(call.answer or call.prompt.blocks)
    return known / total


def mean_tokens(work: Workload) -> tuple[float, float]:
    calls = list(work.calls)
    return (
        sum(call.prompt.tokens for call in calls) / len(calls),
        sum(call.completion_tokens for call in calls) / len(calls),
    )


@pytest.mark.parametrize("name", GENERATORS)
def test_as_many_as_asked_in_order_and_the_same_for_a_seed(name: str) -> None:
    generate = GENERATORS[name]
    work = generate(300, Random(1))
    assert 300 <= len(work) < 400
    starts = [session.starts_s for session in work.sessions]
    assert starts == sorted(starts)
    assert work == generate(300, Random(1)) and work != generate(300, Random(2))
    for call in work.calls:
        assert len(call.prompt.blocks) == call.prompt.tokens // work.block_tokens
        assert call.completion_tokens >= 1
        if call.answer:
            assert list(call.answer[: len(call.prompt.blocks)]) == list(call.prompt.blocks)


def test_tool() -> None:
    """Means and reuse of Mooncake's tool-and-agent trace, within a tenth."""
    work = tool(8000, Random(3))
    prompt, completion = mean_tokens(work)
    assert prompt == pytest.approx(7200, rel=0.1)
    assert completion == pytest.approx(135, rel=0.1)
    assert reuse(work.calls) == pytest.approx(0.82, abs=0.05)
    assert len(work) / len(work.sessions) == pytest.approx(2.2, rel=0.1)


def test_each_turn_extends_the_one_before_and_its_answer() -> None:
    for session in tool(500, Random(3)).sessions:
        for before, call in zip(session.calls, session.calls[1:], strict=False):
            assert list(call.prompt.blocks[: len(before.answer)]) == list(before.answer)
            assert call.prompt.tokens > before.prompt.tokens + before.completion_tokens


def test_drift_moves_the_popular_heads() -> None:
    """Without drift the first and the last five minutes have their commonest tool in common."""

    def favourite(work: Workload, start_s: float, end_s: float) -> int:
        heads = Counter(s.calls[0].prompt.blocks[0] for s in work.sessions if start_s <= s.starts_s < end_s)
        return heads.most_common(1)[0][0]

    moving, still = drift(6000, Random(3)), tool(6000, Random(3))
    assert favourite(moving, 0, 300) != favourite(moving, 300, 600)
    assert favourite(still, 0, 300) == favourite(still, 300, 600)


def test_gmi_like() -> None:
    work = gmi_like(8000, Random(3))
    prompt, completion = mean_tokens(work)
    assert prompt == pytest.approx(2095, rel=0.1)
    assert completion == pytest.approx(147, rel=0.1)
    assert reuse(work.calls) == pytest.approx(0.61, abs=0.05)


def test_zipf() -> None:
    """Rank 0 of 1,000 by Zipf(1) has 1 / 7.49 of all."""
    work = zipf(6000, Random(3))
    heads = Counter(call.prompt.blocks[0] for call in work.calls)
    assert heads.most_common(1)[0][1] / 6000 == pytest.approx(1 / 7.485, rel=0.1)
    assert all(call.prompt.tokens == 2560 for call in work.calls)


def test_giant_tenant() -> None:
    work = giant_tenant(4000, Random(3))
    tenants = Counter(session.name for session in work.sessions)
    assert tenants.most_common(1)[0][1] / 4000 == pytest.approx(0.7, abs=0.03)
    assert 150 < len(tenants) <= 201
    assert len({session.calls[0].prompt.blocks[0] for session in work.sessions}) == len(tenants)


def test_no_reuse_and_all_the_same() -> None:
    assert reuse(no_reuse(500, Random(3)).calls) == 0.0
    assert len({call.prompt for call in all_the_same(500, Random(3)).calls}) == 1


def test_a_transcript_is_equal_as_far_as_its_pieces_are() -> None:
    """Pieces of 100 and 60 tokens: the block that both lie in differs where the second one does."""
    texts = [Transcript(64) for _ in range(3)]
    for text, second in zip(texts, (7, 7, 8), strict=True):
        text.append(5, 100)
        text.append(second, 60)
    one, same, other = (text.prompt for text in texts)
    assert one == same and one.tokens == 160 and len(one.blocks) == 2
    assert one.blocks[0] == other.blocks[0] and one.blocks[1] != other.blocks[1]
