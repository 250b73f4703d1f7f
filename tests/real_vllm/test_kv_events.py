"""A real vLLM's KV events, its own tokenizer and template: prompts meet the blocks that it says it holds."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from policies.routing.events import BlocksRemoved, BlocksStored, CacheLost, Event
from router.api.request import Endpoint
from router.config.model import KvEventsConfig
from router.fleet.kv_events import KvEvents, KvFigures
from router.fleet.replicas import Replica as RouterReplica
from router.fleet.stations import Station, Watched
from router.fleet.token_blocks import TokenBlocks
from router.fleet.token_prompts import TokenPrompts
from router.fleet.tokenizing import Tokenizer
from tests.real_vllm.replicas import MODEL, Replica, free_port, missing, model_folder, running
from tests.real_vllm.wire import ask, post
from tests.router.engines.making import request
from tests.support.bare_replicas import replica as bare_replica
from tests.support.scripted_server import until

pytestmark = [pytest.mark.real_vllm, pytest.mark.timeout(900)]

KEY = b"key"
BLOCK_TOKENS = 128
UNIT = 16
BLOCKS = TokenBlocks(KEY, UNIT)
LONG = "A turnout guides each train from one track onto another. " * 40


class Publishing:
    """A replica with events, and where they are."""

    def __init__(self, replica: Replica, port: int) -> None:
        self.replica = replica
        endpoint, replay = (f"tcp://127.0.0.1:{each}" for each in (port, port + 1))
        self.config = KvEventsConfig(endpoint=endpoint, replay_endpoint=replay, topic="kv-events")


@pytest.fixture(scope="module")
def publishing() -> Iterator[Publishing]:
    if reason := missing():
        pytest.skip(reason)
    port = free_port()
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{port}",
        "replay_endpoint": f"tcp://*:{port + 1}",
        "topic": "kv-events",
    }
    with running(1, options=("--kv-events-config", json.dumps(events))) as (started,):
        yield Publishing(started, port)


class Mirror:
    """What a policy would know."""

    def __init__(self, publishing: Publishing) -> None:
        own = bare_replica(publishing.replica.url)
        station = Station(engine="vllm", url=publishing.replica.url, kv_events=publishing.config)
        self.watched = Watched(own, station, MODEL, "", UNIT)
        self.blocks: set[int] = set()
        self.events = KvEvents(KEY, self._tell)
        self.events.follow([self.watched])

    def _tell(self, _: RouterReplica, event: Event) -> None:
        match event:
            case CacheLost():
                self.blocks.clear()
            case BlocksStored():
                self.blocks.update(event.blocks)
            case BlocksRemoved():
                self.blocks.difference_update(event.blocks)

    @property
    def figures(self) -> KvFigures:
        figures = self.events.figures(self.watched.replica)
        assert figures is not None
        return figures


def chat(text: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_tokens": 2, "temperature": 0, **more}


def send(publishing: Publishing, path: str, body: dict[str, Any]) -> None:
    assert ask(publishing.replica.port, post(path, body)).status == 200


def full(blocks: tuple[int, ...]) -> set[int]:
    """Those that fill the engine's blocks."""
    per_block = BLOCK_TOKENS // UNIT
    return set(blocks[: len(blocks) // per_block * per_block])


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        (Endpoint.CHAT, chat(LONG)),
        (Endpoint.CHAT, chat(LONG, cache_salt="tenant")),
        (Endpoint.COMPLETIONS, {"model": MODEL, "prompt": "Tracks. " * 400, "max_tokens": 2}),
        (Endpoint.COMPLETIONS, {"model": MODEL, "prompt": list(range(100, 900)), "max_tokens": 2}),
    ],
)
def test_a_prompt_meets_its_blocks(publishing: Publishing, endpoint: Endpoint, body: dict[str, Any]) -> None:
    """Chats, texts, token ids, and a salt: hashed before they are sent, found when they are cached."""
    prompts = TokenPrompts(Tokenizer(Path(model_folder())), BLOCKS)

    async def run() -> None:
        mirror = Mirror(publishing)
        await until(lambda: mirror.figures.connections == 1)
        prompt = prompts.prompt_of(request(endpoint, body))
        assert prompt is not None
        assert len(full(prompt.blocks)) >= 8
        await asyncio.to_thread(send, publishing, endpoint.path, body)
        await until(lambda: full(prompt.blocks) <= mirror.blocks)
        assert (mirror.figures.losses, mirror.figures.unreadable, mirror.figures.orphan_blocks) == (0, 0, 0)
        assert mirror.events.warnings(mirror.watched.replica) == ()
        await mirror.events.close()

    asyncio.run(run())


def test_who_comes_late_hears_everything(publishing: Publishing) -> None:
    """From its replay socket, whatever was sent before."""
    body = {"model": MODEL, "prompt": list(range(200, 600)), "max_tokens": 2}
    send(publishing, "/v1/completions", body)

    async def run() -> None:
        mirror = Mirror(publishing)
        await until(lambda: full(BLOCKS.hash(range(200, 600))) <= mirror.blocks)
        assert (mirror.figures.gaps, mirror.figures.losses) == (0, 0)
        await mirror.events.close()

    asyncio.run(run())
