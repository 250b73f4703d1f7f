"""trtllm-serve's iteration records: a JSON list, oldest first, which the engine forgets once it was read.

What a record says of its iteration is added up here; what it says of the moment counts while it is new.
"""

from collections.abc import Iterable, Sequence
from math import fsum

import msgspec

from router.engines.engine import ReplicaLoad
from router.engines.unknown import first, product, share, total


class _Batch(msgspec.Struct, frozen=True, rename="camel"):
    num_scheduled_requests: float | None = None
    num_gen_requests: float = 0.0
    num_ctx_tokens: float = 0.0
    num_paused_requests: float | None = None
    avg_num_decoded_tokens_per_iter: float = 0.0


class _KvCache(msgspec.Struct, frozen=True, rename="camel"):
    max_num_blocks: float | None = None
    used_num_blocks: float | None = None
    tokens_per_block: float | None = None
    reused_blocks: float | None = None
    missed_blocks: float | None = None
    cache_hit_rate: float | None = None


class _Record(msgspec.Struct, frozen=True, rename="camel"):
    """One iteration, of one rank under attention data parallelism."""

    iter: float
    attention_dp_rank: int | None = None
    num_active_requests: float | None = None
    num_queued_requests: float | None = None
    max_num_active_requests: float | None = None
    max_batch_size_runtime: float | None = None
    num_new_active_requests: float = 0.0
    queue_wait: float = msgspec.field(default=0.0, name="newActiveRequestsQueueLatencyMS")
    inflight_batching_stats: _Batch | None = None
    kv_cache_stats: _KvCache | None = None

    @property
    def batch(self) -> _Batch:
        return self.inflight_batching_stats or _Batch()

    @property
    def kv_cache(self) -> _KvCache:
        return self.kv_cache_stats or _KvCache()


class Drained:
    """Everything read so far from one replica. The options are used where the engine is silent."""

    def __init__(self, max_running: float | None, kv_capacity_tokens: float | None) -> None:
        self._max_running = max_running
        self._kv_capacity_tokens = kv_capacity_tokens
        self._decoder = msgspec.json.Decoder(list[_Record])
        self._queue_wait = _QueueWait()
        self._prefill_tokens = 0.0
        self._decode_tokens = 0.0
        self._new_requests = 0.0
        self._newest: Sequence[_Record] = ()

    def add(self, content: bytes) -> ReplicaLoad:
        """One answer: the totals so far, and the newest iteration's gauges, unknown if there was none.

        No records can mean an idle engine, or a busy one none of whose requests has completed.
        Raises `ValueError` for what is not a list of records.
        """
        try:
            records = self._decoder.decode(content)
        except msgspec.DecodeError as error:
            raise ValueError(f"not the iteration records of trtllm-serve: {error}") from None
        self._queue_wait.add(records)
        self._prefill_tokens += fsum(max(0.0, record.batch.num_ctx_tokens) for record in records)
        self._decode_tokens += fsum(map(_decoded, records))
        self._new_requests += fsum(max(0.0, record.num_new_active_requests) for record in records)
        if records:
            self._newest = [record for record in records if record.iter == records[-1].iter]
        return self._load(self._newest if records else ())

    def _load(self, fresh: Sequence[_Record]) -> ReplicaLoad:
        """`fresh`: the newest iteration, one record per rank, if this answer had any."""
        caches = [record.kv_cache for record in self._newest]
        batches = [record.batch for record in fresh]
        block_tokens = _mean([cache.tokens_per_block for cache in caches])
        blocks = _sum(cache.max_num_blocks for cache in caches)
        used = _sum(record.kv_cache.used_num_blocks for record in fresh)
        reused = _sum(cache.reused_blocks for cache in caches)
        missed = _sum(cache.missed_blocks for cache in caches)
        slots = _sum(record.max_batch_size_runtime for record in fresh)
        most = _sum(record.max_num_active_requests for record in self._newest)
        return ReplicaLoad(
            running_requests=_sum(record.num_active_requests for record in fresh),
            waiting_requests=_sum(record.num_queued_requests for record in fresh),
            max_running_requests=first(most, self._max_running),
            kv_usage_ratio=share(used, blocks),
            kv_capacity_tokens=first(product(blocks, block_tokens), self._kv_capacity_tokens),
            kv_block_tokens=block_tokens,
            # Reused and missed blocks are counted since the engine's start.
            prefix_query_tokens=product(total([reused, missed]), block_tokens),
            prefix_hit_tokens=product(reused, block_tokens),
            prefix_hit_ratio=share(_mean([cache.cache_hit_rate for cache in caches]), 1.0),
            # A record's context tokens are those that were computed; cached ones never enter it.
            prefill_tokens=self._prefill_tokens,
            prefill_tokens_computed=self._prefill_tokens,
            decode_tokens=self._decode_tokens,
            queue_wait_seconds_sum=self._queue_wait.seconds,
            queue_wait_count=self._new_requests,
            batch_utilisation=share(_sum(batch.num_scheduled_requests for batch in batches), slots),
            preemptions=_sum(batch.num_paused_requests for batch in batches),
            heartbeat=self._newest[0].iter if self._newest else None,
        )


class _QueueWait:
    """Seconds that new requests had waited, added up.

    One name, two meanings. TensorRT's executor writes the milliseconds of the iteration's new requests.
    The PyTorch executor writes the seconds of all requests since its start, in every record: its
    `_update_new_active_requests_queue_latency` adds differences of `time.time()` and nothing resets them.
    A record with a wait but no new request tells them apart.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._accumulates = False
        self._last: dict[int | None, float] = {}

    def add(self, records: Iterable[_Record]) -> None:
        if any(record.queue_wait > 0 and record.num_new_active_requests == 0 for record in records):
            self._accumulates = True
        for record in records:
            wait = max(0.0, record.queue_wait)
            if self._accumulates:
                last = self._last.get(record.attention_dp_rank, wait)
                # Less than before: the engine restarted, and this is what it has added up since.
                self.seconds += wait - last if wait >= last else wait
            else:
                self.seconds += wait / 1000
            self._last[record.attention_dp_rank] = wait


def _decoded(record: _Record) -> float:
    """Tokens made in one iteration: one per generating request, more with speculative decoding."""
    batch = record.batch
    return max(0.0, batch.num_gen_requests) * max(1.0, batch.avg_num_decoded_tokens_per_iter)


def _sum(figures: Iterable[float | None]) -> float | None:
    """Over the ranks; unknown if one of them is silent or negative."""
    return total(None if figure is None or figure < 0 else figure for figure in figures)


def _mean(figures: Sequence[float | None]) -> float | None:
    summed = _sum(figures)
    return None if summed is None else summed / len(figures)
