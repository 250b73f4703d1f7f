"""Quiet frames: those of a stream that differ from one already read in their text alone.

Most frames of a stream are `head + text + tail` with the same head and tail. Once one of them went the long
way (decoded, judged, encoded), the others are recognised and translated with a handful of byte operations.
"""

import re
from dataclasses import dataclass, field
from typing import Final

import msgspec

# What may stand between the quotes of a JSON string (RFC 8259, section 7).
_STRING_BODY: Final = re.compile(rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*')
# Every byte that may stand in a string as it is becomes a letter: `isalpha` then says whether all are such.
_PLAIN: Final = bytes(byte if byte < 0x20 or byte in b'"\\' else 0x61 for byte in range(256))


@dataclass(slots=True)
class QuietForm:
    """Heads end with the quote that opens the text, tails begin with the one that closes it.

    A tail ends with its frame's blank line. The text is a JSON string's body, so a head or a tail, with
    quotes of its own, cannot hide in it.
    """

    head: bytes
    tail: bytes
    head_out: bytes
    tail_out: bytes
    begin: int = field(init=False)
    end: int = field(init=False)
    same: bool = field(init=False)

    def __post_init__(self) -> None:
        self.begin, self.end = len(self.head), len(self.tail)
        self.same = self.head == self.head_out and self.tail == self.tail_out

    def pass_on(self, data: bytes) -> bytes | None:
        """One quiet frame of plain text, as nearly all are, to the client's; None for anything else."""
        if not (data.startswith(self.head) and data.endswith(self.tail)):
            return None
        text = data[self.begin : -self.end]
        if not text.translate(_PLAIN).isalpha():
            return None
        return data if self.same else self.head_out + text + self.tail_out

    def count(self, data: bytes) -> int:
        """How many frames `data` is made of, if all of them are quiet and none is cut; else 0."""
        if not (data.startswith(self.head) and data.endswith(self.tail)):
            return 0
        start, stop = len(self.head), len(data) - len(self.tail)
        if _STRING_BODY.fullmatch(data, start, stop):
            return 1
        seam = self.tail + self.head
        middle = data[start:stop] if start < stop else b""
        seams = middle.count(seam)
        # A space for a seam: a backslash that escapes the seam's first quote must not find a partner.
        if seams and _STRING_BODY.fullmatch(middle.replace(seam, b" ")):
            return seams + 1
        return 0

    def translate(self, data: bytes, count: int) -> bytes:
        """`count` quiet frames to the client's."""
        if count == 1 and self.tail_out == self.tail:
            return data if self.head_out == self.head else self.head_out + data[len(self.head) :]
        if self.head_out != self.head:
            data = data.replace(self.head, self.head_out)
        return data if self.tail_out == self.tail else data.replace(self.tail, self.tail_out)


def learn(
    frame: bytes, frame_out: bytes, member: str, text: str, member_out: str | None = None
) -> QuietForm | None:
    """The form of a frame (with its blank line), from what the long way made of it.

    `text` is the value of `member` in `frame` and of `member_out` in `frame_out`. None where it is not found
    exactly once in both: then the long way it is.
    """
    string = msgspec.json.encode(text)
    before, after = _halves(frame, member, string)
    before_out, after_out = _halves(frame_out, member_out or member, string)
    if not before or not before_out:
        return None
    return QuietForm(before, after, before_out, after_out)


def _halves(frame: bytes, member: str, string: bytes) -> tuple[bytes, bytes]:
    """The frame before and after a member's text; empty where that text is not there exactly once."""
    label = b'"%b":' % member.encode()
    needle = label + string
    if frame.count(needle) != 1:
        return b"", b""
    at = frame.index(needle) + len(label)
    return frame[: at + 1], frame[at + len(string) - 1 :]
