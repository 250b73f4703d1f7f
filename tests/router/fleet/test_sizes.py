"""Estimates of what a request costs: by its prompt, by what it may, and by what answers were like of late."""

import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import Prompt
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.fleet.sizes import RequestSizes, Size

HEADERS = {"content-type": "application/json"}


def request(members: str = "", text: str = "hi") -> InferenceRequest:
    body = f'{{"model":"m","prompt":"{text}"{members}}}'
    return read_request(Endpoint.COMPLETIONS, "id", HEADERS, body.encode(), RequestRules())


def answered(tokens: int | None) -> Outcome:
    return Outcome(Ending.COMPLETED, 0.0, 1.0, 2.0, completion_tokens=tokens)


def test_a_prompt_is_as_long_as_it_is_known() -> None:
    """By the policy's count where there is one, else by its bytes."""
    sizes = RequestSizes()
    assert sizes.size(request(), Prompt((), 5_000, 16.0)).prompt == 5_000
    assert sizes.size(request(text="a" * 4_000), None).prompt == pytest.approx(1_000, rel=0.02)


def test_an_answer_is_as_long_as_others_were() -> None:
    """If it may be; and for each choice."""
    sizes = RequestSizes()
    for _ in range(500):
        sizes.learn(answered(40))
    sizes.learn(answered(None))
    assert sizes.size(request(), None).answer == 40
    assert sizes.size(request(',"max_tokens":1000'), None).answer == 40
    assert sizes.size(request(',"max_tokens":7'), None).answer == 7
    assert sizes.size(request(',"n":3'), None).answer == 120


def test_half_of_an_answer_is_there_on_average() -> None:
    assert Size(100, 50).total == 150
    assert Size(100, 50).in_flight == 125
