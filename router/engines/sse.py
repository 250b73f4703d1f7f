"""Server-sent events, split out of bytes that arrive in any pieces.

The events are those of the WHATWG event-stream grammar, whatever the line ends and wherever the pieces
break; the work is linear in the bytes, and no more than one event is ever kept.
"""

from typing import Any, Final, NamedTuple

import msgspec

MAX_FRAME_BYTES: Final = 1 << 20
DONE: Final = b"[DONE]"
_BLANK_LINE: Final = b"\n\n"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. `name` is empty for an ordinary one; `data` has no spaces around it."""

    name: bytes
    data: bytes


def frame_of(data: bytes) -> bytes:
    """One unnamed event, as it goes over the wire. `data` holds no line end."""
    return b"data: " + data + _BLANK_LINE


def read_event(frame: bytes) -> Event | None:
    """The event of a frame whose line ends are LF; None where it is comments and bookkeeping only.

    Data is JSON or `[DONE]` here, so spaces around it mean nothing (trtllm-serve leaves one behind its
    first chunk). `id:` and `retry:` serve reconnecting browsers and are dropped.
    """
    if frame.startswith(b"data:") and b"\n" not in frame:
        return Event(b"", frame[5:].strip(b" "))
    name, lines = b"", []
    for line in frame.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value.strip(b" ")
    if not lines:
        return None
    return Event(name, b"\n".join(lines).strip(b" "))


def read_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object that `data` is; None for everything else, however broken or deep."""
    try:
        members = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return members if isinstance(members, dict) else None


class FrameSplitter:
    """Bytes in, whole frames out: their line ends are LF, their closing blank line is cut off."""

    __slots__ = ("_after_cr", "_at_start", "_searched", "carry", "overflowed")

    def __init__(self) -> None:
        self.carry = bytearray()
        """The frame that is still arriving."""
        self.overflowed = False
        """A frame was longer than `MAX_FRAME_BYTES`: nothing more comes out."""
        self._after_cr = False
        self._at_start = True
        self._searched = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are now complete, in order."""
        if self.overflowed or not data:
            return []
        if self._is_regular(data):
            return data[:-2].split(_BLANK_LINE)
        carry = self.carry
        carry += self._with_lf(data)
        frames: list[bytes] = []
        begin = 0
        while (end := carry.find(_BLANK_LINE, max(begin, self._searched))) >= 0:
            if end - begin > MAX_FRAME_BYTES:
                self.overflowed = True
                return frames
            if frame := self._whole(carry, begin, end):
                frames.append(frame)
            begin = end + 2
        del carry[:begin]
        # The last byte may be the first half of a blank line.
        self._searched = max(len(carry) - 1, 0)
        self.overflowed = len(carry) - carry.endswith(b"\n") > MAX_FRAME_BYTES
        return frames

    def end(self) -> list[bytes]:
        """The body ended: a last frame without its blank line still counts."""
        return self.feed(b"\n\n") if self.carry else []

    def _is_regular(self, data: bytes) -> bool:
        """Whole frames with plain line ends, as most pieces are: no need for the buffer."""
        return (
            data.endswith(_BLANK_LINE)
            and not (self.carry or self._after_cr or self._at_start)
            and len(data) <= MAX_FRAME_BYTES
            and b"\r" not in data
            and b"\n\n\n" not in data
            and not data.startswith(b"\n")
        )

    def _whole(self, carry: bytearray, begin: int, end: int) -> bytes:
        frame = bytes(carry[begin:end])
        if self._at_start:
            self._at_start = False
            frame = frame.removeprefix(_BYTE_ORDER_MARK)
        return frame

    def _with_lf(self, data: bytes) -> bytes:
        """Line ends to LF; a CR that ended the piece before swallows the LF that opens this one."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
            if not data:
                return b""
        self._after_cr = data.endswith(b"\r")
        if b"\r" not in data:
            return data
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
