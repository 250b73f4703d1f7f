"""Scripted faults: what goes wrong, when, how often. Decides only; the server does the deeds and reports
them here.

A fault is written `kind[=value][@phase][;option=value...]`, several are joined by commas: `reset@5`,
`status=503`, `drip=0.02@3`, `hang=2@head`, `error@7;p=0.1;times=3`. A phase is `start` (request read,
nothing answered), `head` (status line sent), or a number of output tokens. They come from the port's
script, from the `x-fault` header, or from `[[fault:...]]` anywhere in the body.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from loadtest.engine.dialect import Request

_MARKER: Final = re.compile(rb"\[\[fault:([^\]]+)\]\]")


class Kind(StrEnum):
    """What happens. Those of a port last until they are cleared, the others hit one request at a time."""

    REFUSE = "refuse"
    """Port: nobody listens. With a value: for so many seconds."""
    BLACK_HOLE = "black_hole"
    """Port: connections are accepted and never read."""
    SLOW = "slow"
    """Port: every engine step takes `value` times as long."""
    STALL = "stall"
    """Port: the engine hangs while its HTTP server lives on; health stays good."""
    DEAD = "dead"
    """Port: the engine process is dead, and its HTTP server knows."""
    HEALTH_DOWN = "health_down"
    """Port: health paths answer that the engine is bad."""
    HEALTH_HANG = "health_hang"
    """Port: health paths never answer."""
    STATUS = "status"
    """This status with the dialect's own error body, instead of an answer."""
    RESET = "reset"
    """The connection is reset (RST)."""
    HALF_CLOSE = "half_close"
    """The server's half of the connection is closed (FIN) and nothing more is sent."""
    END = "end"
    """The body ends early but in good form: neither a finish reason nor `[DONE]`."""
    HANG = "hang"
    """Nothing more is sent. With a value: for so many seconds, then everything at once."""
    DRIP = "drip"
    """From here on one byte each `value` seconds."""
    JUNK = "junk"
    """Bytes that are not HTTP, then the connection is closed."""
    OVERSIZE_HEAD = "oversize_head"
    """A response head of `value` bytes."""
    TRUNCATE_CHUNK = "truncate_chunk"
    """A chunk that announces more than comes before the connection is closed."""
    EXTRA_BYTES = "extra_bytes"
    """Bytes after the complete response on a connection that stays open."""
    ERROR = "error"
    """The generation fails: an error inside the stream, or a 500 if nothing is streamed."""
    ABORT = "abort"
    """The engine aborts the generation: finish reason `abort`."""
    NO_DONE = "no_done"
    """The stream ends without its `[DONE]`."""
    DIE = "die"
    """The replica dies: all its connections are reset and nobody listens any more."""


PORT_KINDS: Final = frozenset(
    {Kind.REFUSE, Kind.BLACK_HOLE, Kind.SLOW, Kind.STALL, Kind.DEAD, Kind.HEALTH_DOWN, Kind.HEALTH_HANG}
)
_LATE_KINDS: Final = frozenset({Kind.ERROR, Kind.ABORT, Kind.END, Kind.TRUNCATE_CHUNK})
"""Kinds that need a response to go wrong in; without a phase they happen before the first token."""
_EARLY_KINDS: Final = frozenset({Kind.STATUS, Kind.OVERSIZE_HEAD})
_DEFAULT_VALUES: Final = {Kind.SLOW: 10.0, Kind.STATUS: 500.0, Kind.DRIP: 0.05, Kind.OVERSIZE_HEAD: 131_072.0}
START: Final = -1
HEAD: Final = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong. `at` is START, HEAD, or a number of output tokens."""

    kind: Kind
    value: float | None = None
    at: int = START
    probability: float = 1.0
    times: int | None = None
    """How many requests it hits at most."""
    path: str | None = None
    """Only requests whose path starts so; None: generation requests (POST)."""
    text: str = ""
    """As written."""

    def covers(self, request: Request) -> bool:
        """Whether it is meant for this request at all."""
        return request.method == "POST" if self.path is None else request.path.startswith(self.path)


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read a comma-separated script; raises ValueError saying what is wrong with which fault."""
    return tuple(_parse_fault(part.strip()) for part in text.split(",") if part.strip())


def _parse_fault(text: str) -> Fault:
    what, *options = text.split(";")
    what, _, phase = what.partition("@")
    name, _, value = what.partition("=")
    try:
        kind = Kind(name)
        settings = dict(option.split("=", 1) for option in options)
        fault = Fault(
            kind=kind,
            value=float(value) if value else _DEFAULT_VALUES.get(kind),
            at=_phase(kind, phase),
            probability=float(settings.pop("p", 1.0)),
            times=int(settings.pop("times")) if "times" in settings else None,
            path=settings.pop("path", None),
            text=text,
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"fault {text!r}: {error}") from error
    if settings:
        raise ValueError(f"fault {text!r}: unknown option {next(iter(settings))!r}")
    return fault


def _marked(text: str) -> tuple[Fault, ...]:
    """A request's own script; raises ValueError for what only a port can do."""
    script = parse_faults(text)
    for fault in script:
        if fault.kind in PORT_KINDS:
            raise ValueError(f"fault {fault.text!r}: only a whole port can have it")
    return script


def _phase(kind: Kind, phase: str) -> int:
    if phase not in ("", "start", "head") and not phase.isdigit():
        raise ValueError(f"unknown phase {phase!r}")
    if phase and phase != "start" and kind in _EARLY_KINDS:
        raise ValueError(f"{kind} happens before the response, not at {phase!r}")
    if phase.isdigit():
        return int(phase)
    return HEAD if phase == "head" or (not phase and kind in _LATE_KINDS) else START


@dataclass(frozen=True, slots=True)
class FaultEvent:
    """Something was made to go wrong. `at_s` is monotonic seconds."""

    at_s: float
    fault: str
    path: str | None


class FaultBook:
    """One port's faults, and what they did."""

    def __init__(self, seed: int = 0) -> None:
        self.events: list[FaultEvent] = []
        self.on_change: Callable[[], None] | None = None
        """Called after every change of the port's script."""
        self._random = Random(seed)
        self._script: tuple[Fault, ...] = ()
        self._hits: dict[str, int] = {}

    @property
    def script(self) -> tuple[Fault, ...]:
        """The port's faults."""
        return self._script

    def set(self, *faults: str, seed: int | None = None) -> None:
        """Replace the port's script; raises ValueError on a bad one, changing nothing."""
        script = tuple(fault for text in faults for fault in parse_faults(text))
        if seed is not None:
            self._random = Random(seed)
        self._script = script
        self._hits.clear()
        if self.on_change is not None:
            self.on_change()

    def clear(self) -> None:
        """Nothing goes wrong from now on."""
        self.set()

    def port(self, kind: Kind) -> Fault | None:
        """The port-wide fault of this kind, if it is set."""
        return next((fault for fault in self._script if fault.kind is kind), None)

    def for_request(self, request: Request) -> tuple[Fault, ...]:
        """What will go wrong with this request; counts against `times`. Bad markers raise ValueError."""
        marked = [request.headers["x-fault"]] if "x-fault" in request.headers else []
        marked += [match.decode("utf-8", "replace") for match in _MARKER.findall(request.body)]
        wanted = [fault for fault in self._script if fault.kind not in PORT_KINDS and fault.covers(request)]
        wanted += [fault for text in marked for fault in _marked(text)]
        return tuple(fault for fault in wanted if self._strikes(fault))

    def _strikes(self, fault: Fault) -> bool:
        if fault.probability < 1 and self._random.random() >= fault.probability:
            return False
        hits = self._hits.get(fault.text, 0)
        if fault.times is not None and hits >= fault.times:
            return False
        self._hits[fault.text] = hits + 1
        return True

    def note(self, fault: Fault, path: str | None) -> None:
        """Record that it happened now."""
        self.events.append(FaultEvent(time.monotonic(), fault.text, path))


def due(script: Iterable[Fault], before: int, now: int) -> Sequence[Fault]:
    """The faults of a script whose phase lies in (before, now]."""
    return [fault for fault in script if before < fault.at <= now]
