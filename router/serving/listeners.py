"""Sockets that several processes listen on.

Each worker has its own socket of a port that they share (SO_REUSEPORT): the kernel spreads new connections
evenly. With one inherited socket whoever wakes first takes them; bursts of 64 to 256 connections were seen to
go 40 to 216 over two workers and 4 to 34 over four, and kept-alive connections stay where they are.
"""

import socket
from collections.abc import Sequence
from typing import Any


def exclusive(host: str, port: int) -> list[socket.socket]:
    """Bind every address of `host`, nobody else's. Port 0: a free one. Raises `OSError`."""
    return _bound(host, port, shared=False)


def reserve(host: str, port: int) -> list[socket.socket]:
    """Bind so that `beside` may bind too. Raises `OSError` also if another router shares the port already."""
    for sock in exclusive(host, port):
        sock.close()
    return _bound(host, port, shared=True)


def beside(reserved: Sequence[socket.socket]) -> list[socket.socket]:
    """One more socket for each of these addresses; as long as it does not listen, it gets no connections."""
    return [_bind(sock.family, sock.getsockname(), shared=True) for sock in reserved]


def url_of(sock: socket.socket) -> str:
    """The base URL of what listens here."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _bound(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            free = bound[0].getsockname()[1] if bound else port
            bound.append(_bind(family, (address[0], free, *address[2:]), shared=shared))
    except OSError as error:
        for sock in bound:
            sock.close()
        raise OSError(error.errno, f"{host} port {port}: {error.strerror}") from error
    return bound


def _bind(family: int, address: Any, *, shared: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
