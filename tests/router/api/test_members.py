"""The top level of a body is read strictly: every member once, nothing too deep, errors that say what."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.api.errors import InvalidJson, RequestError
from router.api.members import read_members, write_members

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(st.text(max_size=10), VALUES, max_size=8),
    st.sampled_from([None, (",", ":"), (" , ", " : ")]),
)
def test_whatever_the_layout_the_members_are_those_that_json_reads(
    value: dict[str, object], separators: tuple[str, str] | None
) -> None:
    """Compact, Python's default and odd layouts give equal members, and writing them gives equal JSON."""
    body = json.dumps(value, separators=separators, ensure_ascii=False).encode()
    members = read_members(body, 64)
    assert {name: json.loads(bytes(raw)) for name, raw in members.items()} == value
    assert json.loads(write_members(members)) == value


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n", " :")])
@pytest.mark.parametrize("name", ["model", "stream", "max_tokens", "x"])
def test_a_member_that_stands_twice_is_refused_by_name(name: str, separators: tuple[str, str]) -> None:
    """No layout lets a repeated member through, be it equal or not, plain or written with escapes."""
    body = json.dumps({"model": "m", "stream": True, "max_tokens": 5, "x": 1, "n": 1}, separators=separators)
    escaped = f"\\u{ord(name[0]):04x}{name[1:]}"
    for again in (name, escaped):
        for value in ("1", "false", '"aaaaaaaaa"'):
            doubled = body[:-1] + separators[0] + f'"{again}"{separators[1]}{value}' + "}"
            with pytest.raises(RequestError, match=f"'{name}' stands twice") as caught:
                read_members(doubled.encode(), 64)
            assert caught.value.param == name


@pytest.mark.parametrize("filler", range(24))
def test_no_length_of_a_repeated_member_hides_it(filler: int) -> None:
    """The shortcut that compares lengths cannot be fooled by a repetition of just the right size."""
    body = '{"model":"m","a":1,"b":2,"c":3,"d":4,"model":"%s"}' % ("x" * filler)
    with pytest.raises(RequestError, match="'model' stands twice"):
        read_members(body.encode(), 64)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b'{"a":}', b'{"a":1,}', b"{'a':1}", b'{"a":NaN}', b'{"a":1}x', b'{"a":1}{"a":1}', b"\xff\xfe{}",
        b'{"a":"\xff"}', b'\xef\xbb\xbf{"a":1}', b'{"a":"\\ud800"}', b'{"a":Infinity}', b'{"a":01}',
    ],
)  # fmt: skip
def test_what_is_not_json_is_invalid_json(body: bytes) -> None:
    """Syntax, encoding and non-standard numbers are 400 invalid_json."""
    with pytest.raises(InvalidJson):
        read_members(body, 64)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true"])
def test_a_body_must_be_an_object(body: bytes) -> None:
    """Other JSON values are refused, and told what is wanted."""
    with pytest.raises(RequestError, match="must be a JSON object"):
        read_members(body, 64)


@pytest.mark.parametrize(
    ("depth", "fits"), [(62, True), (63, True), (64, False), (1000, False), (100_000, False)]
)
@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded_exactly(depth: int, fits: bool, opener: str, closer: str) -> None:
    """64 levels pass, 65 do not, and 100,000 cost nothing but a refusal."""
    body = ('{"a":' + opener * depth + "1" + closer * depth + "}").encode()
    if fits:
        assert list(read_members(body, 64)) == ["a"]
    else:
        with pytest.raises(InvalidJson, match="nests deeper than 64"):
            read_members(body, 64)


def test_brackets_in_text_are_not_depth() -> None:
    """Prompts full of code are not taken for nesting."""
    text = 'if (a[0]) { return "\\"{[{[" } ' * 500
    body = json.dumps({"messages": [{"role": "user", "content": text}] * 40}).encode()
    assert list(read_members(body, 8)) == ["messages"]


def test_values_keep_their_bytes() -> None:
    """What is not changed is passed on exactly as it came."""
    body = b'{"a":1.0e5, "b" : [ 1,2 ],"c":"\\u00e9\xc3\xa9"}'
    members = read_members(body, 64)
    assert {name: bytes(raw) for name, raw in members.items()} == {
        "a": b"1.0e5",
        "b": b"[ 1,2 ]",
        "c": b'"\\u00e9\xc3\xa9"',
    }
    assert write_members({**members, "d": msgspec.Raw(b"null")}) == (
        b'{"a":1.0e5,"b":[ 1,2 ],"c":"\\u00e9\xc3\xa9","d":null}'
    )


@given(VALUES, st.sampled_from([None, (",", ":")]), st.integers(1, 6))
def test_the_bound_of_the_depth_is_never_below_it(
    value: object, separators: tuple[str, str] | None, limit: int
) -> None:
    """The shortcut agrees with the exact count: nothing too deep passes, nothing shallow is refused."""

    def depth(part: object) -> int:
        if isinstance(part, dict):
            return 1 + max(map(depth, part.values()), default=0)
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    body = json.dumps({"a": value}, separators=separators).encode()
    if depth({"a": value}) <= limit:
        assert list(read_members(body, limit)) == ["a"]
    else:
        with pytest.raises(InvalidJson, match=f"deeper than {limit} levels"):
            read_members(body, limit)


def test_a_long_conversation_needs_no_exact_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of messages, one behind the other, are no depth."""
    monkeypatch.setattr("router.api.members._depth", lambda _: pytest.fail("counted"))
    for separators in (None, (",", ":")):
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}] * 500}, separators=separators)
        assert list(read_members(body.encode(), 8)) == ["messages"]
