"""Frames come out of an event stream the same however its bytes arrive."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.engines.sse import MAX_FRAME_BYTES, Event, FrameSplitter, frame_of, read_event, read_object

BYTES = st.lists(
    st.sampled_from([
        b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"data: ", b"x", b":", b": note", b"event: a", b"id: 1",
        b"\xef\xbb\xbf", b" ", b"\x00", b"\xc3", b"\xa9", b"data", b"[DONE]", b"retry: 9",
    ])
).map(b"".join)  # fmt: skip


def _frames(pieces: list[bytes], opening: bytes = b"") -> list[bytes]:
    splitter = FrameSplitter()
    splitter.feed(opening)
    return [frame for piece in pieces for frame in splitter.feed(piece)] + splitter.end()


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[begin:end] for begin, end in pairwise(at)]


@settings(deadline=None)
@given(BYTES, st.lists(st.integers(0, 1 << 16), max_size=8))
def test_frames_do_not_depend_on_where_the_pieces_break(data: bytes, cuts: list[int]) -> None:
    """Cut anywhere or nowhere, also inside a line end, a character or the byte order mark."""
    whole = _frames([data])
    assert _frames(_split(data, cuts)) == whole
    assert _frames([bytes([byte]) for byte in data]) == whole
    later = _frames([data], b"data: 0\n\n")
    assert _frames(_split(data, cuts), b"data: 0\n\n") == later
    assert _frames([bytes([byte]) for byte in data], b"data: 0\n\n") == later


@settings(deadline=None)
@given(st.binary(), st.lists(st.integers(0, 1 << 16), max_size=4))
def test_no_bytes_make_it_raise(data: bytes, cuts: list[int]) -> None:
    """Noise is split and read without an exception."""
    for frame in _frames(_split(data, cuts)):
        event = read_event(frame)
        if event is not None:
            read_object(event.data)


def _reference(text: str) -> list[Event]:
    """The event-stream grammar as the WHATWG standard words it, line by line."""
    events, name, data = [], "", []
    for line in text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line == "":
            if data:
                events.append(Event(name.strip(" ").encode(), "\n".join(data).strip(" ").encode()))
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return events


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["\n", "\r", "\r\n", "\n\n", "data:", "data: a", "b", ":", "event: n", "id:", "\ufeff", " "]
        )
    ).map("".join)
)
def test_events_are_those_of_the_standard(text: str) -> None:
    """All line ends, comments, names, several lines of data; an unfinished last event counts here."""
    events = [event for frame in _frames([text.encode()]) if (event := read_event(frame)) is not None]
    assert events == _reference(text + "\n\n")


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (b"data: {}", Event(b"", b"{}")),
        (b"data:{}", Event(b"", b"{}")),
        (b"data: {} ", Event(b"", b"{}")),
        (b"event: error\ndata: {}", Event(b"error", b"{}")),
        (b"data: [1,\ndata: 2]", Event(b"", b"[1,\n 2]")),
        (b": still here\nid: 7\nretry: 9\ndata: {}", Event(b"", b"{}")),
        (b":", None),
        (b"id: 7", None),
        (b"", None),
    ],
)
def test_one_frame_is_one_event_or_none(frame: bytes, event: Event | None) -> None:
    """The fields that matter, and those that do not."""
    assert read_event(frame) == event


def test_a_byte_order_mark_opens_a_stream_and_nothing_else() -> None:
    """Cut off the first frame, kept in any other."""
    marked = b"\xef\xbb\xbfdata: 1\n\n"
    assert _frames([marked, marked]) == [b"data: 1", b"\xef\xbb\xbfdata: 1"]


@pytest.mark.parametrize("data", [b"data: 1\n\n\n", b"\n\n\n\n", b"data: 1\n\n\n\n\n", b"\ndata: 1\n\n"])
def test_too_many_blank_lines_are_no_frames(data: bytes) -> None:
    """Wherever in the stream they are, however they arrive."""
    one_by_one = _frames([bytes([byte]) for byte in data], b"data: 0\n\n")
    assert _frames([data], b"data: 0\n\n") == one_by_one
    assert b"" not in one_by_one


def test_a_frame_over_the_limit_ends_it() -> None:
    """One byte more than 1 MiB, in one piece or in many, and nothing more comes out."""
    fits = b"x" * MAX_FRAME_BYTES
    splitter = FrameSplitter()
    assert splitter.feed(fits + b"\n\n") == [fits]
    assert not splitter.overflowed
    splitter.feed(fits)
    assert not splitter.overflowed
    assert splitter.feed(b"y") == []
    assert splitter.overflowed
    assert splitter.feed(b"\n\ndata: {}\n\n") == []
    at_once = FrameSplitter()
    assert at_once.feed(b"data: 1\n\n" + fits + b"y\n\ndata: 2\n\n") == [b"data: 1"]
    assert at_once.overflowed


def test_the_work_grows_with_the_bytes_and_not_with_the_pieces() -> None:
    """A frame that arrives in a hundred thousand pieces is searched once, not once a piece."""
    splitter = FrameSplitter()
    for _ in range(100_000):
        splitter.feed(b"xxxxx")
        assert splitter._searched >= len(splitter.carry) - 1
    assert splitter.feed(b"\n\n") == [b"xxxxx" * 100_000]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"{", b'{"a":NaN}', b"[" * 100_000, b'{"a":"\xff"}', b"\x00"]
)
def test_what_is_no_json_object_is_none(data: bytes) -> None:
    """However broken or deep."""
    assert read_object(data) is None


def test_a_frame_on_the_wire() -> None:
    """What goes out can be read back."""
    assert frame_of(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert read_object(b'{"a":1}') == {"a": 1}
