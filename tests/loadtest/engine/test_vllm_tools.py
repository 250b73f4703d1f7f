import json

from hypothesis import given
from hypothesis import strategies as st

from loadtest.engine.sampling import Output
from loadtest.engine.tokens import decode
from loadtest.engine.vllm_tools import ToolPlan, ToolStream, arguments_delta, call_id, name_delta

FUNCTION = {
    "name": "wetter_über",
    "parameters": {"type": "object", "properties": {"größe": {"type": "integer"}, "ort": {"type": "string"}}},
}
PLAN = ToolPlan.of(FUNCTION)


def test_the_output_is_a_hermes_call() -> None:
    """Tags around one JSON object with name and arguments."""
    text = decode(PLAN.token_ids)
    inner = text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>")
    assert json.loads(inner) == {"name": "wetter_über", "arguments": {"größe": 0, "ort": "text"}}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=80), st.integers(0, 80))
def test_the_stream_gives_name_and_arguments_however_tokens_are_bundled(sizes: list[int], cut: int) -> None:
    """The name comes once and first; the pieces add up to what the whole answer says, or to its beginning."""
    ids = PLAN.token_ids[: cut or None]
    stream, names, pieces, at = ToolStream(PLAN), [], [], 0
    for size in [*sizes, *[9] * len(ids)]:
        name, piece = stream.push(Output(tuple(ids[at : at + size]), ""))
        at += size
        names += [name] if name is not None else []
        assert names or not piece
        pieces.append(piece)
    written = "".join(pieces)
    assert names == ["wetter_über"] if len(ids) >= PLAN.start else names == []
    if len(ids) >= PLAN.end:
        assert json.loads(written) == json.loads(PLAN.arguments(ids)) == {"größe": 0, "ort": "text"}
    else:
        assert decode(PLAN.token_ids[PLAN.start : PLAN.end]).startswith(written)


def test_deltas_and_ids() -> None:
    """Id and type with the name only; ids differ by choice and stay the same for a response."""
    first = json.loads(name_delta("chatcmpl-1", 0, "f"))["tool_calls"][0]
    assert first["id"] == call_id("chatcmpl-1", 0) != call_id("chatcmpl-1", 1)
    assert first["function"] == {"name": "f"}
    assert json.loads(arguments_delta("{"))["tool_calls"] == [{"index": 0, "function": {"arguments": "{"}}]
