"""vLLM's event batches, byte for byte as releases encode them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.engines.kv_cache_events import Cleared, Removed, Stored, extra_of
from router.engines.vllm_kv_events import read_batch

FIXTURES = Path(__file__).parents[2] / "fixtures" / "engines"
RECORDED = json.loads((FIXTURES / "vllm" / "kv_events.json").read_bytes())
REAL = json.loads((FIXTURES / "vllm-recorded" / "kv_events.json").read_bytes())
FIRST = Stored(None, [8468860364822751900, 5659426989048894505], list(range(100, 132)), 16)
SECOND = Stored(5659426989048894505, [13165046985235928266], list(range(132, 148)), 16)
REMOVED = Removed([13165046985235928266])

EVENTS = {
    "map_encoding_v0.24_plus": [[FIRST, SECOND], [REMOVED], [Cleared()]],
    "array_encoding_v0.10.2_to_v0.13": [[FIRST, SECOND], [REMOVED, Cleared()]],
    "array_encoding_v0.14_to_v0.16": [[FIRST]],
    "array_encoding_v0.17_to_v0.23": [[FIRST]],
}


def batch(*events: object) -> bytes:
    return msgspec.msgpack.encode([1.5, list(events), 0])


@pytest.mark.parametrize("encoding", EVENTS)
def test_recorded_batches(encoding: str) -> None:
    """Every encoding says the same."""
    for recorded, events in zip(RECORDED[encoding], EVENTS[encoding], strict=True):
        read = read_batch(bytes.fromhex(recorded["payload_hex"]))
        assert read.at == recorded["decoded"][0]
        assert read.events == events


def test_the_oldest_layout() -> None:
    """Five fields, negative hashes, no rank."""
    payload = msgspec.msgpack.encode(
        [2.0, [["BlockStored", [-1], -2, [7, 8], 2, None], ["BlockRemoved", [-1]]]]
    )
    stored = Stored(2**64 - 2, [2**64 - 1], [7, 8], 2)
    assert read_batch(payload).events == [stored, Removed([2**64 - 1], None)]


def test_a_batch_may_be_a_map() -> None:
    """As its events are since v0.24."""
    payload = msgspec.msgpack.encode(
        {"ts": 2.0, "events": [{"type": "AllBlocksCleared"}], "data_parallel_rank": 1}
    )
    assert read_batch(payload) == (2.0, [Cleared()])


def test_hashes_may_be_digests() -> None:
    """They stay what they are."""
    event = {"type": "BlockRemoved", "block_hashes": [b"\x00" * 32], "medium": "CPU", "group_idx": 2}
    assert read_batch(batch(event)).events == [Removed([b"\x00" * 32], "CPU", 2)]


def stored_map(**more: Any) -> dict[str, Any]:
    fields = {
        "type": "BlockStored",
        "block_hashes": [1, 2],
        "parent_block_hash": None,
        "token_ids": [5, 6, 7, 8],
        "block_size": 2,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
    }
    return {**fields, **more}


def read_stored(**more: Any) -> Stored:
    (event,) = read_batch(batch(stored_map(**more))).events
    assert isinstance(event, Stored)
    return event


def test_adapters() -> None:
    """By name; older releases tell a number only."""
    assert read_stored(lora_id=1, lora_name="support").adapter == "support"
    assert read_stored(lora_id=3).adapter == "#3"
    assert read_stored().adapter == ""


def test_what_else_tells_blocks_apart() -> None:
    """Salts and images per block; the adapter's name among them is told already."""
    assert read_stored(extra_keys=[None, None]).extras == ()
    assert read_stored(extra_keys=[["salt"], None]).extras == [extra_of(["salt"]), b""]
    named = read_stored(lora_id=1, lora_name="a", extra_keys=[["a", "salt"], ["a", ["image", 3]]])
    assert named.extras == [extra_of(["salt"]), extra_of([["image", 3]])]
    assert extra_of(["salt"]) != extra_of(["other"]) != b""
    assert read_stored(extra_keys=[["salt"]]).extras == ()


def test_offloaded_blocks_have_no_tokens() -> None:
    """They are told of all the same."""
    assert read_stored(token_ids=[], medium="CPU") == Stored(None, [1, 2], [], 2, medium="CPU")


@pytest.mark.parametrize(
    "event",
    [
        stored_map(token_ids=[5, 6, 7]),
        stored_map(kv_cache_spec_kind="sliding_window"),
        {"type": "BlockMoved", "block_hashes": [1]},
        ["BlockMoved", [1]],
    ],
)
def test_events_of_no_use_are_left_out(event: object) -> None:
    """Lengths that disagree, groups that forget, types that came later: the others are read."""
    assert read_batch(batch(event, ["AllBlocksCleared"])).events == [Cleared()]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93",
        b"not MessagePack at all",
        msgspec.msgpack.encode([1.0]),
        msgspec.msgpack.encode({"events": []}),
        batch(7),
        batch([]),
        batch({}),
        batch(stored_map(token_ids=[-1, 0, 0, 0])),
        batch(stored_map(token_ids=[2**32, 0, 0, 0])),
        batch(stored_map(block_size=0)),
        batch(stored_map(block_hashes=["x"])),
        batch(["BlockStored", [1]]),
        b"\x93\xcb" + bytes(8) + b"\x91" * 100_000,
    ],
)
def test_what_is_no_batch(payload: bytes) -> None:
    """One error, whatever is wrong."""
    with pytest.raises(ValueError, match="not a batch of KV events"):
        read_batch(payload)


def read_or_refuse(payload: bytes) -> None:
    try:
        read_batch(payload)
    except ValueError as error:
        assert "not a batch" in str(error)


@given(st.binary() | st.binary().map(lambda tail: b"\x93\xcb" + tail))
def test_any_bytes(payload: bytes) -> None:
    """Read, or refused."""
    read_or_refuse(payload)


@given(st.integers(0, 400), st.integers(0, 255))
def test_any_damage(at: int, byte: int) -> None:
    """One wrong byte in a real batch."""
    payload = bytearray.fromhex(RECORDED["map_encoding_v0.24_plus"][0]["payload_hex"])
    payload[at % len(payload)] = byte
    read_or_refuse(bytes(payload))


def test_what_a_real_one_sent() -> None:
    """A prompt, a salted one, evictions, and a flush that left with the step after it."""
    first, salted, evicting, last = (read_batch(bytes.fromhex(frames[-1])).events for frames in REAL["live"])
    (stored,) = first
    assert isinstance(stored, Stored)
    assert (stored.token_ids, stored.block_size, stored.extras) == (list(range(100, 356)), 128, ())
    (one,) = salted
    assert isinstance(one, Stored)
    assert one.extras == [extra_of(["tenant"])]
    assert {type(event) for event in evicting} == {Removed, Stored}
    assert (last[0], type(last[1])) == (Cleared(), Stored)
