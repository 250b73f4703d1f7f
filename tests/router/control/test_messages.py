"""What goes over the wire comes back as it was; what is no message is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.outcome import Ending, Outcome
from router.control.messages import (
    Answered,
    Began,
    Bye,
    Codec,
    Emptied,
    Ended,
    Entry,
    Flushed,
    Hello,
    Lacks,
    Member,
    Open,
    Place,
    StatePart,
    Stores,
    Undecodable,
    WantState,
    WireAnswer,
    WireOutcome,
    WirePrompt,
    outcome_from,
    wire_outcome,
)

ME = Member(0xFFFF_FFFF, 0xFFFF, 0xFFFF)
AT = Place("m", "v1", "http://10.0.0.1:8000")
HASHES = [0, 1, 2**63, 2**64 - 1]
EVERY: list[Entry] = [
    Began(AT, 2**32 - 1, 1.5, True, WirePrompt(HASHES, 512, 128.0, False)),
    Began(AT, 0, 1.5, False, None),
    Answered(1, 2.5),
    Ended(1, 3.5, WireOutcome("completed", 1.0, None, 3.0, 1, None, 2), WireAnswer(4, [7], 600, 128.0, True)),
    Ended(1, 3.5, None, None),
    Flushed(AT, 0.0),
    Open({AT: [1, 2], Place("m", "v2", "b"): []}),
    Hello(),
    Bye(),
    WantState(),
    StatePart("m", "v1", 0, 2, b"\x00\xff"),
    Emptied(AT, 1, 1.5),
    Stores(AT, 2, 1.5, HASHES, 16.0),
    Stores(AT, 3, 1.5, [], None),
    Lacks(AT, 4, 1.5, HASHES),
]


def test_there_and_back() -> None:
    """Every kind of entry, in one batch and in its order."""
    codec = Codec()
    batch = codec.read(codec.batch(ME, 9.0, [codec.entry(each) for each in EVERY]))
    assert (batch.member, batch.sent_at, batch.entries) == (ME, 9.0, EVERY)
    assert {type(each) for each in EVERY} == set(Entry.__args__)


@pytest.mark.parametrize("ending", Ending)
def test_outcomes(ending: Ending) -> None:
    """All their times move together, also where one is unknown."""
    outcome = Outcome(ending, 1.0, None, 3.0, 10, None, 5)
    assert outcome_from(wire_outcome(outcome), 0.0) == outcome
    first = outcome._replace(first_token_at=2.0)
    later = first._replace(sent_at=101.0, first_token_at=102.0, ended_at=103.0)
    assert outcome_from(wire_outcome(first), 100.0) == later


@given(st.binary(max_size=200))
def test_what_is_no_message(data: bytes) -> None:
    """It is refused by that name and no other."""
    with pytest.raises(Undecodable):
        Codec().read(data)


@given(st.integers(0, 300), st.integers(0, 255))
def test_damaged_messages(at: int, byte: int) -> None:
    """They are refused, or read as something that is well-formed."""
    codec = Codec()
    message = bytearray(codec.batch(ME, 9.0, [codec.entry(each) for each in EVERY]))
    message[at % len(message)] = byte
    try:
        codec.read(bytes(message))
    except Undecodable:
        return


def test_a_request_is_small() -> None:
    """A prompt of 8,000 tokens with 64 hashes: under 700 bytes in all, the rest of its life under 100."""
    codec = Codec()
    prompt = WirePrompt([2**64 - 1 - number for number in range(64)], 8000, 128.0, False)
    assert len(codec.entry(Began(AT, 2**32 - 1, 1.5, True, prompt))) < 700
    rest = [Answered(1, 2.5), Ended(1, 3.5, WireOutcome("completed", 1.0, 2.0, 3.0, 1, 2, 3), None)]
    assert sum(len(codec.entry(each)) for each in rest) < 100
