"""trtllm-serve's events as they are pulled."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from router.engines.kv_cache_events import Removed, Stored, extra_of
from router.engines.trtllm_kv_events import Numbered, read_events

RECORDED = Path(__file__).parents[2] / "fixtures" / "engines" / "trtllm" / "kv_cache_events.json"
FIRST, SECOND = 12809241085271551977, 6705859311431260313


def entry(data: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode([{"event_id": 5, "data": data, "window_size": 100, **more}])


def block(block_hash: int | str, *ids: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "stored_block",
        "block_hash": block_hash,
        "tokens": [{"token_id": each} for each in ids],
        **more,
    }


def test_recorded() -> None:
    """Created, stored, moved to the host, removed; hashes beyond 2**53 keep all their digits."""
    created, stored, updated, removed = read_events(RECORDED.read_bytes())
    assert created == Numbered(0, 131072, ())
    first, second = stored.events
    assert first == Stored(None, [FIRST], list(range(100, 132)), 32, extras=[b""])
    assert isinstance(second, Stored)
    assert (second.parent, second.keys, second.token_ids[0]) == (FIRST, [SECOND], 132)
    assert updated == Numbered(2, 131072, ())
    assert removed.number == 3
    assert removed.events == (Removed([SECOND], None),)


def test_ranks_have_blocks_of_their_own() -> None:
    """The same hash on two ranks is two blocks; digests as well."""
    removed = {"type": "removed", "block_hashes": [7, "ab"]}
    (one,) = read_events(entry(removed))
    (two,) = read_events(entry(removed, attention_dp_rank=1))
    assert one.events == (Removed([7, b"0:ab"], None),)
    assert two.events == (Removed([7 | 1 << 64, b"1:ab"], None),)


def test_partial_blocks_and_images() -> None:
    """Each block has its own size and its own extra keys; one without tokens is passed over."""
    blocks = [block(1, 5, 6), block(2), block(3, 7, mm_keys=[["image", 0]])]
    blocks[0]["tokens"][0]["token_extra_id"] = 9
    (read,) = read_events(entry({"type": "stored", "parent_hash": 4, "blocks": blocks}))
    assert read.events == (
        Stored(4, [1], [5, 6], 2, extras=[extra_of([9, 0])]),
        Stored(2, [3], [7], 1, extras=[extra_of([["image", 0]])]),
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"event_id":-1,"data":{"type":"created"}}]',
        b'[{"event_id":1,"data":{"type":"stored"}}]',
    ],
)
def test_what_is_no_list_of_events(content: bytes) -> None:
    """One error, whatever is wrong."""
    with pytest.raises(ValueError, match="not the KV cache events"):
        read_events(content)
