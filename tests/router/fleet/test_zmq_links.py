"""Sockets that say what is wrong with them, and an installation that lacks them."""

import asyncio
import sys
from pathlib import Path

import pytest

from router.fleet.extras import ExtraMissing, optional
from router.fleet.zmq_links import LinkError, Links
from tests.support.loops import run_strictly


def test_messages_go_both_ways(tmp_path: Path) -> None:
    """A dealer's questions, a router's answers, and a publisher's news to one topic."""

    async def run() -> None:
        links = Links()
        place = f"ipc://{tmp_path / 'a'}"
        router = links.router(place, 10)
        dealer = links.dealer(place, 10)
        await dealer.send((b"", b"question"))
        client, *question = await router.receive()
        assert question == [b"", b"question"]
        await router.send((client, b"", b"answer"))
        assert await dealer.receive() == [b"", b"answer"]
        news = f"ipc://{tmp_path / 'b'}"
        publisher = links.publisher(news, 10, bind=True)
        subscriber = links.subscriber(news, "on", 10)
        assert await subscriber.connection_changed()
        publisher.offer((b"off", b"1"))
        publisher.offer((b"on", b"2"))
        assert await subscriber.receive() == [b"on", b"2"]
        publisher.close()
        assert not await subscriber.connection_changed()
        links.close()

    run_strictly(run())


def test_a_wildcard_listens(tmp_path: Path) -> None:
    """For publishers that are told where to connect, as vLLM's may be."""

    async def run() -> None:
        links = Links()
        subscriber = links.subscriber("tcp://*:*", "", 10)
        place = subscriber._socket.getsockopt_string(links._zmq.LAST_ENDPOINT)
        publisher = links.publisher(place.replace("0.0.0.0", "127.0.0.1"), 10, bind=False)
        assert await subscriber.connection_changed()
        while True:
            publisher.offer((b"", b"news"))
            try:
                async with asyncio.timeout(0.01):
                    assert await subscriber.receive() == [b"", b"news"]
                    break
            except TimeoutError:
                continue
        links.close()

    run_strictly(run())


def test_sockets_that_cannot_be_opened_or_used(tmp_path: Path) -> None:
    """One error, which names the endpoint; what is closed twice is closed."""

    async def run() -> None:
        links = Links()
        with pytest.raises(LinkError, match="nonsense cannot be opened"):
            links.dealer("nonsense", 10)
        link = links.dealer(f"ipc://{tmp_path / 'a'}", 10)
        link.close()
        link.close()
        with pytest.raises(LinkError):
            await link.receive()
        with pytest.raises(LinkError):
            await link.send((b"x",))
        link.offer((b"x",))
        links.close()

    run_strictly(run())


def test_an_extra_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says how to get it."""
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(ExtraMissing, match=r"zmq is not installed: pip install 'turnout\[kv-events\]'"):
        Links()
    assert optional("json", "x").loads("1") == 1
