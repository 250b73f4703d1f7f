"""What only the kernel knows of a connection. Where it does not tell, the answer is the harmless one."""

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios

_HUNG_UP = (7, 8)
"""TCP_CLOSE and TCP_CLOSE_WAIT, first member of Linux's `struct tcp_info` (include/net/tcp_states.h)."""


def has_hung_up(transport: asyncio.Transport | None) -> bool:
    """Whether the peer has closed a connection that is not being read from."""
    sock = _socket_of(transport)
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return False
    state: int = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state in _HUNG_UP


def untaken_bytes(transport: asyncio.Transport | None) -> int:
    """What was written and the peer's machine has not acknowledged: here, and in the kernel's queue."""
    if transport is None:
        return 0
    queued = bytes(4)
    sock = _socket_of(transport)
    if sock is not None:
        with contextlib.suppress(OSError):
            queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, queued)
    return transport.get_write_buffer_size() + int(struct.unpack("i", queued)[0])


def _socket_of(transport: asyncio.Transport | None) -> socket.socket | None:
    """The socket, while it is open."""
    sock: socket.socket | None = None if transport is None else transport.get_extra_info("socket")
    return None if sock is None or sock.fileno() < 0 else sock
