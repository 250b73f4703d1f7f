"""A stream, frame by frame: held back until the first good frame, ended by `[DONE]` or by one error frame."""

import asyncio
from bisect import bisect_right
from math import inf
from time import monotonic

from policies.outcome import Ending
from router.api.errors import UpstreamProtocol
from router.engines.engine import Failure, StreamReader
from router.engines.sse import frame_of
from router.fleet.leases import Lease
from router.flow.call import EVENT_STREAM, Call, Limits
from router.flow.connection import Connection
from router.flow.relay import NOT_UTF8, Relay, is_utf8
from router.flow.watch import Watch
from router.observe.events import GAP_BOUNDS_S

_TRAILER_S = 1.0
"""How long a replica may take to end its body after the answer itself is complete."""


class StreamRelay(Relay):
    """A stream, frame by frame."""

    __slots__ = (
        "_between_tokens_s",
        "_delivered",
        "_exchange",
        "_gap_sum_s",
        "_gaps",
        "_last_at",
        "_latest",
        "_overrun",
        "_overrun_at",
        "_reader",
        "_transcript",
        "_witness",
    )

    def __init__(self, call: Call, lease: Lease, limits: Limits, watch: Watch, reader: StreamReader) -> None:
        super().__init__(call, lease, limits, watch)
        self._reader = reader
        self._exchange = call.exchange
        self._transcript = call.transcript
        self._witness = call.witness
        self._between_tokens_s = limits.between_tokens_s
        self._latest = call.deadline
        self._delivered = False
        self._last_at = 0.0
        self._gaps = [0] * (len(GAP_BOUNDS_S) + 1)
        self._gap_sum_s = 0.0
        self._overrun = None if call.limited is None else call.limited.overrun
        self._overrun_at = inf if self._overrun is None else self._overrun.due_at

    def launch(self, connection: Connection, request: bytes) -> None:
        self.deadline = min(monotonic() + self.limits.first_token_s, self._latest)
        super().launch(connection, request)

    def head(self, status: int, headers: dict[bytes, bytes]) -> None:
        super().head(status, headers)
        if status == 200 and not self._content_type.startswith("text/event-stream"):
            self.fail(
                Failure(UpstreamProtocol("the replica did not answer with an event stream"), retry=True)
            )

    def pause(self) -> None:
        """While the client does not read, silence is not the replica's."""
        super().pause()
        self.deadline = self._latest

    def resume(self) -> None:
        super().resume()
        self._last_at = now = monotonic()
        self.deadline = min(now + self._between_tokens_s, self._latest)

    def take(self, data: bytes) -> None:
        if self._over:
            return
        if self._delivered:
            # Nobody wants it, and there may be no end of it.
            self._close()
            return
        reader = self._reader
        # Usage and `[DONE]` are no tokens: they come at once, and would make the gaps look shorter.
        has_tokens = reader.finish_reason is None
        frames = reader.feed(data)
        if frames and not self._forward(frames, has_tokens=has_tokens):
            return
        if reader.failure is not None:
            self.fail(reader.failure)
        elif reader.done and self.decided_at is not None:
            self._finish()

    def ended(self) -> None:
        reader = self._reader
        if not reader.done:
            frames = reader.end()
            if frames and not self._forward(frames, has_tokens=False):
                return
        if reader.failure is not None:
            self.fail(reader.failure)
        elif self.decided_at is None:
            self.fail(Failure(UpstreamProtocol("the replica's stream was empty"), retry=True))
        else:
            self._finish()
            self.settle()

    @property
    def pieces(self) -> int:
        return self._reader.pieces

    def client_left(self) -> None:
        if self.decided_at is not None and not self._over:
            self._keep_figures()
        super().client_left()

    def fail(self, failure: Failure, ending: Ending | None = None) -> None:
        """After the first good frame the failure becomes the stream's last frame; after the last, nothing."""
        if self._over:
            return
        if self._delivered:
            self._close()
            return
        if self.decided_at is not None:
            self._keep_figures()
            self.call.error = failure.error
            self._exchange.write(frame_of(self.call.body_of(failure.error)))
            self.call.finish()
        super().fail(failure, ending)

    def _forward(self, frames: bytes, *, has_tokens: bool) -> bool:
        """Give the client these frames; False, and a failure, where they cannot be given."""
        if not (frames.isascii() or is_utf8(frames)):
            self.fail(NOT_UTF8)
            return False
        now = monotonic()
        if self.decided_at is None:
            self.decide(now)
            self.call.first_token_at = now
            self.call.begin(200, EVENT_STREAM, None, now)
        elif has_tokens:
            gap_s = now - self._last_at
            self._gap_sum_s += gap_s
            self._gaps[bisect_right(GAP_BOUNDS_S, gap_s)] += 1
        self._last_at = now
        silent_from = now + self._between_tokens_s
        self.deadline = min(self._latest, silent_from)
        self._exchange.write(frames)
        if self._transcript is not None:
            self._transcript.keep(frames)
        if self._witness is not None:
            self._witness.keep(frames)
        if self._reader.pieces >= self._overrun_at:
            self._extend()
        return True

    def _extend(self) -> None:
        """What was reserved is nearly used: ask for more while the stream goes on."""
        assert self._overrun is not None
        self._overrun_at = inf
        asking = self.loop.create_task(self._overrun.extend())
        asking.add_done_callback(self._extended)

    def _extended(self, asking: asyncio.Task[bool]) -> None:
        overrun, limited = self._overrun, self.call.limited
        assert overrun is not None
        assert limited is not None
        # Looked at also where the stream is over: what nobody looks at is logged as a defect.
        if asking.cancelled() or asking.exception() is not None or self._over or self._delivered:
            # Where the limits cannot be asked the stream runs on: that was decided when it was let in.
            return
        if asking.result():
            self._overrun_at = overrun.due_at
        else:
            limited.stopped(overrun.name)
            self._reader.stop_after(max(overrun.granted, self._reader.pieces))

    def _finish(self) -> None:
        """The client's stream is complete; the connection may still have a trailer to read."""
        if self._delivered:
            return
        self._delivered = True
        self._keep_figures()
        self._release_exchange()
        self.call.finish()
        if self._connection is not None:
            # A client that is still reading what was sent no longer holds up what comes next.
            self._connection.resume()
        self.deadline = monotonic() + _TRAILER_S

    def _close(self) -> None:
        """The client has everything; the replica's body need not end."""
        self.hang_up()
        self.settle()

    def _keep_figures(self) -> None:
        call = self.call
        call.usage = self._reader.usage
        call.finish_reason = self._reader.finish_reason
        call.gaps = self._gaps
        call.gap_sum_s = self._gap_sum_s
