"""Batches byte for byte as releases of vLLM encode them, and what a simulated one publishes."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.engine.vllm_kv_events import Cleared, Isolation, Layout, Removed, Stored
from router.fleet.zmq_links import Links
from tests.support.engine_client import engine, post, until
from tests.support.kv import config_json, places

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines"
RECORDED = json.loads((FIXTURES / "vllm" / "kv_events.json").read_bytes())
REAL = json.loads((FIXTURES / "vllm-recorded" / "kv_events.json").read_bytes())
FIRST, SECOND, THIRD = 8468860364822751900, 5659426989048894505, 13165046985235928266
STORED = Stored([FIRST, SECOND], None, list(range(100, 132)), 16, Isolation())
MORE = Stored([THIRD], SECOND, list(range(132, 148)), 16, Isolation())


@pytest.mark.parametrize(
    ("encoding", "release", "batches"),
    [
        ("array_encoding_v0.10.2_to_v0.13", (0, 11, 2), [[STORED, MORE], [Removed(THIRD), Cleared()]]),
        ("array_encoding_v0.14_to_v0.16", (0, 15), [[STORED]]),
        ("array_encoding_v0.17_to_v0.23", (0, 17), [[STORED]]),
    ],
)
def test_arrays(encoding: str, release: tuple[int, ...], batches: list[list[object]]) -> None:
    """The recorded bytes."""
    layout = Layout(release)
    for recorded, events in zip(RECORDED[encoding], batches, strict=True):
        assert layout.batch(recorded["decoded"][0], events, 0).hex() == recorded["payload_hex"]


def test_maps() -> None:
    """The recorded members in their order, and the kind of the cache, which later releases add."""
    recorded = RECORDED["map_encoding_v0.24_plus"]
    stored, removed, cleared = recorded
    payload = msgspec.msgpack.decode(Layout((0, 24)).batch(stored["decoded"][0], [STORED, MORE], 0))
    expected = [{**event, "kv_cache_spec_kind": "full_attention"} for event in stored["decoded"][1]]
    assert json.dumps(payload) == json.dumps([stored["decoded"][0], expected, 0])
    layout = Layout((0, 32))
    assert layout.batch(1787000001.5, [Removed(THIRD)], 0).hex() == removed["payload_hex"]
    assert layout.batch(1787000002.0, [Cleared()], 0).hex() == cleared["payload_hex"]


def test_a_real_ones_batches() -> None:
    """Two prompts, one of them salted, byte for byte."""
    layout = Layout((0, 32))
    for frames, isolation in zip(REAL["live"], (Isolation(), Isolation(salt="tenant")), strict=False):
        payload = bytes.fromhex(frames[-1])
        at, (event,), rank = msgspec.msgpack.decode(payload)
        stored = Stored(event["block_hashes"], None, event["token_ids"], event["block_size"], isolation)
        assert layout.batch(at, [stored], rank) == payload


def test_the_oldest_layout() -> None:
    """Five fields, negative hashes, no rank."""
    batch = msgspec.msgpack.decode(Layout((0, 9)).batch(1.0, [MORE, Removed(FIRST)], 0))
    assert batch == [
        1.0,
        [
            ["BlockStored", [THIRD - 2**64], SECOND, list(range(132, 148)), 16, None],
            ["BlockRemoved", [FIRST]],
        ],
    ]


def test_digests() -> None:
    """VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0."""
    (event,) = msgspec.msgpack.decode(Layout((0, 32), int_hashes=False).batch(1.0, [MORE], 0))[1]
    assert [len(each) for each in (*event["block_hashes"], event["parent_block_hash"])] == [32, 32]


class Wire:
    """Every message of one publisher."""

    def __init__(self) -> None:
        self.messages: list[list[bytes]] = []

    @property
    def events(self) -> list[Any]:
        return [event for frames in self.messages for event in msgspec.msgpack.decode(frames[2])[1]]

    def of(self, token_ids: list[int]) -> list[Any]:
        """The events that tell of these tokens."""
        return [event for event in self.events if event.get("token_ids") == token_ids]

    async def listen(self, links: Links, endpoint: str) -> None:
        link = links.subscriber(endpoint, "", 1000)
        while True:
            self.messages.append(await link.receive())


def test_a_simulated_engine_publishes_its_cache(tmp_path: Path) -> None:
    """Numbered, a batch a step; adapters and salts are told, and a flush with the step after it."""

    async def run() -> None:
        links, wire = Links(), Wire()
        extra = {"kv_events_config": config_json(tmp_path)}
        async with engine("vllm", extra=extra, loras=("tuned",), num_blocks=520, block_size=16) as vllm:
            listening = asyncio.create_task(wire.listen(links, places(tmp_path)[0]))
            ids = list(range(5000, 5040))
            body = {"prompt": ids, "max_tokens": 1, "temperature": 0}
            # Until it is connected, all is dropped.
            while not wire.messages:
                await post(vllm, "/v1/completions", {**body, "prompt": [len(wire.messages), *ids]})
                await post(vllm, "/reset_prefix_cache")
                await asyncio.sleep(0.01)
            await post(vllm, "/v1/completions", {**body, "cache_salt": "s"})
            await post(vllm, "/v1/completions", {**body, "model": "tuned"})
            await post(vllm, "/reset_prefix_cache")
            await until(lambda: len(wire.of(ids[:32])) == 2)
            salted, tuned = wire.of(ids[:32])
            assert (salted["token_ids"], salted["extra_keys"]) == (ids[:32], [["s"], None])
            assert (tuned["lora_name"], tuned["extra_keys"]) == ("tuned", [["tuned"], ["tuned"]])
            await post(vllm, "/v1/completions", body)
            await until(lambda: len(wire.of(ids[:32])) == 3)
            cleared, plain = msgspec.msgpack.decode(wire.messages[-1][2])[1]
            assert (cleared, plain["token_ids"]) == ({"type": "AllBlocksCleared"}, ids[:32])
            numbers = [int.from_bytes(frames[1], "big") for frames in wire.messages]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert {frames[0] for frames in wire.messages} == {b"kv-events"}
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        links.close()

    asyncio.run(run())


@pytest.mark.parametrize("text", ["{", "[]", '{"endpoint": 5}', '{"enable": true}'])
def test_a_wrong_configuration_is_refused(text: str) -> None:
    """As the real one refuses to start."""

    async def run() -> None:
        async with engine("vllm", extra={"kv_events_config": text}):
            raise AssertionError("it started")

    with pytest.raises(ValueError, match="kv_events_config"):
        asyncio.run(run())


@pytest.mark.parametrize("text", ["", "{}", '{"enable_kv_cache_events": true, "publisher": "null"}'])
def test_events_are_off_unless_asked_for(text: str) -> None:
    """No sockets, no listener."""

    async def run() -> None:
        async with engine("vllm", extra={"kv_events_config": text}) as vllm:
            assert vllm.core.cache.listeners == []
            assert vllm.dialect.traits.publishers == ()

    asyncio.run(run())
