import json
from typing import Any

import msgspec
import pytest

from loadtest.engine.dialect import Request
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_completions import prompts_of
from loadtest.engine.vllm_context import check_characters, output_limit
from loadtest.engine.vllm_errors import VllmError
from loadtest.engine.vllm_options import VllmOptions
from loadtest.engine.vllm_request import (
    ChatRequest,
    CompletionRequest,
    check_chat,
    check_sampling,
    sampling_params,
)
from tests.support.wire import recorded

OLD, RECENT = VllmOptions(version="0.27.0"), VllmOptions()
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
MESSAGES = [{"role": "user", "content": "Hi"}]


def posted(body: bytes, content_type: str | None = "application/json") -> Request:
    headers = {} if content_type is None else {"content-type": content_type}
    return Request("POST", "/", {}, headers, body)


def chat(**fields: Any) -> ChatRequest:
    return decode_body(posted(json.dumps({"messages": MESSAGES, **fields}).encode()), ChatRequest)


def refused(request: ChatRequest, flags: VllmOptions = RECENT) -> VllmError:
    with pytest.raises(VllmError) as caught:
        check_chat(request, flags)
    return caught.value


def test_unknown_fields_and_nulls_are_ignored() -> None:
    """As vLLM does, which logs a warning."""
    request = chat(frobnicate=1, stop=None, stream_options=None, tools=None, temperature=None)
    check_chat(request, RECENT)
    assert request.stop is None


@pytest.mark.parametrize(
    "fields",
    [
        {"stream_options": {"include_usage": True}},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"n": 0},
        {"n": 16_385},
        {"min_tokens": -1},
        {"cache_salt": ""},
        {"stream": True, "prompt_logprobs": 1},
        {"continue_final_message": True},
        {"tools": []},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]},
        {"top_logprobs": 2},
        {"messages": []},
    ],
)
def test_values_that_do_not_go_together(fields: dict[str, Any]) -> None:
    """400 of type `BadRequestError`."""
    error = refused(chat(**fields))
    assert (error.status, error.kind) == (400, "BadRequestError")


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": True, "stream_options": {"include_usage": True}},
        {"continue_final_message": True, "add_generation_prompt": False},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL]},
        {"tool_choice": "none"},
        {"logprobs": True, "top_logprobs": 2},
        {"top_p": 1, "temperature": 0},
    ],
)
def test_values_that_do(fields: dict[str, Any]) -> None:
    """Accepted."""
    check_chat(chat(**fields), RECENT)


def test_context_length_in_the_words_of_0_27() -> None:
    """Message, type and parameter as documented."""
    documented = json.loads(recorded("vllm/errors.json"))[0]
    with pytest.raises(VllmError) as caught:
        output_limit(512, 7681, 8192, default=None, recent=False)
    assert json.loads(caught.value.rendered(OLD).body) == documented["body"]


def test_output_limits() -> None:
    """Without a wish: all the room for chat, the default for completions, and never more than there is."""
    for recent in (True, False):
        assert output_limit(None, 100, 8192, default=None, recent=recent) == 8092
        assert output_limit(None, 100, 8192, default=16, recent=recent) == 16
        assert output_limit(None, 8190, 8192, default=16, recent=recent) == 2
        assert output_limit(92, 8100, 8192, default=16, recent=recent) == 92
        for asked, prompt in ((None, 8192), (0, 1)):
            with pytest.raises(VllmError):
                output_limit(asked, prompt, 8192, default=16, recent=recent)
    assert output_limit(93, 8100, 8192, default=16, recent=True) == 92
    with pytest.raises(VllmError):
        output_limit(93, 8100, 8192, default=16, recent=False)


def test_texts_too_long_by_their_characters() -> None:
    """64 characters per token of context are the bound."""
    check_characters("x" * 64 * 100, 100)
    with pytest.raises(VllmError, match="400"):
        check_characters("x" * (64 * 100 + 1), 100)


def test_sampling_parameters() -> None:
    """Stop may be one string; nulls take the defaults."""
    body = b'{"prompt":"x","stop":"a","temperature":null,"seed":4,"stop_token_ids":[7],"cache_salt":"s"}'
    wanted = decode_body(posted(body), CompletionRequest)
    check_sampling(wanted)
    params = sampling_params(wanted, max_tokens=3, logprobs=None, lora="l", priority=2)
    assert (params.stop, params.stop_token_ids, params.temperature, params.seed) == (("a",), (7,), 1.0, 4)
    assert (params.lora, params.cache_salt, params.priority, params.use_prefix_cache) == ("l", "s", 2, True)


def test_usage_wishes() -> None:
    """`stream_options` means usage at the end, and with every chunk only if that is said too."""
    assert not chat(stream=True).wants_usage
    end = chat(stream=True, stream_options={"include_usage": True})
    assert end.wants_usage and not end.wants_continuous_usage
    always = chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
    assert always.wants_continuous_usage


def test_prompts_in_all_forms() -> None:
    """Text, texts, ids, lists of ids."""
    assert prompts_of("ab") == [[*prompts_of("ab")[0]]]
    assert len(prompts_of(["a", "b"])) == 2
    assert prompts_of([20, 21]) == [[20, 21]]
    assert prompts_of([[20], [21, 22]]) == [[20], [21, 22]]
    for bad in (None, "", [], [[]], ["a", ""], [20, "a"], [-5], [2**30]):
        with pytest.raises(VllmError):
            prompts_of(bad)  # type: ignore[arg-type]


def test_the_forced_tool() -> None:
    """The named function, or the first when any call is required; none otherwise."""
    other = msgspec.json.decode(msgspec.json.encode(TOOL).replace(b'"f"', b'"g"'))
    named = {"type": "function", "function": {"name": "g"}}
    assert (chat(tools=[TOOL, other], tool_choice=named).forced_tool or {})["name"] == "g"
    assert (chat(tools=[TOOL, other], tool_choice="required").forced_tool or {})["name"] == "f"
    for choice in ("auto", "none", None):
        assert chat(tools=[TOOL], tool_choice=choice).forced_tool is None
