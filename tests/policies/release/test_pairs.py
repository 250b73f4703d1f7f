"""Pairs of answers: what counts as a difference, and what the running summary remembers of many."""

from dataclasses import replace
from random import Random

import pytest

from policies.release.pairs import MAX_EXAMPLES, Agreement, Answered, Pair, Summary, agreement, judged

GOOD = Answered(
    status=200,
    finish_reason="stop",
    prompt_tokens=12,
    output_tokens=30,
    time_to_first_token_s=0.1,
    inter_token_s=0.02,
)


def pair(
    copy: Answered = GOOD, *, served: Answered = GOOD, texts: Agreement | None = None, at: float = 1
) -> Pair:
    return Pair(f"r-{at:g}", at, served, copy, texts)


def differing(one: Pair) -> set[str]:
    return {difference.value for difference, differs in judged(one) if differs}


def test_equal_answers_do_not_differ() -> None:
    assert differing(pair(texts=Agreement(10, 10))) == set()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"status": 400}, {"status"}),
        ({"finish_reason": "length"}, {"finish_reason"}),
        ({"prompt_tokens": 14}, {"prompt_tokens"}),
        ({"prompt_tokens": None}, set()),
        # Sampled answers are of any length.
        ({"output_tokens": 300}, set()),
        ({"time_to_first_token_s": 9.0, "inter_token_s": 9.0}, set()),
    ],
)
def test_what_differs_is_named(change: dict[str, object], expected: set[str]) -> None:
    assert differing(pair(replace(GOOD, **change))) == expected


def test_greedy_answers_are_to_be_the_same_in_text_and_length() -> None:
    longer = replace(GOOD, output_tokens=31)
    assert differing(pair(longer, texts=Agreement(4, 9))) == {"text", "output_tokens"}


def test_an_error_is_compared_by_its_status_alone() -> None:
    """There is nothing else to compare, also where both are errors."""
    bad = Answered(status=400)
    assert [difference.value for difference, _ in judged(pair(bad, served=bad))] == ["status"]


@pytest.mark.parametrize(
    ("one", "other", "common", "compared"),
    [
        ("", "", 0, 0),
        ("abc", "abc", 3, 3),
        ("abc", "abd", 2, 3),
        ("abc", "abcde", 3, 5),
        ("xbc", "abc", 0, 3),
        ("abc", "", 0, 3),
        ("naïve ☃", "naïve ☂", 6, 7),
    ],
)
def test_agreement_is_the_common_beginning(one: str, other: str, common: int, compared: int) -> None:
    assert agreement(one, other) == agreement(other, one) == (common, compared)
    assert agreement(one, other).equal == (one == other)


def test_agreement_of_any_texts_is_what_a_plain_loop_says() -> None:
    random = Random(4)
    for _ in range(300):
        texts = ["".join(random.choices("ab", k=random.randrange(12))) for _ in range(2)]
        loop = next(
            (at for at, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts))
        )
        assert agreement(*texts).common == loop


def test_a_text_of_which_the_end_is_not_known_is_judged_by_what_is() -> None:
    assert agreement("abc", "abcde", cut=True).equal
    assert not agreement("abx", "abcde", cut=True).equal


def test_medians_are_of_the_ratios_of_pairs() -> None:
    """Not ratios of medians: each pair has the same prompt."""
    summary = Summary()
    for at, (served, copy) in enumerate([(0.1, 0.2), (1.0, 2.0), (5.0, 10.0)]):
        one = pair(
            replace(GOOD, time_to_first_token_s=copy), served=replace(GOOD, time_to_first_token_s=served)
        )
        summary.add(replace(one, at=at))
    measure = summary.measures["time_to_first_token_s"]
    assert measure.ratio.quantile(0.5) == pytest.approx(2.0, rel=0.02)
    assert measure.served.quantile(0.5) == pytest.approx(1.0, rel=0.02)
    assert measure.copy.quantile(0.5) == pytest.approx(2.0, rel=0.02)


def test_a_time_that_nobody_knows_is_left_out() -> None:
    summary = Summary()
    summary.add(pair(replace(GOOD, inter_token_s=None)))
    summary.add(pair(replace(GOOD, status=500)))
    assert summary.measures["inter_token_s"].ratio.total == 0
    assert summary.measures["time_to_first_token_s"].ratio.total == 1


def test_the_last_differing_pairs_are_kept_and_say_in_what() -> None:
    summary = Summary()
    for at in range(100):
        summary.add(pair(replace(GOOD, prompt_tokens=12 + at % 2), at=at, texts=Agreement(3, 3)))
    assert (summary.pairs, summary.judged["prompt_tokens"], summary.differing) == (
        100,
        100,
        {"prompt_tokens": 50},
    )
    assert [example.at for example in summary.examples] == list(range(61, 100, 2))
    assert summary.examples[-1].request_id == "r-99"
    assert summary.examples[-1].detail == "prompt_tokens 12, 13 by the copy"
    assert summary.agreed == 100


def test_what_two_processes_saw_adds_up() -> None:
    """And of their examples the last of all are kept."""
    whole, halves = Summary(), [Summary(), Summary()]
    for at in range(80):
        one = pair(
            replace(GOOD, inter_token_s=0.001 * (at + 1), finish_reason="length"),
            at=at,
            texts=Agreement(at, 79),
        )
        whole.add(one)
        halves[at % 2].add(one)
    halves[0].merge(halves[1])
    assert halves[0].agreed == pytest.approx(whole.agreed)
    halves[0].agreed = whole.agreed
    assert halves[0] == whole
    assert len(whole.examples) == MAX_EXAMPLES
