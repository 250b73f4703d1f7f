"""What the control plane's client makes of good, bad and hostile answers."""

import asyncio
import socket

import pytest

from router.fleet import control_client
from router.fleet.control_client import Answer, ControlClient, NoAnswer
from tests.support.scripted_server import Reply, answer, drip, hang, raw, serving


def got(reply: Reply, *, timeout_s: float = 10.0) -> Answer:
    async def run() -> Answer:
        async with serving(x=reply) as server:
            client = ControlClient(keep_alive=True)
            try:
                return await client.get(f"{server.url}/x", {"a": "b"}, timeout_s)
            finally:
                await client.close()

    return asyncio.run(run())


def test_an_answer_is_its_status_and_its_content() -> None:
    """Any status is an answer; a redirect is not followed."""
    assert got(answer(200, b"hello")) == Answer(200, b"hello")
    assert got(answer(503, b"no")) == Answer(503, b"no")
    moved = raw(b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere.invalid/\r\ncontent-length: 0\r\n\r\n")
    assert got(moved).status == 302


@pytest.mark.parametrize("reply", [hang, drip, raw(b""), raw(b"garbage\r\n\r\n")])
def test_trouble_is_one_exception_within_the_time(reply: Reply) -> None:
    """Silence, a body that never ends, a cut and nonsense all raise the same, and none is a refusal."""
    with pytest.raises(NoAnswer) as raised:
        got(reply, timeout_s=0.3)
    assert not raised.value.refused
    assert str(raised.value)


def test_a_body_is_read_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica cannot fill the router's memory."""
    monkeypatch.setattr(control_client, "MAX_BYTES", 1000)
    assert len(got(answer(200, b"x" * 1000)).content) == 1000
    with pytest.raises(NoAnswer, match="larger than 1000 bytes"):
        got(answer(200, b"x" * 1001))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_refusal_is_told_apart(host: str) -> None:
    """Nobody listens, at one address or at all addresses of a name."""

    async def run() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            client = ControlClient(keep_alive=False)
            with pytest.raises(NoAnswer, match="connection refused") as raised:
                await client.status(f"http://{host}:{unused.getsockname()[1]}/", {}, 5.0)
            assert raised.value.refused
            await client.close()

    asyncio.run(run())


def test_a_url_that_is_none_is_no_answer() -> None:
    """A broken address is reported like a broken replica."""

    async def run() -> None:
        client = ControlClient(keep_alive=False)
        with pytest.raises(NoAnswer):
            await client.status("http://a:notaport/", {}, 1.0)
        await client.close()

    asyncio.run(run())


def test_a_question_that_changes_something_is_a_post() -> None:
    """With a bound of its own, because what was read is gone at the other end."""

    async def run() -> None:
        async with serving(x=answer(200, b"hello")) as server:
            client = ControlClient(keep_alive=True)
            assert await client.post(f"{server.url}/x", {"a": "b"}, 1.0, 5) == Answer(200, b"hello")
            assert server.methods == ["POST"]
            with pytest.raises(NoAnswer, match="larger than 4 bytes"):
                await client.post(f"{server.url}/x", {}, 1.0, 4)
            await client.close()

    asyncio.run(run())
