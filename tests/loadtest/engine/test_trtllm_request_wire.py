"""What trtllm-serve's validation lets through, and the words it refuses with."""

import json
from pathlib import Path

import msgspec
import pytest

from loadtest.engine.trtllm_request_wire import ChatRequest, CompletionRequest, Invalid, decode

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def chat(**fields: object) -> ChatRequest:
    return decode(msgspec.json.encode({**CHAT, **fields}), ChatRequest, knows_new_fields=True)


def prompts(prompt: object) -> tuple[object, ...]:
    body = msgspec.json.encode({"model": "m", "prompt": prompt})
    return decode(body, CompletionRequest, knows_new_fields=True).prompts


def test_an_unknown_field_refuses_the_request() -> None:
    """The error names the field, as the golden file has it."""
    fixtures = Path(__file__).parents[2] / "fixtures" / "engines" / "trtllm" / "errors.json"
    expected = json.loads(fixtures.read_bytes())[0]["body"]["error"]
    with pytest.raises(Invalid) as refused:
        chat(min_tokens_x=1)
    assert str(refused.value) == expected


def test_several_mistakes_are_all_named() -> None:
    """Missing and unknown fields come in one answer."""
    with pytest.raises(Invalid, match=r"^3 validation errors: .*'model'.*'messages'.*'return_token_ids'"):
        decode(b'{"return_token_ids":true}', ChatRequest, knows_new_fields=True)


def test_fields_of_newer_servers() -> None:
    """`priority` is unknown to an older server."""
    body = msgspec.json.encode({**CHAT, "priority": 0.9})
    assert decode(body, ChatRequest, knows_new_fields=True).priority == 0.9
    with pytest.raises(Invalid, match="'priority'"):
        decode(body, ChatRequest, knows_new_fields=False)


def test_stream_options_present_means_usage() -> None:
    """An empty object switches usage on; false switches it off; without `stream` it is an error."""
    assert not chat(stream=True).include_usage
    assert chat(stream=True, stream_options={}).include_usage
    assert not chat(stream=True, stream_options={"include_usage": False}).include_usage
    with pytest.raises(Invalid, match="Stream options can only be defined when stream is true"):
        chat(stream_options={"include_usage": True})


def test_values_of_the_wrong_type() -> None:
    """The location is in the text."""
    with pytest.raises(Invalid, match=r"'loc': \('body', 'n'\)"):
        chat(n="two")
    with pytest.raises(Invalid, match="'priority'"):
        chat(priority=3.5)
    with pytest.raises(Invalid, match="JSON decode error"):
        decode(b"{", ChatRequest, knows_new_fields=True)
    with pytest.raises(Invalid, match="should be an object"):
        decode(b"[]", ChatRequest, knows_new_fields=True)


def test_both_names_of_the_length_limit() -> None:
    """`max_tokens` and `max_completion_tokens` mean the same."""
    assert chat(max_tokens=5).longest == chat(max_completion_tokens=5).longest == 5
    assert chat().longest is None


def test_prompts() -> None:
    """Text, texts, token ids, lists of token ids; nothing else."""
    assert prompts("a") == ("a",)
    assert prompts(["a", "b"]) == ("a", "b")
    assert prompts([1, 2]) == ((1, 2),)
    assert prompts([[1], [2, 3]]) == ((1,), (2, 3))
    refused: tuple[object, ...] = ({}, [True], ["a", 1], None)
    for wrong in refused:
        with pytest.raises(Invalid, match="valid string or list"):
            prompts(wrong)


def test_suffix_is_refused() -> None:
    """Fill-in-the-middle does not exist."""
    with pytest.raises(Invalid, match="suffix is not supported"):
        decode(b'{"model":"m","prompt":"a","suffix":"b"}', CompletionRequest, knows_new_fields=True)
