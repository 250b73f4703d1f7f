"""TGI's requests as other engines see them, and their answers as TGI's clients do."""

from typing import Any

import msgspec
import pytest

from router.api.errors import BodyTooLarge, Overloaded, RequestError, UpstreamError
from router.api.openai import RequestRules
from router.api.request import Endpoint, InferenceRequest, Usage
from router.api.tgi import DEFAULT_NEW_TOKENS, generate_error, read_generate, translate_answer
from router.engines.engine import Answer

JSON = {"content-type": "application/json"}
ROOT, GENERATE, STREAM = Endpoint.GENERATE_ROOT, Endpoint.GENERATE, Endpoint.GENERATE_STREAM


def asked(endpoint: Endpoint = GENERATE, **members: Any) -> InferenceRequest:
    body = msgspec.json.encode({"inputs": "p", **members})
    return read_generate(endpoint, "id", JSON, body, RequestRules(), "m")


def completion(**members: Any) -> InferenceRequest:
    fallback = asked(**members).fallback
    assert fallback is not None
    return fallback


def answer(text: str = " said", **more: Any) -> Answer:
    body = {"choices": [{"text": text}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}, **more}
    return Answer(msgspec.json.encode(body), Usage(1, 2), "length")


@pytest.mark.parametrize(
    ("endpoint", "flag", "stream"),
    [
        (GENERATE, None, False),
        (GENERATE, True, False),
        (STREAM, None, True),
        (STREAM, False, True),
        (ROOT, None, False),
        (ROOT, True, True),
    ],
)
def test_the_path_decides_on_a_stream_but_at_the_root(
    endpoint: Endpoint, flag: bool | None, stream: bool
) -> None:
    """There the body says."""
    request = asked(endpoint, stream=flag)
    assert (request.endpoint, request.stream) == (endpoint, stream)


@pytest.mark.parametrize(("parameters", "limit"), [({}, DEFAULT_NEW_TOKENS), ({"max_new_tokens": 5}, 5)])
def test_the_limit_is_said_to_every_engine(parameters: dict[str, int], limit: int) -> None:
    """In the body for those who get it, and apart from it for those whose body is made anew."""
    fallback = completion(parameters=parameters)
    assert (fallback.max_tokens, msgspec.json.decode(fallback.body)["max_tokens"]) == (limit, limit)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "many"])
def test_a_limit_that_cannot_be(limit: object) -> None:
    with pytest.raises(RequestError) as raised:
        asked(parameters={"max_new_tokens": limit})
    assert raised.value.param == "max_new_tokens"


@pytest.mark.parametrize("inputs", [None, 7, ["p"]])
def test_inputs_that_are_no_text(inputs: object) -> None:
    with pytest.raises(RequestError) as raised:
        asked(inputs=inputs)
    assert raised.value.param == "inputs"


def test_greedy_unless_told_to_sample() -> None:
    """TGI's default, which is not OpenAI's."""
    assert msgspec.json.decode(completion().body)["temperature"] == 0
    assert msgspec.json.decode(completion(parameters={"do_sample": True}).body)["temperature"] == 1
    assert msgspec.json.decode(completion(parameters={"temperature": 0.5}).body)["temperature"] == 0.5


@pytest.mark.parametrize(
    "parameters",
    [{"grammar": {"type": "regex", "value": "a"}}, {"best_of": 2}, {"top_n_tokens": 3}, {"truncate": 9}],
)
def test_what_only_tgi_can_do_has_no_other_form(parameters: dict[str, Any]) -> None:
    assert asked(parameters=parameters).fallback is None


def test_what_old_clients_always_send_is_no_obstacle() -> None:
    """Nulls, and values that mean nothing."""
    parameters: dict[str, Any] = {
        "best_of": None,
        "watermark": False,
        "decoder_input_details": False,
        "details": True,
        "stop": [],
    }
    assert msgspec.json.decode(completion(parameters=parameters).body).keys() == {
        "model", "prompt", "max_tokens", "temperature", "stop",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("endpoint", "parameters", "expected"),
    [
        (GENERATE, {}, {"generated_text": " said"}),
        (GENERATE, {"return_full_text": True}, {"generated_text": "p said"}),
        (ROOT, {}, [{"generated_text": "p said"}]),
        (ROOT, {"return_full_text": None}, [{"generated_text": "p said"}]),
        (ROOT, {"return_full_text": False}, [{"generated_text": " said"}]),
    ],
)
def test_the_root_answers_a_list_and_the_full_text(
    endpoint: Endpoint, parameters: dict[str, Any], expected: object
) -> None:
    """As TGI's `compat_generate` does."""
    assert (
        msgspec.json.decode(translate_answer(asked(endpoint, parameters=parameters), answer()).body)
        == expected
    )


@pytest.mark.parametrize(("usage", "generated"), [({"completion_tokens": 7}, 7), (None, 0)])
def test_details_count_what_the_answer_states(usage: object, generated: int) -> None:
    """An estimate too: it is all that there is."""
    body = translate_answer(asked(parameters={"details": True}), answer(usage=usage)).body
    details = msgspec.json.decode(body)["details"]
    assert (details["generated_tokens"], details["finish_reason"]) == (generated, "length")
    assert (details["prefill"], details["tokens"]) == ([], [])


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (RequestError("no"), "validation"),
        (BodyTooLarge("no"), "validation"),
        (Overloaded("no"), "overloaded"),
        (UpstreamError("no"), "generation"),
    ],
)
def test_errors_carry_tgis_word_too(error: Any, word: str) -> None:
    """Beside the contract's object; TGI's clients choose their exception by it."""
    members = msgspec.json.decode(generate_error(error))
    assert members["error_type"] == word
    assert members["error"]["code"] == error.code
