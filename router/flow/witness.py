"""Keeps what a client is told, to be looked at when all has been said: for what a release compares."""

from typing import Final

from policies.release.observation import Bad
from router.api.answer_signs import signs_of
from router.api.request import Usage
from router.engines.engine import Failure, StreamReader

MAX_BYTES: Final = 262_144
"""Of a longer answer nothing is said."""


class Witness:
    """What one attempt told the client, up to a bound."""

    __slots__ = ("_bytes", "_kept", "_stream")

    def __init__(self, *, stream: bool) -> None:
        self._stream = stream
        self._kept: list[bytes] = []
        self._bytes = 0

    def keep(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes <= MAX_BYTES:
            self._kept.append(data)
        else:
            self._kept.clear()

    def signs(self) -> frozenset[Bad]:
        """What is wrong with it, as far as the bytes tell."""
        if not 0 < self._bytes <= MAX_BYTES:
            return frozenset()
        return signs_of(b"".join(self._kept), stream=self._stream)


class WitnessedReader:
    """A stream reader whose frames are kept as they pass."""

    __slots__ = ("_inner", "_witness")

    def __init__(self, inner: StreamReader, witness: Witness) -> None:
        self._inner = inner
        self._witness = witness

    @property
    def started(self) -> bool:
        return self._inner.started

    @property
    def done(self) -> bool:
        return self._inner.done

    @property
    def failure(self) -> Failure | None:
        return self._inner.failure

    @property
    def usage(self) -> Usage | None:
        return self._inner.usage

    @property
    def finish_reason(self) -> str | None:
        return self._inner.finish_reason

    @property
    def pieces(self) -> int:
        return self._inner.pieces

    def stop_after(self, pieces: int) -> None:
        self._inner.stop_after(pieces)

    def feed(self, data: bytes) -> bytes:
        frames = self._inner.feed(data)
        self._witness.keep(frames)
        return frames

    def end(self) -> bytes:
        frames = self._inner.end()
        self._witness.keep(frames)
        return frames
