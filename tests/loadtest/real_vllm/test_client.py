"""The clients, over real sockets: what they send, and what they make of good and of bad answers."""

import asyncio
import json
from collections.abc import Sequence
from random import Random

import pytest

from loadtest.real_vllm.client import Seen, drive
from loadtest.real_vllm.workloads import ANSWER_TOKENS, Conversations, Message, Turn
from tests.support.scripted_server import Reply, ScriptedServer, serving
from tests.support.simulated import simulated_engines

CHAT = Conversations("c", "", clients=2, sessions=4, turns_each=3, message_words=(40, 60))
PATH = "/v1/chat/completions"
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
PIECES = b"".join(
    b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % p for p in (b"aa", b" bb")
)
DONE = b'data: {"choices":[]}\n\ndata: [DONE]\n\n'


def answering(server: ScriptedServer, content: bytes, bodies: list[dict[str, object]]) -> Reply:
    """These bytes, and then the connection ends; the bodies of the requests are kept."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(json.loads(await reader.readexactly(int(server.headers[-1]["content-length"]))))
        writer.write(content)
        writer.close()

    return reply


def asked(content: bytes, turns: Sequence[Turn]) -> tuple[Seen, list[dict[str, object]]]:
    """One client's turns, all answered alike."""

    async def run() -> tuple[Seen, list[dict[str, object]]]:
        bodies: list[dict[str, object]] = []
        async with serving() as server:
            server.replies[PATH] = answering(server, content, bodies)
            return await drive(server.port, [turns], 16), bodies

    return asyncio.run(run())


def test_every_turn_of_a_workload_is_answered() -> None:
    """By a simulated vLLM: a first token each, and all of what later turns share with earlier ones is there."""

    async def run() -> Seen:
        async with simulated_engines("vllm", model="m", block_size=16) as (engine,):
            port = int(engine.url.rpartition(":")[2])
            return await drive(port, CHAT.turns(Random(1)), 16)

    seen = asyncio.run(run())
    assert len(seen.first_tokens_s) == 4 * 3
    assert not seen.errors
    assert 0.3 < seen.endless.hit_share < 0.7
    assert 0 < max(seen.first_tokens_s) < seen.seconds


def test_the_next_turn_holds_the_answer_to_the_last() -> None:
    """And each asks for a stream of so many tokens, whatever the model would rather say."""
    hello, more = Message("user", "hello"), Message("user", "more")
    seen, bodies = asked(HEAD + ROLE + PIECES + DONE, [Turn(0, (hello,)), Turn(0, (more,)), Turn(1, (more,))])
    history = [message._asdict() for message in (hello, Message("assistant", "aa bb"), more)]
    assert [body["messages"] for body in bodies] == [history[:1], history, history[2:]]
    assert {(body["stream"], body["max_tokens"], body["ignore_eos"]) for body in bodies} == {
        (True, ANSWER_TOKENS, True)
    }
    assert len(seen.first_tokens_s) == 3


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", "status 503"),
        (HEAD + ROLE + PIECES, "no whole answer"),
        (HEAD + ROLE + DONE, "no whole answer"),
        (HEAD + b"data: {\n\n", "DecodeError"),
        (b"", "RemoteProtocolError"),
    ],
    ids=["refused", "cut", "empty", "garbled", "closed"],
)
def test_what_is_no_whole_answer_is_an_error_and_has_no_first_token(content: bytes, kind: str) -> None:
    """It is counted by kind, and the client goes on."""
    turn = Turn(0, (Message("user", "hello"),))
    seen, bodies = asked(content, [turn, turn])
    assert seen.errors == {kind: 2}
    assert len(bodies) == 2
    assert not seen.first_tokens_s
