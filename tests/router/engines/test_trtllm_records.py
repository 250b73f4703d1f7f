from typing import Any

import msgspec
import pytest

from router.engines.engine import ReplicaLoad
from router.engines.trtllm_records import Drained
from tests.support.wire import recorded

RECORDED = recorded("trtllm/metrics_iteration_stats.json")


def drained() -> Drained:
    return Drained(None, None)


def answer(*records: dict[str, Any]) -> bytes:
    return msgspec.json.encode([{"iter": number, **record} for number, record in enumerate(records)])


def test_everything_the_records_say() -> None:
    """Two iterations: 512 context tokens, 6 then 7 tokens generated; reused 2213 and missed 1400 of 32 tokens."""
    assert drained().add(RECORDED) == ReplicaLoad(
        running_requests=7,
        waiting_requests=2,
        max_running_requests=64,
        kv_usage_ratio=0.375,
        kv_capacity_tokens=262_144,
        kv_block_tokens=32,
        prefix_query_tokens=115_616,
        prefix_hit_tokens=70_816,
        prefix_hit_ratio=0.6125,
        prefill_tokens=512,
        prefill_tokens_computed=512,
        decode_tokens=13,
        queue_wait_seconds_sum=0,
        queue_wait_count=1,
        batch_utilisation=7 / 64,
        preemptions=0,
        heartbeat=8_842,
    )


def test_what_was_read_is_added_up() -> None:
    """The engine forgets what was read; totals go on, so that two readings make a rate."""
    records = drained()
    records.add(RECORDED)
    said = records.add(RECORDED)
    assert (said.prefill_tokens, said.decode_tokens, said.queue_wait_count) == (1_024, 26, 2)


def test_no_records_leave_gauges_unknown_and_totals_as_they_were() -> None:
    """An empty answer is an idle engine or one whose requests are all still running: nobody knows which."""
    records = drained()
    before = records.add(RECORDED)
    said = records.add(recorded("trtllm/metrics_empty.json"))
    assert (
        said.running_requests
        is said.waiting_requests
        is said.kv_usage_ratio
        is said.batch_utilisation
        is None
    )
    assert (said.decode_tokens, said.prefix_hit_tokens) == (before.decode_tokens, before.prefix_hit_tokens)
    assert (said.kv_capacity_tokens, said.heartbeat) == (before.kv_capacity_tokens, before.heartbeat)


def test_before_the_first_record_the_options_stand_in() -> None:
    """Nothing was counted, and nothing else is known."""
    said = Drained(32, 9_000).add(b"[]")
    assert (said.max_running_requests, said.kv_capacity_tokens, said.decode_tokens) == (32, 9_000, 0)
    assert said.heartbeat is said.running_requests is None


def test_speculation_makes_several_tokens_at_once() -> None:
    """Four requests with 2.5 tokens each, then four with 0.0, which means one each."""
    said = drained().add(
        answer(
            {"inflightBatchingStats": {"numGenRequests": 4, "avgNumDecodedTokensPerIter": 2.5}},
            {"inflightBatchingStats": {"numGenRequests": 4, "avgNumDecodedTokensPerIter": 0.0}},
        )
    )
    assert said.decode_tokens == 14


def test_waits_in_milliseconds_of_each_iteration() -> None:
    """TensorRT's executor: three new requests waited 30 ms together, then one 10 ms, and none in between."""
    said = drained().add(
        answer(
            {"numNewActiveRequests": 3, "newActiveRequestsQueueLatencyMS": 30.0},
            {"numNewActiveRequests": 0, "newActiveRequestsQueueLatencyMS": 0.0},
            {"numNewActiveRequests": 1, "newActiveRequestsQueueLatencyMS": 10.0},
        )
    )
    assert (said.queue_wait_seconds_sum, said.queue_wait_count) == (pytest.approx(0.04), 4)


def test_waits_in_seconds_since_the_start() -> None:
    """The PyTorch executor: 5.0 s before we came, then 0.25 s more, and it starts again with 0.1 s."""
    records = drained()
    first = records.add(
        answer(
            {"numNewActiveRequests": 0, "newActiveRequestsQueueLatencyMS": 5.0},
            {"numNewActiveRequests": 1, "newActiveRequestsQueueLatencyMS": 5.25},
            {"numNewActiveRequests": 0, "newActiveRequestsQueueLatencyMS": 5.25},
        )
    )
    assert first.queue_wait_seconds_sum == pytest.approx(0.25)
    again = records.add(answer({"numNewActiveRequests": 1, "newActiveRequestsQueueLatencyMS": 0.1}))
    assert again.queue_wait_seconds_sum == pytest.approx(0.35)


def test_ranks_of_one_iteration_are_one_replica() -> None:
    """Attention data parallelism: one record per rank, with the same number."""
    cache = {"maxNumBlocks": 100, "usedNumBlocks": 25, "tokensPerBlock": 32}
    records = [
        {"iter": 9, "attentionDpRank": rank, "numActiveRequests": 3 + rank, "kvCacheStats": cache}
        for rank in (0, 1)
    ]
    said = drained().add(msgspec.json.encode([{"iter": 8, "numActiveRequests": 50}, *records]))
    assert (said.running_requests, said.kv_capacity_tokens, said.kv_usage_ratio) == (7, 6_400, 0.25)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'[{"a": 1}]', b'{"error": "busy"}', b"<html>", b"[{"]
)
def test_what_is_no_list_of_records_is_refused(content: bytes) -> None:
    """An error page must not look like an idle engine."""
    with pytest.raises(ValueError, match="not the iteration records of trtllm-serve"):
        drained().add(content)


def test_absent_and_negative_members_are_unknown() -> None:
    """Null statistics, none at all, and numbers that cannot be."""
    said = drained().add(
        answer(
            {"inflightBatchingStats": None, "kvCacheStats": None, "numActiveRequests": -1, "surprise": [1]}
        )
    )
    assert said.running_requests is said.kv_usage_ratio is said.prefix_hit_tokens is None
    assert said.decode_tokens == 0
