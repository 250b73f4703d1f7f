import pytest

from loadtest.engine.sampling import Completion, TokenLogprob
from loadtest.engine.tokens import encode
from loadtest.engine.vllm_answers import ChatChoice, chat_answer
from loadtest.engine.vllm_wire import (
    DONE,
    ChatChunks,
    CompletionChunks,
    Ending,
    Identity,
    chat_logprobs,
    completion_logprobs,
    content_delta,
    error_events,
    usage,
)
from tests.support.wire import recorded

CHAT = Identity("chatcmpl-req-42", 1787000000, "demo-8b", "vllm-0.27.0-1a2b3c4d")
TEXT = Identity("cmpl-req-42", 1787000000, "demo-8b", "vllm-0.27.0-1a2b3c4d")
PROMPT_IDS = [128000, 128006, 882, 128007, 271, 13347, 128009, 128006, 78191, 128007, 271]


def chat_stream(ending: Ending, *, ids: bool = False) -> list[bytes]:
    """`Hello there`, as far as the usage chunk."""
    chunks = ChatChunks(CHAT)
    said = [("Hello", [9906]), (" there", [1070])]
    return [
        chunks.role(0, PROMPT_IDS if ids else None),
        *(chunks.delta(0, content_delta(text), token_ids=one if ids else None) for text, one in said),
        chunks.delta(0, content_delta(""), token_ids=[128009] if ids else None, ending=ending),
    ]


def test_chat_stream_with_usage() -> None:
    """The usage chunk carries the fingerprint, the chunk with the finish reason does not."""
    events = [*chat_stream(Ending("stop", None, False)), ChatChunks(CHAT).usage(usage(11, 3)), DONE]
    assert b"".join(events) == recorded("vllm/chat_stream_include_usage.sse")


def test_chat_stream_without_usage() -> None:
    """The fingerprint moves to the chunk with the finish reason."""
    events = [*chat_stream(Ending("stop", None, True)), DONE]
    assert b"".join(events) == recorded("vllm/chat_stream_no_usage.sse")


def test_chat_stream_with_token_ids() -> None:
    """Prompt ids come with the role chunk, output ids with each choice."""
    events = [*chat_stream(Ending("stop", None, True), ids=True), DONE]
    assert b"".join(events) == recorded("vllm/chat_stream_return_token_ids.sse")


def test_chat_stream_with_cached_tokens() -> None:
    """Cached tokens stand in the details of the usage."""
    last = ChatChunks(CHAT).usage(usage(2411, 3, 2400))
    events = [*chat_stream(Ending("stop", None, False)), last, DONE]
    assert b"".join(events) == recorded("vllm/chat_stream_cached_tokens.sse")


def test_chat_stream_that_is_aborted() -> None:
    """`abort` ends a stream like any other reason."""
    first, second, *_ = chat_stream(Ending("stop", None, True))
    last = ChatChunks(CHAT).delta(0, content_delta(""), ending=Ending("abort", None, True))
    assert b"".join([first, second, last, DONE]) == recorded("vllm/chat_stream_abort.sse")


def test_errors_in_streams() -> None:
    """Python's spacing, and the end marker after it, first or in the middle."""
    events = error_events("Internal server error")
    assert b"".join(events) == recorded("vllm/chat_stream_error_before_first_token.sse")
    begun = chat_stream(Ending("stop", None, True))[:2]
    assert b"".join([*begun, *events]) == recorded("vllm/chat_stream_midstream_error.sse")


def test_completions_stream_with_usage() -> None:
    """Text chunks with all their nulls."""
    chunks = CompletionChunks(TEXT)
    events = [
        chunks.text(0, "Hello"),
        chunks.text(0, " there"),
        chunks.text(0, "", ending=Ending("stop", None, False)),
        chunks.usage(usage(11, 3)),
        DONE,
    ]
    assert b"".join(events) == recorded("vllm/completions_stream_include_usage.sse")


def test_whole_chat_answer() -> None:
    """Every field present, nulls included."""
    from msgspec.json import encode as as_json

    completion = Completion((9906, 1070, 128009), "Hello there", "stop", None, None)
    counts = {**usage(11, 3), "prompt_tokens_details": None, "completion_tokens_details": None}
    answer = chat_answer(CHAT, [ChatChoice(completion, "stop", "Hello there")], counts)
    assert as_json(answer) == recorded("vllm/chat_full.json")


def test_continuous_usage_stands_before_the_prompt_ids() -> None:
    """Field order is that of the response model."""
    role = ChatChunks(CHAT).role(0, None, usage(11, 0))
    assert role.index(b'"choices"') < role.index(b'"usage"') < role.index(b'"prompt_token_ids"')
    text = CompletionChunks(TEXT).text(0, "x", usage_now=usage(1, 1), ending=Ending("length", None, True))
    assert text.index(b'"choices"') < text.index(b'"usage"') < text.index(b'"system_fingerprint"')


def test_no_fingerprint_leaves_the_field_out() -> None:
    """As with `--fingerprint-mode none`."""
    bare = ChatChunks(Identity("chatcmpl-1", 1, "m"))
    assert b"fingerprint" not in bare.usage(usage(1, 1))
    assert b"fingerprint" not in bare.delta(0, content_delta(""), ending=Ending("stop", None, True))


@pytest.mark.parametrize("text", ['"quoted"\n', "é京🙂", "\u2028", "\\"])
def test_any_text_is_valid_json(text: str) -> None:
    """Text that needs escaping comes back as it was."""
    from msgspec.json import decode

    chunk = ChatChunks(CHAT).delta(0, content_delta(text))
    assert decode(chunk[6:])["choices"][0]["delta"] == {"content": text}


def test_logprobs_of_chat_and_completions() -> None:
    """Chat tells bytes and alternatives per token, completions parallel lists with text offsets."""
    first, second = encode(" bala bale")
    entries = [TokenLogprob(first, -0.5, ((first, -0.5), (second, -1.0))), TokenLogprob(second, -0.25)]
    chat = chat_logprobs(entries)
    assert chat is not None
    assert chat["content"][0]["token"] == " bala"
    assert chat["content"][0]["bytes"] == list(b" bala")
    assert [one["token"] for one in chat["content"][0]["top_logprobs"]] == [" bala", " bale"]
    text = completion_logprobs(entries, 3)
    assert text == {
        "text_offset": [3, 8],
        "token_logprobs": [-0.5, -0.25],
        "tokens": [" bala", " bale"],
        "top_logprobs": [{" bala": -0.5, " bale": -1.0}, None],
    }
    assert chat_logprobs(None) is None and completion_logprobs(None) is None
