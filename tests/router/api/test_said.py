"""The text of answers in every dialect that clients are given."""

import msgspec
import pytest

from router.api.said import text_pieces, whole_text


def frame(data: object, name: bytes = b"") -> bytes:
    head = b"event: %b\n" % name if name else b""
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


def chat(**delta: object) -> bytes:
    return frame({"id": "1", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


@pytest.mark.parametrize(
    "frames",
    [
        chat(role="assistant") + chat(content="he") + chat(content="llo") + b"data: [DONE]\n\n",
        frame({"choices": [{"index": 0, "text": "he"}]}) + frame({"choices": [{"index": 0, "text": "llo"}]}),
        frame({"token": {"id": 1, "text": "hello"}, "generated_text": None})
        + frame({"token": {"text": "</s>", "special": True}, "generated_text": "hello"}),
        frame(
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "hello"}},
            b"content_block_delta",
        ),
        frame({"type": "response.output_text.delta", "delta": "hello"}, b"response.output_text.delta"),
        chat(reasoning_content="he", content=None) + chat(content="llo"),
        chat(tool_calls=[{"index": 0, "function": {"name": "he", "arguments": ""}}])
        + chat(tool_calls=[{"index": 0, "function": {"arguments": "llo"}}]),
        # Usage, comments and what is no chunk at all say nothing.
        chat(content="hello") + frame({"choices": [], "usage": {"prompt_tokens": 1}}) + b": ping\n\n"
        b"data: 1\n\ndata: {\n\ndata: " + b"[" * 5000 + b"\n\ndata: \xff\n\n",
    ],
)
def test_every_dialect_says_hello(frames: bytes) -> None:
    assert "".join(text_pieces(frames)) == "hello"


def test_each_frame_is_a_piece() -> None:
    """Whoever reads many can take turns."""
    assert len(list(text_pieces(chat(content="x") * 7))) == 8


@pytest.mark.parametrize(
    "answer",
    [
        {"choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}}]},
        {
            "choices": [
                {
                    "message": {
                        "content": None,
                        "reasoning_content": "he",
                        "tool_calls": [{"function": {"name": "llo"}}],
                    }
                }
            ]
        },
        {"choices": [{"index": 0, "text": "hello"}]},
        {"generated_text": "hello"},
        [{"generated_text": "hello"}],
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "he"}, {"type": "text", "text": "llo"}],
        },
        {
            "output": [
                {"type": "reasoning", "summary": [{"text": "he"}]},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "llo"}]},
            ]
        },
    ],
)
def test_every_whole_answer_says_hello(answer: object) -> None:
    assert whole_text(msgspec.json.encode(answer)) == "hello"


def test_what_a_tool_is_called_with_is_said_too() -> None:
    """As it stands: two answers that call a tool with other arguments differ."""
    content = [{"type": "tool_use", "name": "f", "input": {"x": 1}}]
    assert whole_text(msgspec.json.encode({"content": content})) == 'f{"x":1}'


@pytest.mark.parametrize(
    "body", [b"", b"{", b"1", b'{"choices": 3}', b"[" * 5000, b'{"generated_text":"\xff"}']
)
def test_what_is_no_answer_has_no_text(body: bytes) -> None:
    assert whole_text(body) is None
