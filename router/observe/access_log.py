"""One line of JSON per request, for whoever runs the service.

It holds names, numbers and codes, never what the client wrote or its key: not even the text of an
error, since an engine may quote the prompt in it. Writing never delays a request; see `log_writer`.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import msgspec

from router.observe.events import Attempt, Finished
from router.observe.log_writer import LogFile, LogWriter, Stream, Target

MAX_TEXT = 128
"""Characters of a path, an id or an engine's word that are kept."""


class Try(msgspec.Struct, frozen=True):
    """One attempt of a request that needed several."""

    replica: str
    reason: str
    ending: str
    wait_ms: float


class Line(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a line says; fields that do not apply are left out.

    `outcome` is `ok`, `client_left` or an error code; status 499 means that the client left first.
    `mean_gap_ms` is between two reads of a stream; `prompt_tokens` include the cached ones. `key` is the id
    of the client's key, `limit` the one that refused the request or ended its stream. `prefix` are the
    prompt's hashed blocks in hexadecimal, and `session` a hash: for `turnout simulate`, if asked for.
    """

    time: datetime
    request_id: str
    path: str
    status: int
    outcome: str
    attempts: int
    duration_ms: float
    overhead_ms: float
    bytes_in: int
    bytes_out: int
    model: str = ""
    version: str = ""
    engine: str = ""
    replica: str = ""
    stream: bool = False
    queue_wait_ms: float | None = None
    time_to_first_token_ms: float | None = None
    mean_gap_ms: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    tries: list[Try] = []
    tenant: str = ""
    key: str = ""
    limit: str = ""
    reserved_tokens: int | None = None
    charged_tokens: int | None = None
    session: str | None = None
    prefix: list[str] = []
    prefix_block_tokens: float | None = None


class AccessLog:
    """An observer: encodes a line on the event loop (some 3 us) and hands lines to a thread in batches.

    Lines beyond `max_pending_bytes` that wait for a slow target are dropped; `dropped_lines` counts.
    """

    def __init__(
        self,
        target: Target,
        *,
        flush_s: float = 0.1,
        max_pending_bytes: int = 8 << 20,
        log_prefixes: bool = False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._writer = LogWriter(target)
        self._encode = msgspec.json.Encoder().encode
        self._flush_s = flush_s
        self._log_prefixes = log_prefixes
        self._max_pending_bytes = max_pending_bytes
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._refused_lines = 0

    @property
    def dropped_lines(self) -> int:
        return self._refused_lines + self._writer.lost_lines

    def __call__(self, event: Finished) -> None:
        line = line_of(event)
        if self._log_prefixes and event.prompt is not None:
            line = _with_prefix(line, event)
        self._put(self._encode(line) + b"\n")

    def _put(self, line: bytes) -> None:
        if self._writer.pending_bytes + self._size + len(line) > self._max_pending_bytes:
            self._refused_lines += 1
            return
        self._lines.append(line)
        self._size += len(line)
        if self._timer is None:
            self._timer = self._loop.call_later(self._flush_s, self._flush)

    async def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, for at most `timeout_s`; call it once, last."""
        if self._timer is not None:
            self._timer.cancel()
            self._flush()
        await self._loop.run_in_executor(None, self._writer.close, timeout_s)

    def _flush(self) -> None:
        self._timer = None
        self._writer.put(self._lines)
        self._lines = []
        self._size = 0


def open_target(name: str) -> Target | None:
    """The target of `[server] access_log`: 'stdout', 'stderr', 'off' (None) or a file. Raises OSError."""
    if name == "off":
        return None
    descriptor = {"stdout": 1, "stderr": 2}.get(name)
    return LogFile(Path(name)) if descriptor is None else Stream(descriptor)


def line_of(event: Finished) -> Line:
    """Arguments are by position, in the order of the fields: keywords would double the cost of a line."""
    usage = event.usage
    ttft = event.time_to_first_token_s
    gaps = sum(event.gaps)
    return Line(
        datetime.fromtimestamp(event.at, UTC),
        _clean(event.request_id),
        _clean(event.path.partition("?")[0]),
        event.status,
        event.outcome,
        len(event.attempts),
        round(event.duration_s * 1e3, 3),
        round(event.overhead_s * 1e3, 3),
        event.bytes_in,
        event.bytes_out,
        event.model,
        event.version,
        event.engine,
        event.replica,
        event.stream,
        round(event.queue_wait_s * 1e3, 3) if event.queue_wait_s else None,
        None if ttft is None else round(ttft * 1e3, 3),
        round(event.gap_sum_s / gaps * 1e3, 3) if gaps else None,
        None if usage is None else usage.prompt_tokens,
        None if usage is None else usage.cached_tokens,
        None if usage is None else usage.completion_tokens,
        event.finish_reason and _clean(event.finish_reason),
        _tries(event.attempts) if len(event.attempts) > 1 else [],
        event.tenant,
        event.key,
        _refusing(event.limits) if event.limits else "",
        event.reserved_tokens,
        event.charged_tokens,
    )


def _with_prefix(line: Line, event: Finished) -> Line:
    prompt = event.prompt
    assert prompt is not None
    session = event.session
    return msgspec.structs.replace(
        line,
        session=None if session is None else blake2b(session.encode(), digest_size=8).hexdigest(),
        prefix=[f"{block:x}" for block in prompt.blocks],
        prefix_block_tokens=round(prompt.block_tokens, 2),
        prompt_tokens=prompt.tokens if line.prompt_tokens is None else line.prompt_tokens,
    )


def _tries(attempts: Sequence[Attempt]) -> list[Try]:
    return [Try(a.replica, a.reason, a.ending, round(a.wait_s * 1e3, 3)) for a in attempts]


def _refusing(limits: Sequence[tuple[str, str]]) -> str:
    return next((name for name, decision in limits if decision != "admitted"), "")


def _clean(text: str) -> str:
    """At most `MAX_TEXT` characters, and none that a terminal or a parser could take for a command."""
    text = text[:MAX_TEXT]
    if text.isascii() and text.isprintable():
        return text
    return text.encode("unicode_escape").decode("ascii")
