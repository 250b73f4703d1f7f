"""Ports that the workers of one router share, and nobody else."""

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

from router.serving.listeners import beside, exclusive, reserve, url_of

V6 = pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")


@contextlib.contextmanager
def closing(*groups: list[socket.socket]) -> Iterator[None]:
    try:
        yield
    finally:
        for group in groups:
            for sock in group:
                sock.close()


def test_connections_go_to_those_that_listen() -> None:
    """To all of them, and never to the reservation or to one that is bound only."""
    reserved = reserve("127.0.0.1", 0)
    one, other, idle = beside(reserved), beside(reserved), beside(reserved)
    with closing(reserved, one, other, idle):
        address = reserved[0].getsockname()
        with socket.socket() as client, pytest.raises(ConnectionRefusedError):
            client.connect(address)
        for listener in (one[0], other[0]):
            listener.listen(100)
            listener.settimeout(0)
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(address, timeout=5))
            taken = Counter(
                name for name, sock in (("one", one[0]), ("other", other[0])) for _ in _all_of(sock)
            )
        assert taken.total() == 60
        assert min(taken["one"], taken["other"]) > 5


def _all_of(listener: socket.socket) -> Iterator[None]:
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.close()
            yield


def test_another_router_is_refused() -> None:
    """Whether it would share the port or not; the message names the place."""
    reserved = reserve("127.0.0.1", 0)
    working = beside(reserved)
    with closing(reserved, working):
        working[0].listen()
        port = working[0].getsockname()[1]
        for bind in (reserve, exclusive):
            with pytest.raises(OSError, match=f"127.0.0.1 port {port}: Address already in use"):
                bind("127.0.0.1", port)


def test_every_address_of_a_name_gets_the_same_port() -> None:
    """Port 0 is chosen once."""
    bound = exclusive("localhost", 0)
    with closing(bound):
        assert len({sock.getsockname()[1] for sock in bound}) == 1


@V6
def test_urls() -> None:
    """As clients write them, for both families."""
    for host, expected in (("127.0.0.1", "http://127.0.0.1:"), ("::1", "http://[::1]:")):
        try:
            bound = exclusive(host, 0)
        except OSError:
            assert host == "::1"  # a machine may have the family, and no address of it
            continue
        with closing(bound):
            assert url_of(bound[0]) == f"{expected}{bound[0].getsockname()[1]}"
