"""What TGI's types let through, and the plain-text refusals."""

import msgspec
import pytest

from loadtest.engine.tgi_request_wire import (
    ChatRequest,
    CompletionRequest,
    GenerateRequest,
    Message,
    Rejected,
    decode,
)

JSON = "application/json"
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def chat(**fields: object) -> ChatRequest:
    return decode(msgspec.json.encode({**CHAT, **fields}), JSON, ChatRequest)


@pytest.mark.parametrize(
    "fields",
    [
        {"stop": "x"},
        {"stream_options": None},
        {"logit_bias": {"1": 2}},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        {"response_format": {"type": "json_schema", "value": {"type": "object"}}},
        {"seed": -1},
        {"max_tokens": -1},
        {"messages": [{"role": "user", "content": None}]},
    ],
    ids=str,
)
def test_standard_values_that_are_refused(fields: dict[str, object]) -> None:
    """OpenAI clients send these; TGI's types do not take them."""
    with pytest.raises(Rejected) as refused:
        chat(**fields)
    assert refused.value.status == 422
    assert refused.value.text.startswith("Failed to deserialize the JSON body into the target type: ")


def test_values_that_pass() -> None:
    """Unknown fields and most nulls are fine, and so are the grammars in TGI's own spelling."""
    assert chat(user="u", parallel_tool_calls=True, stop=None, n=3, top_p=1).top_p == 1
    schema: dict[str, object] = {"properties": {"a": {}}}
    for kind, value in (
        ("json", schema),
        ("json_object", schema),
        ("regex", "a+"),
        ("json_schema", {"schema": schema}),
    ):
        assert chat(response_format={"type": kind, "value": value}).response_format is not None


def test_refusals_before_the_types() -> None:
    """Media type and syntax have statuses of their own."""
    for body, media_type, status in (
        (b"{}", "", 415),
        (b"{}", "text/plain", 415),
        (b"{", JSON, 400),
    ):
        with pytest.raises(Rejected) as refused:
            decode(body, media_type, ChatRequest)
        assert refused.value.status == status
    assert decode(b'{"inputs":"a"}', "application/json; charset=utf-8", GenerateRequest).inputs == "a"


def test_completion_prompts() -> None:
    """A string or a list of strings; token ids are no prompt."""

    def prompts(prompt: object) -> tuple[str, ...]:
        return decode(msgspec.json.encode({"prompt": prompt}), JSON, CompletionRequest).prompts

    assert prompts("a") == ("a",)
    assert prompts(["a", "b"]) == ("a", "b")
    for wrong in ([1, 2], [], None):
        with pytest.raises(Rejected) as refused:
            prompts(wrong)
        assert refused.value.status == 422


def test_message_texts() -> None:
    """Parts are joined, images become links, tool calls become their JSON."""
    parts = [{"type": "text", "text": "see "}, {"type": "image_url", "image_url": {"url": "http://x/y"}}]
    message = msgspec.convert({"role": "user", "content": parts}, Message)
    assert message.text() == "see ![](http://x/y)"
    assert Message("assistant", tool_calls=({"id": "0"},)).text() == '[{"id":"0"}]'


def test_native_parameters_default_to_sampling_only_when_absent() -> None:
    """Without `parameters` the engine samples; with an empty object it is greedy."""
    assert decode(b'{"inputs":"a"}', JSON, GenerateRequest).parameters.do_sample
    assert not decode(b'{"inputs":"a","parameters":{}}', JSON, GenerateRequest).parameters.do_sample
