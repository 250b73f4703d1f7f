"""The reader of chunk streams: what is held, hidden, put right, cut off, and when it is over."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.openai_stream import OpenAIStream
from router.engines.sse import MAX_FRAME_BYTES
from tests.router.engines.making import NOW, Seen, delta_chunk, engine, frames, read, request

DONE = b"[DONE]"
ROLE = delta_chunk("")
ROLE["choices"][0]["delta"]["role"] = "assistant"
STOP = delta_chunk("", finish="stop")
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
TRICKY = st.lists(
    st.sampled_from([
        '"', "\\", "{", "}", "[DONE]", '"error"', '"usage":{', '"finish_reason":"stop"', "\n\n", "data: ",
        "data: [DONE]\n\n", "\x00", "é", "🙂", "a", " ", ":", '"},"finish_reason":null}]}', "\u2028", "\r",
    ])
).map("".join)  # fmt: skip


def _reader(kind: str = "vllm", asked: InferenceRequest | None = None) -> OpenAIStream:
    reader = engine(kind).open_stream(asked or request())
    assert isinstance(reader, OpenAIStream)
    return reader


def _read(data: bytes, kind: str = "vllm", asked: InferenceRequest | None = None) -> Seen:
    return read(_reader(kind, asked), [data])


def _chunks(out: bytes) -> list[Any]:
    payloads = [frame.removeprefix(b"data: ") for frame in out.split(b"\n\n")[:-1]]
    return [DONE if payload == DONE else msgspec.json.decode(payload) for payload in payloads]


def _texts(out: bytes) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in _chunks(out)
        if chunk != DONE
        for choice in chunk["choices"]
    )


class Watched(OpenAIStream):
    """Counts the frames that go the long way."""

    __slots__ = ("long_ways",)

    def _event(self, *arguments: Any) -> bytes:
        self.long_ways = getattr(self, "long_ways", 0) + 1
        return super()._event(*arguments)


def _watched(kind: str) -> Watched:
    reader = _reader(kind)
    return Watched(reader.chunks, reader.kind, reader.translator)


# ---- the quiet way ----


@pytest.mark.parametrize("kind", ["vllm", "tgi", "trtllm"])
def test_quiet_frames_do_not_go_the_long_way(kind: str) -> None:
    """After the frames that open the stream not one of a hundred is decoded, alone or eight at a time."""
    reader = _watched(kind)
    opening = frames(ROLE, delta_chunk("a"), delta_chunk("b"))
    reader.feed(opening)
    before = reader.long_ways
    for text in ("x", "[DONE]", 'say "hi" \\ {}', "\n\n", '"error"', "🙂"):
        assert reader.feed(frames(delta_chunk(text))) != b""
        assert reader.feed(frames(*[delta_chunk(text)] * 8)) != b""
    assert reader.long_ways == before
    assert reader.pieces == 2 + 6 * 9


def test_quiet_tgi_frames_do_not_go_the_long_way() -> None:
    """Neither its chats, whose role comes with every chunk, nor its completions with `finish_reason: ""`."""
    chunk = {
        "object": "chat.completion.chunk", "id": "", "created": NOW, "model": "m",
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": "a"}, "finish_reason": None}],
        "usage": None,
    }  # fmt: skip
    reader = _watched("tgi")
    reader.feed(frames(chunk, chunk))
    out = reader.feed(frames(*[chunk] * 5))
    assert reader.long_ways == 2
    assert [one["choices"][0]["delta"] for one in _chunks(out)] == [{"content": "a"}] * 5
    assert {one["id"] for one in _chunks(out)} == {"chatcmpl-req-7"}

    text = {"object": "text_completion", "id": "", "created": NOW, "model": "m"}
    text["choices"] = [{"index": 0, "text": "a", "logprobs": None, "finish_reason": ""}]
    asked = request(Endpoint.COMPLETIONS, {"prompt": "p", "stream": True})
    reader = Watched(_reader("tgi", asked).chunks, "tgi")
    reader.feed(frames(text))
    out = reader.feed(frames(*[text] * 5))
    assert reader.long_ways == 1
    assert {one["choices"][0]["finish_reason"] for one in _chunks(out)} == {None}


def test_quiet_triton_events_do_not_go_the_long_way() -> None:
    """Delta events are translated to chunks by bytes alone."""
    asked = request()
    reader = engine("triton", output="delta", chat_template="x").open_stream(asked)
    assert isinstance(reader, OpenAIStream)
    watched = Watched(reader.chunks, reader.kind, reader.translator)
    event = {"model_name": "ensemble", "model_version": "1", "text_output": "a"}
    watched.feed(frames(event))
    out = watched.feed(frames(*[{**event, "text_output": 'b"\n'}] * 4))
    assert watched.long_ways == 1
    assert _texts(out) == 'b"\n' * 4


def test_a_new_second_of_tgi_is_learned_again() -> None:
    """`created` grows within TGI's stream; the client sees the first one throughout."""

    def chunk(created: int) -> dict[str, Any]:
        return {**delta_chunk("a"), "id": "", "created": created}

    reader = _watched("tgi")
    out = reader.feed(frames(*[chunk(NOW)] * 3))
    out += reader.feed(frames(chunk(NOW + 1)))
    out += reader.feed(frames(*[chunk(NOW + 1)] * 3))
    assert {one["created"] for one in _chunks(out)} == {NOW}
    assert reader.long_ways == 2


def test_nothing_is_copied_where_nothing_changes() -> None:
    """Replica and client call the model alike: the very bytes that came go out."""
    reader = engine("vllm", public_name="demo-8b").open_stream(request())
    reader.feed(frames(delta_chunk("a")))
    data = frames(delta_chunk("b"))
    assert reader.feed(data) is data


@settings(deadline=None, max_examples=60)
@given(st.lists(TRICKY, min_size=1, max_size=6), st.lists(st.integers(0, 1 << 16), max_size=4))
def test_the_quiet_way_and_the_long_way_say_the_same(texts: list[str], cuts: list[int]) -> None:
    """Any text, in any pieces: what comes out is what decoding every frame gives."""
    data = frames(ROLE, *[delta_chunk(text) for text in texts], STOP, DONE)
    at = sorted(cut % (len(data) + 1) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
    seen = read(_reader(), pieces)
    long_way = _reader()
    out = b""
    for frame in data.split(b"\n\n")[:-1]:
        long_way._form = None
        out += long_way.feed(frame + b"\n\n")
    assert seen.out == out
    assert seen.pieces == long_way.pieces
    assert seen.done
    assert _texts(seen.out) == "".join(texts)


def test_learning_stops_where_every_frame_differs() -> None:
    """Log-probabilities in every chunk: no form fits, and none is looked for any more."""
    reader = _reader()
    chunks = [delta_chunk("a", logprobs={"n": number}) for number in range(40)]
    assert _texts(reader.feed(frames(*chunks))) == "a" * 40
    learned = reader._learned_at
    assert learned < 40
    reader.feed(frames(delta_chunk("a", logprobs={"n": 41})))
    assert reader._learned_at == learned


# ---- held and released ----


def test_nothing_goes_out_before_something_is_said() -> None:
    """Role chunks and empty deltas wait, so that an error after them can still be retried."""
    reader = _reader()
    assert reader.feed(frames(ROLE, delta_chunk(""))) == b""
    assert not reader.started
    out = reader.feed(frames(delta_chunk("Hi")))
    assert reader.started
    assert [chunk["choices"][0]["delta"] for chunk in _chunks(out)] == [
        {"content": "", "role": "assistant"}, {"content": ""}, {"content": "Hi"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning": "x"},
        {"reasoning_content": "x"},
        {"refusal": "x"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]},
    ],
)
def test_whatever_a_delta_says_starts_the_stream(delta: dict[str, Any]) -> None:
    """Content, reasoning, a refusal, a tool call."""
    reader = _reader()
    chunk = delta_chunk("")
    chunk["choices"][0]["delta"] = delta
    assert reader.feed(frames(ROLE, chunk)) != b""
    assert reader.started


def test_token_ids_without_text_start_a_completion() -> None:
    """trtllm-serve with `detokenize: false`."""
    asked = request(Endpoint.COMPLETIONS, {"prompt": "p", "stream": True})
    reader = _reader("trtllm", asked)
    choice = {"index": 0, "text": "", "token_ids": [5], "finish_reason": None}
    reader.feed(frames({"id": "c", "created": NOW, "model": "m", "choices": [choice]}))
    assert reader.started


def test_an_answer_of_nothing_is_an_answer() -> None:
    """Only a role and a finish reason."""
    seen = _read(frames(ROLE, STOP, DONE))
    assert (seen.started, seen.done, seen.failure) == (True, True, None)


@pytest.mark.parametrize("opening", [(), (ROLE,), (ROLE, delta_chunk(""))])
def test_an_error_before_the_first_text_leaves_nothing_behind(opening: tuple[dict[str, Any], ...]) -> None:
    """The attempt can be made elsewhere: no byte came out."""
    seen = _read(frames(*opening, {"error": {"message": "no", "code": 500}}, DONE))
    assert (seen.out, seen.started, seen.done) == (b"", False, False)
    assert seen.failure == ("upstream_error", "The replica failed: no", True, False)


def test_good_frames_before_an_error_in_the_same_piece_still_come_out() -> None:
    """As they do when the pieces are cut otherwise."""
    seen = _read(frames(ROLE, delta_chunk("Hi"), {"error": "no"}, delta_chunk("more"), DONE))
    assert _texts(seen.out) == "Hi"
    assert seen.failure is not None
    assert b"[DONE]" not in seen.out


# ---- ends ----


def test_nothing_comes_after_the_end() -> None:
    """A second `[DONE]`, events after it, the end of the body."""
    reader = _reader()
    reader.feed(frames(delta_chunk("Hi"), STOP, DONE))
    assert reader.done
    assert reader.feed(frames(DONE, delta_chunk("more"), {"error": "no"})) == b""
    assert reader.feed(b"event: trtllm.perf_metrics\ndata: {}\n\n") == b""
    assert reader.end() == b""
    assert (reader.done, reader.failure) == (True, None)


def test_a_finished_answer_without_done_gets_one() -> None:
    """The body ended well and every choice had its finish reason."""
    seen = _read(frames(delta_chunk("Hi"), STOP))
    assert seen.done
    assert seen.out.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("ending", [(), (DONE,)])
def test_an_unfinished_answer_is_a_failure(ending: tuple[bytes, ...]) -> None:
    """`[DONE]` or a clean end of the body without a finish reason."""
    seen = _read(frames(ROLE, delta_chunk("Hi"), *ending))
    assert seen.failure is not None
    assert seen.failure[0] == "upstream_reset"
    assert (_texts(seen.out), b"[DONE]" in seen.out) == ("Hi", False)


@pytest.mark.parametrize("reason", ["abort", "cancelled", "timeout", "error", "something_new"])
def test_a_reason_that_means_broken_is_a_failure(reason: str) -> None:
    """vLLM's and trtllm-serve's words for given up, and words that nobody knows."""
    seen = _read(frames(ROLE, delta_chunk("Hi"), delta_chunk("", finish=reason), DONE))
    assert seen.failure == ("upstream_error", f"The replica gave up on the answer: {reason}.", True, False)
    assert reason.encode() not in seen.out


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("tool_calls", "tool_calls"),
        ("content_filter", "content_filter"),
        ("stop_sequence", "stop"),
        ("eos_token", "stop"),
        ("repetition", "stop"),
    ],
)
def test_finish_reasons_in_openais_words(said: str, heard: str) -> None:
    """In the frame and on the reader."""
    seen = _read(frames(delta_chunk("Hi", finish=said), DONE))
    assert seen.finish_reason == heard
    assert _chunks(seen.out)[0]["choices"][0]["finish_reason"] == heard


def test_every_choice_must_finish() -> None:
    """`n` choices, and `n` for each prompt of a batch."""
    two = request(members={"messages": [], "stream": True, "n": 2}, n=2)
    one_open = frames(delta_chunk("a"), delta_chunk("b", index=1), delta_chunk("", finish="stop"), DONE)
    assert _read(one_open, asked=two).failure is not None
    both = frames(delta_chunk("a", finish="stop"), delta_chunk("b", index=1, finish="length"), DONE)
    assert _read(both, asked=two).done
    batch = request(Endpoint.COMPLETIONS, {"prompt": ["p", "q"], "stream": True}, needs={"batch_prompt"}, n=2)
    texts = [{"index": index, "text": "x", "finish_reason": "stop"} for index in range(4)]
    head = {"id": "c", "created": NOW, "model": "m"}
    chunks = [{**head, "choices": [choice]} for choice in texts]
    assert _read(frames(*chunks, DONE), asked=batch).done
    assert _read(frames(*chunks[:3], DONE), asked=batch).failure is not None


# ---- usage ----


def _usage_of(out: bytes) -> list[Any]:
    return [chunk.get("usage") for chunk in _chunks(out) if chunk != DONE]


def test_usage_is_recorded_and_hidden_from_who_did_not_ask() -> None:
    """The chunk of its own, and usage that is forced into ordinary chunks."""
    running = delta_chunk("Hi", usage={**USAGE, "completion_tokens": 1})
    seen = _read(frames(running, STOP, {**ROLE, "choices": [], "usage": USAGE}, DONE))
    assert seen.usage == Usage(5, 2)
    assert _usage_of(seen.out) == [None, None]
    assert b'"usage"' not in seen.out


def test_usage_is_shown_once_to_who_asked() -> None:
    """In its own chunk: as it came, or made from where the engine put it."""
    asked = request(include_usage=True)
    own = _read(frames(delta_chunk("Hi"), STOP, {**ROLE, "choices": [], "usage": USAGE}, DONE), asked=asked)
    assert _usage_of(own.out) == [None, None, USAGE]
    inside = _read(frames(delta_chunk("Hi"), {**STOP, "usage": USAGE}, DONE), asked=asked)
    assert _usage_of(inside.out) == [None, None, USAGE]
    assert _chunks(inside.out)[-2]["choices"] == []


def test_running_usage_stays_for_who_asked_for_it() -> None:
    """vLLM's `continuous_usage_stats`, with the last one in a chunk of its own."""
    options = {"include_usage": True, "continuous_usage_stats": True}
    asked = request(members={"messages": [], "stream": True, "stream_options": options}, include_usage=True)
    first = {**USAGE, "completion_tokens": 1}
    data = frames(delta_chunk("Hi", usage=first), STOP, {**ROLE, "choices": [], "usage": USAGE}, DONE)
    assert _usage_of(_read(data, asked=asked).out) == [first, None, USAGE]


def test_cached_tokens_are_recorded() -> None:
    """From OpenAI's details."""
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}
    seen = _read(frames(delta_chunk("Hi"), STOP, {**ROLE, "choices": [], "usage": usage}, DONE))
    assert seen.usage == Usage(5, 2, 4)


# ---- put right ----


def test_one_id_and_one_time_for_a_stream() -> None:
    """trtllm-serve used to give every chunk new ones."""
    chunks = [{**delta_chunk("a"), "id": f"chatcmpl-{n}", "created": NOW + n} for n in range(5)]
    out = _read(frames(*chunks, {**STOP, "id": "x"}, DONE), "trtllm").out
    assert {(one["id"], one["created"]) for one in _chunks(out)[:-1]} == {("chatcmpl-0", NOW)}


def test_tgi_says_tool_calls_though_it_does_not() -> None:
    """Its finish reason after tool deltas, and ids that clients would join to one long id."""

    def tool(name: str | None, arguments: str) -> dict[str, Any]:
        call = {"index": 0, "id": "0", "type": "function", "function": {"name": name, "arguments": arguments}}
        chunk = delta_chunk("")
        chunk["choices"][0]["delta"] = {"role": "assistant", "tool_calls": [call]}
        return chunk

    seen = _read(frames(tool("f", "{"), tool(None, "}"), delta_chunk("", finish="stop"), DONE), "tgi")
    assert seen.finish_reason == "tool_calls"
    first, second, last = (chunk["choices"][0] for chunk in _chunks(seen.out)[:-1])
    assert first["delta"]["tool_calls"][0]["id"] == "0"
    assert second["delta"] == {"tool_calls": [{"index": 0, "function": {"name": None, "arguments": "}"}}]}
    assert last["finish_reason"] == "tool_calls"


def test_tgi_tool_calls_without_a_finish_are_finished_by_usage() -> None:
    """TGI emits no chunk for the end token after a call, but usage shows that generation ended."""
    call = {"index": 0, "id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunk = delta_chunk("")
    chunk["choices"][0]["delta"] = {"tool_calls": [call]}
    usage = {**ROLE, "choices": [], "usage": USAGE}
    seen = _read(frames(chunk, usage, DONE), "tgi", request(include_usage=True))
    assert (seen.done, seen.finish_reason, seen.usage) == (True, "tool_calls", Usage(5, 2))
    chunks = _chunks(seen.out)
    assert chunks[1]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[2]["usage"] == USAGE
    assert _read(frames(chunk, DONE), "tgi").failure is not None


@pytest.mark.parametrize(("limit", "finish"), [(2, "length"), (3, None)])
def test_a_tgi_tool_call_that_was_cut_before_its_name(limit: int, finish: str | None) -> None:
    """TGI then sends usage alone: the limit was reached, or else the answer is broken."""
    asked = request(max_tokens=limit, include_usage=True)
    seen = _read(frames({**ROLE, "choices": [], "usage": USAGE}, DONE), "tgi", asked)
    assert seen.finish_reason == finish
    assert (seen.failure is None) == seen.done == (finish is not None)
    if finish is not None:
        assert _chunks(seen.out)[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}


def test_trtllm_repeats_the_name_of_a_named_tool_and_gives_no_id() -> None:
    """Clients would join the names, and have no id to answer to; a second call is told from a repetition."""

    def piece(arguments: str, name: str = "f", **more: Any) -> dict[str, Any]:
        call = {"index": 0, "type": "function", "function": {"name": name, "arguments": arguments}, **more}
        chunk = delta_chunk("")
        chunk["choices"][0]["delta"] = {"tool_calls": [call]}
        return chunk

    others = (piece("c", "g"), piece("d", "g", id="x"))
    seen = _read(frames(piece("a"), piece("b"), *others, STOP, DONE), "trtllm")
    calls = [chunk["choices"][0]["delta"]["tool_calls"][0] for chunk in _chunks(seen.out)[:4]]
    assert calls[0] == {**piece("a")["choices"][0]["delta"]["tool_calls"][0], "id": "call_req-7_0_0"}
    assert calls[1] == {"index": 0, "function": {"arguments": "b"}}
    assert [call["id"] for call in calls[2:]] == ["call_req-7_0_0", "x"]


def test_usage_of_each_prompt_of_a_batch_becomes_one() -> None:
    """trtllm-serve states it once a prompt; the client gets the sum, once, after the last finish."""
    asked = request(
        Endpoint.COMPLETIONS,
        {"prompt": ["a", "b"], "stream": True},
        needs={"batch_prompt"},
        include_usage=True,
    )

    def piece(index: int) -> dict[str, Any]:
        return {**ROLE, "choices": [{"index": index, "text": "x", "finish_reason": "stop"}]}

    usage = {**ROLE, "choices": [], "usage": USAGE}
    seen = _read(frames(piece(0), usage, piece(1), usage, DONE), "trtllm", asked)
    assert seen.usage == Usage(10, 4)
    assert [chunk["usage"] for chunk in _chunks(seen.out)[:-1] if "usage" in chunk] == [
        {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}
    ]


def test_vllms_named_tool_keeps_stop() -> None:
    """As OpenAI says it."""
    call = {"index": 0, "id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    chunk = delta_chunk("", finish="stop")
    chunk["choices"][0]["delta"] = {"tool_calls": [call]}
    assert _read(frames(chunk, DONE)).finish_reason == "stop"


# ---- broken and hostile streams ----


@pytest.mark.parametrize(
    "frame",
    [
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 5000,
        b'{"choices":[1]}',
        b'{"choices":[{"index":0}]}',
        b'{"choices":[{"index":0,"delta":7}]}',
        b'{"choices":[{"index":"x","delta":{}}]}',
    ],
)
def test_frames_that_are_no_chunks_are_a_failure(frame: bytes) -> None:
    """Not an exception, and nothing of it reaches the client."""
    seen = _read(frames(delta_chunk("Hi"), frame, STOP, DONE))
    assert seen.failure is not None
    assert seen.failure[0] == "upstream_protocol"
    assert _texts(seen.out) == "Hi"


@pytest.mark.parametrize(
    "frame", [b'{"metrics":{}}', b'{"choices":null}', b'{"choices":[]}', b"event: ping\ndata: {}"]
)
def test_frames_that_say_nothing_are_dropped(frame: bytes) -> None:
    """Unknown objects and events are not passed on as chunks."""
    noise = b"data: %b\n\n" % frame if frame.startswith(b"{") else frame + b"\n\n"
    seen = _read(frames(delta_chunk("Hi")) + noise + frames(STOP, DONE))
    assert seen.done
    assert len(_chunks(seen.out)) == 3


def test_an_error_event_is_an_error_whatever_it_holds() -> None:
    """`event: error` with an object of unknown shape."""
    seen = _read(frames(delta_chunk("Hi")) + b'event: error\ndata: {"why":"?"}\n\n')
    assert seen.failure == ("upstream_error", "The replica failed.", True, False)


def test_an_event_name_in_a_piece_of_its_own_is_not_lost() -> None:
    """A frame that looks quiet may be the second half of one that is not."""
    pieces = [frames(delta_chunk("a"), delta_chunk("b")), b"event: error\n", frames(delta_chunk("c"))]
    seen = read(_reader(), pieces)
    assert seen.failure is not None
    assert _texts(seen.out) == "ab"


def test_nothing_comes_after_a_failure() -> None:
    """Not even frames that look like the ones before it."""
    reader = _reader()
    reader.feed(frames(delta_chunk("a"), delta_chunk("b"), {"error": "no"}))
    assert reader.feed(frames(delta_chunk("c"))) == b""
    assert reader.end() == b""
    assert not reader.done


def test_two_texts_in_one_chunk_are_both_kept() -> None:
    """Reasoning that ends where the answer begins, two choices at once."""
    both = delta_chunk("b")
    both["choices"][0]["delta"]["reasoning"] = "r"
    two = delta_chunk("x")
    two["choices"].append({"index": 1, "delta": {"content": "y"}, "finish_reason": None})
    data = frames(both, both, two, two)
    chunks = _chunks(read(_reader(), [frames(delta_chunk("a")), data], ends=False).out)
    assert [choice["delta"] for chunk in chunks[1:] for choice in chunk["choices"]] == [
        *[{"content": "b", "reasoning": "r"}] * 2,
        *[{"content": "x"}, {"content": "y"}] * 2,
    ]


def test_an_error_message_as_text_is_text() -> None:
    """A model may well write `{"error": ...}`, or end a line with `[DONE]`."""
    text = '{"error": {"message": "x"}}\n\ndata: [DONE]\n\n'
    seen = _read(frames(delta_chunk("a"), delta_chunk(text), delta_chunk(text), STOP, DONE))
    assert seen.failure is None
    assert _texts(seen.out) == "a" + text + text


def test_a_frame_over_a_mebibyte_is_a_failure() -> None:
    """In one piece or in many; frames before it come out."""
    long = frames(delta_chunk("x" * MAX_FRAME_BYTES))
    good = frames(delta_chunk("Hi"))
    for pieces in ([good + long], [good, *[long[at : at + 65536] for at in range(0, len(long), 65536)]]):
        seen = read(_reader(), pieces)
        assert seen.failure is not None
        assert seen.failure[0] == "upstream_protocol"
        assert _texts(seen.out) == "Hi"


def test_pretty_printed_json_over_several_lines_is_one_frame() -> None:
    """Each line as its own `data:` line; the client gets it in one."""
    lines = msgspec.json.format(msgspec.json.encode(delta_chunk("Hi")), indent=1).split(b"\n")
    data = b"".join([b"data: %b\n" % line for line in lines]) + b"\n"
    bound = engine("vllm", public_name="demo-8b")
    seen = read(bound.open_stream(request()), [data + frames(STOP, DONE)])
    assert seen.out.startswith(b'data: {"id":"chatcmpl-req-7-1","object":')
    assert seen.done


@pytest.mark.parametrize("together", [True, False])
def test_a_replica_that_overruns_max_tokens_is_cut_off(together: bool) -> None:
    """One frame of held-back text above the limit is fine, the next one ends the answer with `length`."""
    asked = request(max_tokens=3)
    data = [frames(ROLE), *[frames(delta_chunk(text)) for text in "abcdefgh"]]
    seen = read(_reader("vllm", asked), [b"".join(data)] if together else data)
    assert (seen.done, seen.failure, seen.finish_reason) == (True, None, "length")
    assert _texts(seen.out) == "abcd"
    assert _chunks(seen.out)[-2]["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert seen.out.endswith(b"data: [DONE]\n\n")


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200), st.lists(st.integers(0, 1 << 16), max_size=3))
def test_no_bytes_make_a_reader_raise(noise: bytes, cuts: list[int]) -> None:
    """Noise in the middle of a stream, in any pieces, ends the same way."""
    data = frames(ROLE, delta_chunk("Hi"), delta_chunk("there")) + noise + frames(STOP, DONE)
    at = sorted(cut % (len(data) + 1) for cut in cuts)
    pieces = [data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)]
    assert read(_reader(), pieces) == read(_reader(), [data])
