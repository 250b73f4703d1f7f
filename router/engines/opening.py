"""The opening of a stream: frames that wait, so that an error right after them can still be retried."""

from router.engines.sse import MAX_FRAME_BYTES


class Opening:
    """Holds frames until the first that carries something; from then on they pass."""

    __slots__ = ("_held", "passed")

    def __init__(self) -> None:
        self.passed = False
        self._held = bytearray()

    def release(self, frames: bytes, *, carries: bool) -> bytes:
        """What the client gets now. No more than a frame's limit is ever held."""
        if self.passed:
            return frames
        self._held += frames
        if not carries and len(self._held) < MAX_FRAME_BYTES:
            return b""
        self.passed = True
        held = bytes(self._held)
        self._held.clear()
        return held
