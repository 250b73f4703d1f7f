"""Quiet frames are recognised and translated exactly: never a frame too many, never a wrong byte."""

import json

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from router.engines.quiet import QuietForm, learn

HEAD = b'data: {"id":"a","model":"demo","choices":[{"delta":{"content":"'
TAIL = b'"},"finish_reason":null}]}\n\n'
HEAD_OUT = HEAD.replace(b"demo", b"llama")
TAIL_OUT = TAIL.replace(b"null", b"nil")
TRICKY = st.lists(
    st.sampled_from([
        '"', "\\", "{", "}", "[DONE]", '"error"', '"usage":{', "\n", "\n\n", "data: ", "\x00", "\x1f", "é", "🙂",
        "a", HEAD.decode(), TAIL.decode(), '"},"', "\u2028",
    ])
).map("".join)  # fmt: skip


def _form() -> QuietForm:
    form = learn(HEAD + b"Hi" + TAIL, HEAD_OUT + b"Hi" + TAIL_OUT, "content", "Hi")
    assert form is not None
    return form


def _body(text: str) -> bytes:
    return msgspec.json.encode(text)[1:-1]


def test_a_form_is_learned_from_one_frame_and_its_translation() -> None:
    """All but the text is the form."""
    assert _form() == QuietForm(HEAD, TAIL, HEAD_OUT, TAIL_OUT)


@settings(deadline=None)
@given(st.lists(TRICKY, min_size=1, max_size=5))
def test_any_texts_in_the_form_are_quiet_and_translated(texts: list[str]) -> None:
    """Quotes, braces, other frames and end marks as text do not disturb it, in one piece or many."""
    form = _form()
    data = b"".join([HEAD + _body(text) + TAIL for text in texts])
    assert form.count(data) == len(texts)
    expected = b"".join([HEAD_OUT + _body(text) + TAIL_OUT for text in texts])
    assert form.translate(data, len(texts)) == expected


@settings(deadline=None)
@given(st.lists(TRICKY, min_size=1, max_size=3), st.integers(0, 1 << 16), TRICKY)
def test_what_is_counted_is_made_of_quiet_frames(texts: list[str], at: int, noise: str) -> None:
    """With anything put in anywhere, either it is refused or it still parses as that many frames."""
    data = b"".join([HEAD + _body(text) + TAIL for text in texts])
    at %= len(data) + 1
    spoilt = data[:at] + noise.encode() + data[at:]
    count = _form().count(spoilt)
    if count:
        found = [frame + b"\n\n" for frame in spoilt.split(b"\n\n")[:-1]]
        assert len(found) == count
        for frame in found:
            assert frame.startswith(HEAD)
            assert frame.endswith(TAIL)
            json.loads(frame[6:].decode(errors="replace"))


def test_cut_frames_and_other_frames_are_not_quiet() -> None:
    """A finish, a comment, a missing byte, another head."""
    form, frame = _form(), HEAD + b"Hi" + TAIL
    for data in (
        frame[:-1],
        frame[1:],
        frame + b"\n",
        b":\n\n" + frame,
        frame + b"data: [DONE]\n\n",
        frame.replace(b"null", b'"stop"'),
        frame.replace(b'"a"', b'"b"'),
        frame.replace(b"\n\n", b"\r\n\r\n"),
        HEAD + b"Hi\\" + TAIL,
        HEAD + b"Hi\\" + TAIL + HEAD + b"nHi" + TAIL,
        HEAD + b'Hi","more":"' + TAIL,
        HEAD + TAIL[1:],
        b"",
    ):
        assert form.count(data) == 0


def test_nothing_is_learned_from_an_ambiguous_frame() -> None:
    """The text twice under one name, or written otherwise than expected."""
    twice = b'data: {"content":"Hi","x":{"content":"Hi"}}\n\n'
    assert learn(twice, twice, "content", "Hi") is None
    escaped = b'data: {"content":"\\u0048i"}\n\n'
    assert learn(escaped, escaped, "content", "Hi") is None
    assert learn(b'data: {"text_output":"Hi"}\n\n', HEAD + b"Hi" + TAIL, "", "Hi", "content") is None


def test_a_form_that_changes_nothing_gives_the_same_object() -> None:
    """A stream that needs no translation is not even copied."""
    form = learn(HEAD + b"Hi" + TAIL, HEAD + b"Hi" + TAIL, "content", "Hi")
    assert form is not None
    data = HEAD + b"there" + TAIL
    assert form.translate(data, 1) is data
    assert form.translate(data * 3, 3) == data * 3
