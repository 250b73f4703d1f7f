"""What each kind of fault does to an exchange."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from loadtest.engine.faults import Fault, Kind

if TYPE_CHECKING:
    from loadtest.engine.exchange import Exchange

JUNK: Final = b"\x15\x03\x01\x00\x02\x02\x16 this is not HTTP\r\n\r\n"


def _status(exchange: "Exchange", fault: Fault) -> None:
    status = int(fault.value or 500)
    exchange.send_whole(exchange.replica.dialect.error(status, f"injected fault: {status}"))


def _reset(exchange: "Exchange", _: Fault) -> None:
    exchange.cut()
    exchange.outlet.reset()


def _half_close(exchange: "Exchange", _: Fault) -> None:
    exchange.cut()
    exchange.outlet.finish_writing()


def _junk(exchange: "Exchange", _: Fault) -> None:
    exchange.write(JUNK)
    exchange.cut()
    exchange.outlet.close()


def _oversize_head(exchange: "Exchange", fault: Fault) -> None:
    exchange.send_head(200, (("x-filler", "x" * int(fault.value or 0)), ("content-length", "0")))
    exchange.complete()


def _truncate_chunk(exchange: "Exchange", _: Fault) -> None:
    exchange.write(b"400\r\ndata: ")
    exchange.cut()
    exchange.outlet.close()


def _end(exchange: "Exchange", _: Fault) -> None:
    exchange.abort_unfinished()
    if exchange.feed is not None:
        exchange.feed.finish_early()
    else:
        exchange.end(reuse=False)


def _hang(exchange: "Exchange", fault: Fault) -> None:
    exchange.hung = fault.value is None
    exchange.outlet.hold(fault.value)


def _drip(exchange: "Exchange", fault: Fault) -> None:
    exchange.outlet.drip(fault.value or 0.0)


def _error(exchange: "Exchange", _: Fault) -> None:
    for generation in exchange.unfinished():
        exchange.replica.core.fail(generation, "Internal server error")


def _abort(exchange: "Exchange", _: Fault) -> None:
    for generation in exchange.unfinished():
        exchange.replica.core.abort(generation)


def _die(exchange: "Exchange", _: Fault) -> None:
    exchange.cut()
    exchange.replica.die()


def _nothing(_: "Exchange", __: Fault) -> None:
    """Takes effect elsewhere: in the events, at the end, or on the whole port."""


DEEDS: Final["Mapping[Kind, Callable[[Exchange, Fault], None]]"] = MappingProxyType(
    {
        **dict.fromkeys(Kind, _nothing),
        Kind.STATUS: _status,
        Kind.RESET: _reset,
        Kind.HALF_CLOSE: _half_close,
        Kind.JUNK: _junk,
        Kind.OVERSIZE_HEAD: _oversize_head,
        Kind.TRUNCATE_CHUNK: _truncate_chunk,
        Kind.END: _end,
        Kind.HANG: _hang,
        Kind.DRIP: _drip,
        Kind.ERROR: _error,
        Kind.ABORT: _abort,
        Kind.DIE: _die,
    }
)
"""The deed of every kind."""
