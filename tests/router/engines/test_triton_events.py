"""Triton's events: delta or cumulative text, finish reasons, token counts."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.api.request import Endpoint, InferenceRequest, Usage
from router.engines.triton_events import Output, TextOutput
from tests.router.engines.making import Seen, engine, frames, read, request

COMPLETIONS = Endpoint.COMPLETIONS


def _added(texts: list[str], mode: Output | None, likely: Output = "delta") -> list[str | None]:
    output = TextOutput(mode, likely)
    return [*[output.add(text) for text in texts], output.rest()]


def _running(texts: list[str]) -> list[str]:
    return ["".join(texts[: count + 1]) for count in range(len(texts))]


# ---- which text is new ----


@settings(deadline=None)
@given(st.lists(st.text("ab 🙂", max_size=4), max_size=12))
def test_with_the_output_set_both_forms_give_the_same_text(texts: list[str]) -> None:
    """Whatever the text is."""
    assert "".join(map(str, _added(texts, "delta"))) == "".join(texts)
    assert "".join(map(str, _added(_running(texts), "cumulative"))) == "".join(texts)


@settings(deadline=None)
@given(st.lists(st.text("abcdefgh ", min_size=1, max_size=4), max_size=12))
def test_what_is_likely_decides_where_nothing_tells(texts: list[str]) -> None:
    """A cumulative stream is never taken for deltas."""
    assert "".join(map(str, _added(_running(texts), None, "cumulative"))) == "".join(texts)


def test_a_text_that_does_not_go_on_proves_delta_at_once() -> None:
    """The second event of almost every delta stream."""
    assert _added(["Hello", " there", "!"], None, "cumulative") == ["Hello", " there", "!", ""]


def test_three_growing_texts_prove_cumulative() -> None:
    """The second event is held until the third settles it."""
    texts = ["Hello", "Hello there", "Hello there!", "Hello there! Bye"]
    assert _added(texts, None, "delta") == ["Hello", "", " there!", " Bye", ""]


def test_two_events_leave_it_to_what_is_likely() -> None:
    """A word said twice, or one word longer."""
    assert _added(["ha", "ha"], None, "delta") == ["ha", "", "ha"]
    assert _added(["ha", "ha"], None, "cumulative") == ["ha", "", ""]
    assert _added(["ha", "hat"], None, "cumulative") == ["ha", "", "t"]
    assert _added(["ha", "hat"], None, "delta") == ["ha", "", "hat"]


def test_it_is_settled_after_eight_events_at_the_latest() -> None:
    """A stream of equal tokens is not held for ever."""
    added = _added([" "] * 10, None, "delta")
    assert "".join(map(str, added)) == " " * 10
    assert added[8] == " "


def test_a_character_that_is_still_coming_is_held_back() -> None:
    """A detokeniser shows it as U+FFFD and replaces it when the rest is there."""
    texts = ["Hi \ufffd", "Hi \ufffd", "Hi 🙂", "Hi 🙂!"]
    assert _added(texts, "cumulative") == ["Hi ", "", "🙂", "!", ""]
    assert _added(["Hi \ufffd"], "cumulative") == ["Hi ", "\ufffd"]
    assert "".join(map(str, _added(texts, None, "cumulative"))) == "Hi 🙂!"


def test_text_that_is_taken_back_is_a_contradiction() -> None:
    """What was sent cannot be changed."""
    assert _added(["Hello", "Help"], "cumulative")[1] is None


# ---- events to chunks ----


def _read(events: list[dict[str, Any]], asked: InferenceRequest | None = None, **target: Any) -> Seen:
    bound = engine("triton", chat_template="x", **target)
    return read(
        bound.open_stream(asked or request(COMPLETIONS, {"prompt": "p", "stream": True})), [frames(*events)]
    )


def _events(*texts: str, **more: Any) -> list[dict[str, Any]]:
    return [{"model_name": "m", "model_version": "1", "text_output": text, **more} for text in texts]


def _chunks(out: bytes) -> list[Any]:
    return [msgspec.json.decode(frame[6:]) for frame in out.split(b"\n\n")[:-1] if frame != b"data: [DONE]"]


def test_a_chat_without_a_word_has_a_role() -> None:
    """Once, before the finish, as every chat has."""
    opening, end = (chunk["choices"][0] for chunk in _chunks(_read(_events(""), request()).out))
    assert opening["delta"] == {"role": "assistant", "content": ""}
    assert (end["delta"], end["finish_reason"]) == ({}, "stop")


def test_a_clean_end_is_a_stop() -> None:
    """Where no event tells how it ended, and fewer pieces came than tokens were allowed."""
    asked = request(COMPLETIONS, {"prompt": "p", "stream": True}, max_tokens=4)
    assert _read(_events("a", "b", "c"), asked).finish_reason == "stop"
    assert _read(_events("a", "b", "c", "d"), asked).finish_reason == "length"


@pytest.mark.parametrize(("said", "heard"), [("stop", "stop"), ("length", "length")])
def test_the_engines_own_finish_reason(said: str, heard: str) -> None:
    """The LLM API tells it, after `None` in Python's words."""
    events = _events("a", finish_reason="None") + _events("ab", finish_reason=said)
    seen = _read(events, layout="llmapi")
    assert (seen.done, seen.finish_reason) == (True, heard)
    assert [chunk["choices"][0]["text"] for chunk in _chunks(seen.out)] == ["a", "b", ""]


@pytest.mark.parametrize("reason", ["None", "cancelled", "timeout"])
def test_an_end_without_the_promised_finish_is_a_failure(reason: str) -> None:
    """A cut body looks like a clean one; the finish reason is the second proof."""
    seen = _read(_events("a", finish_reason="None") + _events("ab", finish_reason=reason), layout="llmapi")
    assert seen.failure is not None
    assert b"[DONE]" not in seen.out


@pytest.mark.parametrize("event", [{}, {"text_output": ["a", "b"]}, {"text_output": 7}])
def test_an_event_without_one_text_is_a_failure(event: dict[str, Any]) -> None:
    """Several sequences are never asked for."""
    seen = _read([*_events("a"), event])
    assert seen.failure is not None
    assert seen.failure[0] == "upstream_protocol"


def test_text_taken_back_is_a_failure_that_names_the_option() -> None:
    """The operator may have set `output` wrong."""
    seen = _read(_events("Hello", " there"), output="cumulative")
    assert seen.failure is not None
    assert "`output`" in seen.failure[1]


def test_token_counts_are_summed_where_the_model_tells_them() -> None:
    """Long way and quiet way alike, one token an event or more."""
    asked = request(COMPLETIONS, {"prompt": "p", "stream": True}, include_usage=True)
    told = {"num_input_tokens": 7, "num_output_tokens": 1}
    seen = _read(_events("a", "b", "c", "d", **told), asked, output="delta")
    assert seen.usage == Usage(7, 4)
    assert _chunks(seen.out)[-1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
    two = _read(_events("a", "b", "c", num_input_tokens=7, num_output_tokens=2), asked, output="delta")
    assert two.usage == Usage(7, 6)


def test_usage_is_an_estimate_that_says_so_where_nothing_is_counted() -> None:
    """For clients that asked; nobody bills by it: the reader's own usage stays unknown."""
    asked = request(COMPLETIONS, {"prompt": "x" * 38, "stream": True}, include_usage=True)
    seen = _read(_events("a", "b", "c"), asked)
    assert seen.usage is None
    assert _chunks(seen.out)[-1]["usage"] == {
        "prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13, "estimated": True,
    }  # fmt: skip
    assert b"usage" not in _read(_events("a")).out


def test_no_event_at_all_is_still_an_answer() -> None:
    """The end token came first."""
    seen = _read([])
    assert (seen.done, seen.finish_reason) == (True, "stop")
