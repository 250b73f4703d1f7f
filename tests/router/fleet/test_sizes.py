"""Estimates of what a request costs: by its prompt, by what it may, and by what answers were like of late."""

import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import Prompt
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.fleet.sizes import RequestSizes

HEADERS = {"content-type": "application/json"}


def request(members: str = "", text: str = "hi") -> InferenceRequest:
    body = f'{{"model":"m","prompt":"{text}"{members}}}'
    return read_request(Endpoint.COMPLETIONS, "id", HEADERS, body.encode(), RequestRules())


def answered(tokens: int | None) -> Outcome:
    return Outcome(Ending.COMPLETED, 0.0, 1.0, 2.0, completion_tokens=tokens)


def answer_tokens(sizes: RequestSizes, members: str = "") -> int:
    return sizes.total(request(members), Prompt((), 0, 16.0))


def test_a_prompt_is_as_long_as_it_is_known() -> None:
    """By the policy's count where there is one, else by its bytes."""
    sizes = RequestSizes()
    one = request(',"max_tokens":1', text="a" * 4_000)
    assert sizes.total(one, Prompt((), 5_000, 16.0)) == 5_001
    assert sizes.total(one, None) == pytest.approx(1_000, rel=0.02)


def test_an_answer_is_as_long_as_others_were() -> None:
    """If it may be; and for each choice."""
    sizes = RequestSizes()
    for _ in range(2_000):
        sizes.learn(answered(40))
    sizes.learn(answered(None))
    assert answer_tokens(sizes) == 40
    assert answer_tokens(sizes, ',"max_tokens":1000') == 40
    assert answer_tokens(sizes, ',"max_tokens":7') == 7
    assert answer_tokens(sizes, ',"n":3') == 120


def test_several_answers_to_one_request_are_learned_as_such() -> None:
    """An engine reports the tokens of all of them together."""
    sizes = RequestSizes()
    for _ in range(2_000):
        sizes.learn(answered(120), answers=3)
    assert answer_tokens(sizes) == pytest.approx(40, abs=1)
    assert answer_tokens(sizes, ',"n":3') == pytest.approx(120, abs=3)


def test_more_answers_than_anybody_gives_are_not_believed() -> None:
    """The engine will refuse them; until then they must not look like the end of its memory."""
    sizes = RequestSizes()
    assert answer_tokens(sizes, ',"n":2147483647') == 128 * 200
    assert sizes.in_flight(request(',"n":2147483647'), None) < 128 * 200


def test_half_of_an_answer_is_there_on_average() -> None:
    sizes = RequestSizes()
    prompt = Prompt((), 100, 16.0)
    one = request(',"max_tokens":50')
    assert (sizes.total(one, prompt), sizes.in_flight(one, prompt)) == (150, 125)
