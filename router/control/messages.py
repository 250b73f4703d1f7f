"""What workers and routers tell each other, as bytes: msgpack arrays without names, one batch a message.

Texts and hashes of a request are sent once, when it is dispatched; what follows names it by its serial
number. A prompt of 500 hashes takes 4.5 KB, 3 us to encode and 9 us to decode; an event without one takes
10 to 80 bytes and less than 1 us each way.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from policies.outcome import Ending, Outcome

SERIAL_BITS = 32
EPOCH_BITS = 16


class Place(NamedTuple):
    """A replica as one version of one model uses it."""

    model: str
    version: str
    replica: str


class Member(NamedTuple):
    """Who speaks: a process of a router. `epoch` tells its incarnations apart; 16 bits each, `router` 32."""

    router: int
    worker: int
    epoch: int

    @property
    def origin(self) -> int:
        """The upper half of its tickets."""
        return self.worker << EPOCH_BITS | self.epoch


class WirePrompt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    blocks: Sequence[int]
    tokens: int
    block_tokens: float
    exact: bool


class WireAnswer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Prompt and answer together: as many hashes of the dispatched prompt as are alike, then the others."""

    alike: int
    blocks: Sequence[int]
    tokens: int
    block_tokens: float
    exact: bool


class WireOutcome(msgspec.Struct, array_like=True, frozen=True, gc=False):
    ending: str
    sent_at: float
    first_token_at: float | None
    ended_at: float
    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None


class Began(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """`Dispatched`, with the only mention of its replica and its prompt."""

    place: Place
    serial: int
    at: float
    streamed: bool
    prompt: WirePrompt | None


class Answered(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """`FirstToken`."""

    serial: int
    at: float


class Ended(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """`Done`."""

    serial: int
    at: float
    outcome: WireOutcome | None
    answer: WireAnswer | None


class Flushed(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """`Forgotten`."""

    place: Place
    at: float


class Open(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Every request that the sender has in flight now: whoever missed something knows again."""

    serials: dict[Place, list[int]]


class Hello(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """The sender has joined: it knows nothing, and wants to be told what is open."""


class Bye(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """The sender leaves, and has nothing in flight any more."""


class WantState(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """To one member: send me what your policies have learned."""


class StatePart(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=9):
    """To one member: a part of what the policy of a version has learned, `number` of `parts` from 0."""

    model: str
    version: str
    number: int
    parts: int
    data: bytes


class Emptied(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    """`CacheLost`, number `number` of what the sender tells of this replica."""

    place: Place
    number: int
    at: float


class Stores(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=11):
    """`BlocksStored`."""

    place: Place
    number: int
    at: float
    blocks: Sequence[int]
    block_tokens: float | None


class Lacks(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=12):
    """`BlocksRemoved`."""

    place: Place
    number: int
    at: float
    blocks: Sequence[int]


Entry = (
    Began | Answered | Ended | Flushed | Open | Hello | Bye | WantState | StatePart | Emptied | Stores | Lacks
)


class Batch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One message. `sent_at` is the sender's clock, to which all times in it belong."""

    member: Member
    sent_at: float
    entries: list[Entry]


class _RawBatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The same with entries that are encoded already: they go out over several channels."""

    member: Member
    sent_at: float
    entries: list[msgspec.Raw]


class Undecodable(Exception):
    """Bytes that are no batch: another version of the router, or somebody else's message."""


class Codec:
    """Entries and batches to bytes and back."""

    def __init__(self) -> None:
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(Batch).decode

    def entry(self, entry: Entry) -> msgspec.Raw:
        return msgspec.Raw(self._encode(entry))

    def batch(self, member: Member, now: float, entries: list[msgspec.Raw]) -> bytes:
        return self._encode(_RawBatch(member, now, entries))

    def read(self, message: bytes) -> Batch:
        """Raises `Undecodable`."""
        try:
            return self._decode(message)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Undecodable(str(error)) from error


def wire_outcome(outcome: Outcome) -> WireOutcome:
    return WireOutcome(outcome.ending.value, *outcome[1:])


def outcome_from(wire: WireOutcome, shift_s: float) -> Outcome:
    """`shift_s` is added to the sender's times. Raises `ValueError` for an ending that is not known here."""
    first = wire.first_token_at
    return Outcome(
        Ending(wire.ending),
        wire.sent_at + shift_s,
        None if first is None else first + shift_s,
        wire.ended_at + shift_s,
        wire.prompt_tokens,
        wire.cached_tokens,
        wire.completion_tokens,
    )
