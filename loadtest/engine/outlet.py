"""Where response bytes leave for the socket: at once, not at all for now, or one by one."""

import asyncio
import socket
import struct


class Outlet:
    """The write side of one connection. What cannot be written yet is kept in order."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._kept = bytearray()
        self._interval_s: float | None = None
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def write(self, data: bytes) -> bool:
        """Send, or keep while held or dripping; whether it went out at once."""
        if self._blocked:
            self._kept += data
        elif not self._closing and not self._transport.is_closing():
            self._transport.write(data)
            return True
        return False

    def hold(self, duration_s: float | None) -> None:
        """Keep everything from now on; after `duration_s`, if given, send it all."""
        self._blocked = True
        if duration_s is not None:
            self._timer = asyncio.get_running_loop().call_later(duration_s, self._open)

    def drip(self, interval_s: float) -> None:
        """Send one byte each `interval_s` from now on, for the rest of the connection's life."""
        self._blocked = True
        self._interval_s = interval_s
        self._drop()

    def _open(self) -> None:
        self._blocked = False
        kept, self._kept = bytes(self._kept), bytearray()
        if kept and not self._transport.is_closing():
            self._transport.write(kept)
        if self._closing:
            self._transport.close()

    def _drop(self) -> None:
        if self._kept and not self._transport.is_closing():
            self._transport.write(bytes(self._kept[:1]))
            del self._kept[:1]
        if self._closing and not self._kept:
            self._transport.close()
            return
        self._timer = asyncio.get_running_loop().call_later(self._interval_s or 0, self._drop)

    def close(self) -> None:
        """Close in good order once everything kept has been sent; a hang without end keeps it open."""
        self._closing = True
        if not self._blocked:
            self._transport.close()

    def finish_writing(self) -> None:
        """Send FIN and nothing more; the other direction stays open."""
        if self._transport.can_write_eof() and not self._transport.is_closing():
            self._transport.write_eof()
        self._closing = True
        self._blocked = True

    def reset(self) -> None:
        """Send RST: unsent data is dropped and the peer sees a connection reset."""
        peer = self._transport.get_extra_info("socket")
        if peer is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()
        self.dispose()

    def dispose(self) -> None:
        """The connection is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
