"""What is kept of an answer that is to be compared with another: its beginning, in bounded memory.

The client's way meets `keep` alone, which puts a reference into a list.
"""

import asyncio
from typing import Final

from router.api.said import text_pieces, whole_text

_SLICE: Final = 32
"""Frames that are read before others have their turn: a tenth of a millisecond."""


class Transcript:
    """One answer in the client's dialect, up to `most` bytes; 0 where its text does not matter."""

    __slots__ = ("_parts", "_size", "cut", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self.cut = False
        """The answer is longer than what is kept."""
        self._parts: list[bytes] = []
        self._size = 0

    def keep(self, data: bytes) -> None:
        """A piece as the client is given it: whole frames, or the whole answer."""
        self._size += len(data)
        if self._size > self.most:
            self.cut = True
        if not self.cut:
            self._parts.append(data)

    @property
    def whole(self) -> bytes:
        """All of it; empty if it is longer than what is kept."""
        return b"" if self.cut else b"".join(self._parts)

    async def text(self, *, stream: bool) -> str | None:
        """What it says, as far as it is kept; None where that is not known. Takes turns with others."""
        content = b"".join(self._parts)
        if not stream:
            return None if self.cut else whole_text(content)
        texts = []
        for number, piece in enumerate(text_pieces(content)):
            texts.append(piece)
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
        return "".join(texts)
