from collections.abc import Sequence as Many

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.engine.kv_cache import KvCache
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.scheduler import Scheduler, SchedulerLimits
from loadtest.engine.sequence import Sequence
from loadtest.engine.step import Step


def sequence(prompt: Many[int], max_tokens: int, arrived_s: float = 0.0, **params: object) -> Sequence:
    settings = SamplingParams(max_tokens, ignore_eos=True, **params)  # type: ignore[arg-type]
    return Sequence(prompt, settings, 0, arrived_s)


def scheduler(num_blocks: int = 64, block_size: int = 4, **limits: object) -> Scheduler:
    return Scheduler(SchedulerLimits(**limits), KvCache(num_blocks, block_size))  # type: ignore[arg-type]


def run(engine: Scheduler, now: float = 0.0, limit: int = 10_000) -> list[Step]:
    """Step until there is nothing to do, one second per step, checking the books at every step."""
    steps: list[Step] = []
    while (step := engine.schedule(now)) is not None:
        assert len(steps) < limit
        steps.append(step)
        now += 1
        held = {block for one in engine.running for block in one.blocks}
        assert engine.cache.num_blocks - engine.cache.free == len(held)
        assert sum(count for _, count in step.chunks) <= engine.limits.max_num_batched_tokens
        assert len(engine.running) <= engine.limits.max_num_seqs
        assert all(not one.blocks for one in engine.waiting)
        engine.complete(step, now)
    return steps


requests = st.lists(
    st.tuples(
        st.lists(st.integers(5_000, 5_001), min_size=1, max_size=30), st.integers(1, 20), st.integers(0, 3)
    ),
    min_size=1,
    max_size=12,
)


@given(
    requests,
    st.integers(13, 40),
    st.integers(1, 4),
    st.integers(1, 16),
    st.booleans(),
    st.sampled_from(["as_filled", "prompt_on_finish"]),
    st.sampled_from(["fcfs", "priority"]),
)
def test_every_request_finishes_and_no_block_leaks(
    wanted: list[tuple[list[int], int, int]],
    num_blocks: int,
    seqs: int,
    budget: int,
    reserve: bool,
    reuse: str,
    order: str,
) -> None:
    """Whatever the load and the limits: all tokens come out, and all blocks come back."""
    engine = scheduler(
        num_blocks,
        max_num_seqs=seqs,
        max_num_batched_tokens=budget,
        reserve_output=reserve,
        reuse=reuse,
        scheduling=order,
    )
    queued = [
        sequence(prompt, tokens, float(at), priority=priority)
        for at, (prompt, tokens, priority) in enumerate(wanted)
    ]
    for one in queued:
        engine.add(one)
    run(engine)
    assert [one.output_tokens for one in queued] == [tokens for _, tokens, _ in wanted]
    assert {one.finish_reason for one in queued} == {"length"}
    assert engine.cache.free == num_blocks
    assert engine.counters.preemptions == 0 or not reserve
    assert engine.counters.prompt_tokens == sum(len(prompt) for prompt, _, _ in wanted)
    assert engine.counters.generation_tokens == sum(tokens for _, tokens, _ in wanted)


@given(requests, st.integers(13, 40), st.integers(1, 4))
def test_output_does_not_depend_on_the_batch(
    wanted: list[tuple[list[int], int, int]], num_blocks: int, seqs: int
) -> None:
    """Batching, cache hits and preemptions change when tokens come, never which."""
    engine = scheduler(num_blocks, max_num_seqs=seqs)
    together = [sequence(prompt, tokens) for prompt, tokens, _ in wanted]
    for one in together:
        engine.add(one)
    run(engine)
    for one, (prompt, tokens, _) in zip(together, wanted, strict=True):
        alone = scheduler()
        other = sequence(prompt, tokens)
        alone.add(other)
        run(alone)
        assert other.tokens == one.tokens


@given(st.lists(st.integers(1, 12), min_size=2, max_size=10), st.integers(1, 3))
def test_first_come_first_served(lengths: list[int], seqs: int) -> None:
    """Requests are admitted in arrival order."""
    engine = scheduler(max_num_seqs=seqs)
    queued = [sequence([6_000 + at], tokens, float(at)) for at, tokens in enumerate(lengths)]
    for one in queued:
        engine.add(one)
    run(engine)
    admitted = [one.scheduled_s or 0.0 for one in queued]
    assert admitted == sorted(admitted)


def test_priority_goes_before_arrival() -> None:
    """Under priority scheduling the lower number runs first; under FCFS it does not."""
    for order, expected in (("priority", [2, 1, 0]), ("fcfs", [0, 1, 2])):
        engine = scheduler(max_num_seqs=1, scheduling=order)
        queued = [sequence([9_000 + at], 2, float(at), priority=-at) for at in range(3)]
        for one in queued:
            engine.add(one)
        run(engine)
        assert sorted(range(3), key=lambda at: queued[at].scheduled_s or 0.0) == expected


def test_a_long_prefill_is_done_in_chunks_beside_decodes() -> None:
    """The budget bounds a step; running requests go on decoding meanwhile."""
    engine = scheduler(max_num_batched_tokens=10)
    short, long = sequence([7_000], 20), sequence(range(8_000, 8_045), 1)
    engine.add(short)
    engine.add(long)
    steps = run(engine)
    chunks = [[count for one, count in step.chunks if one is long] for step in steps]
    assert [count for step in chunks for count in step] == [9, 9, 9, 9, 9]
    assert steps[2].load.decodes == 1
    assert steps[2].load.prefill_tokens == 9
    assert steps[2].load.attention_pairs == sum(range(19, 28))
    assert steps[2].context_requests == 1


def test_a_second_equal_prompt_computes_its_last_block_only() -> None:
    """The hit is whole blocks and leaves at least one token to compute."""
    engine = scheduler()
    prompt = list(range(7_000, 7_016))
    for expected in (0, 12, 12):
        one = sequence(prompt, 1)
        engine.add(one)
        run(engine)
        assert one.cached_tokens == expected
    longer = sequence([*prompt, 1], 1)
    engine.add(longer)
    run(engine)
    assert longer.cached_tokens == 16
    assert engine.counters.prefix_query_tokens == 16 * 3 + 17
    assert engine.counters.prefix_hit_tokens == 12 + 12 + 16
    assert engine.counters.blocks_reused == 3 + 3 + 4


def test_generated_tokens_are_reused_too() -> None:
    """A next turn that repeats the answer finds its blocks."""
    engine = scheduler()
    first = sequence(range(7_000, 7_008), 9)
    engine.add(first)
    run(engine)
    second = sequence(first.tokens, 1)
    engine.add(second)
    run(engine)
    assert second.cached_tokens == 16


def test_prompt_on_finish_shares_neither_early_nor_outputs() -> None:
    """With TGI's rule two requests at once do not share, and generated tokens are not kept."""
    engine = scheduler(reuse="prompt_on_finish", max_num_seqs=2)
    prompt = list(range(7_000, 7_009))
    first, second = sequence(prompt, 8), sequence(prompt, 8)
    engine.add(first)
    assert engine.schedule(0.0) is not None
    engine.add(second)
    run(engine)
    third = sequence(first.tokens, 1)
    engine.add(third)
    run(engine)
    assert (first.cached_tokens, second.cached_tokens, third.cached_tokens) == (0, 0, 8)


@pytest.mark.parametrize("params", [{"lora": "a"}, {"cache_salt": "s"}, {"use_prefix_cache": False}])
def test_isolated_prompts_do_not_share(params: dict[str, object]) -> None:
    """Another adapter or salt has its own cache; a request may refuse the cache altogether."""
    engine = scheduler()
    prompt = list(range(7_000, 7_020))
    plain = sequence(prompt, 1)
    engine.add(plain)
    run(engine)
    one = sequence(prompt, 1, **params)
    engine.add(one)
    run(engine)
    assert one.cached_tokens == 0


def test_decodes_that_run_out_of_blocks_preempt_the_latest() -> None:
    """The latest request gives its blocks back and is computed again; its tokens are kept."""
    engine = scheduler(num_blocks=6, block_size=4)
    early, late = sequence([7_000] * 8, 12, 0.0), sequence([8_000] * 8, 12, 1.0)
    engine.add(early)
    engine.add(late)
    steps = run(engine)
    assert engine.counters.preemptions >= 1
    assert sum(step.preempted for step in steps) == engine.counters.preemptions
    assert early.last_token_s is not None and late.last_token_s is not None
    assert early.last_token_s < late.last_token_s
    assert (early.output_tokens, late.output_tokens) == (12, 12)


def test_admission_waits_for_blocks() -> None:
    """A request whose first chunk does not fit waits, and those behind it wait with it."""
    engine = scheduler(num_blocks=5, block_size=4, max_num_seqs=3)
    big, bigger, small = sequence([7_000] * 12, 4), sequence([8_000] * 16, 1), sequence([9_000], 1)
    for one in (big, bigger, small):
        engine.add(one)
    step = engine.schedule(0.0)
    assert step is not None
    assert [one for one, _ in step.chunks] == [big]
    assert engine.waiting == [bigger, small]


def test_reserving_counts_the_longest_output() -> None:
    """With reservation a second request waits although its prompt would fit."""
    engine = scheduler(num_blocks=5, block_size=4, reserve_output=True)
    first, second = sequence([7_000] * 4, 8), sequence([8_000] * 4, 8)
    engine.add(first)
    engine.add(second)
    step = engine.schedule(0.0)
    assert step is not None and len(step.chunks) == 1
    run_out = run(engine, 1.0)
    assert engine.counters.preemptions == 0
    assert run_out


def test_ending_from_outside_frees_blocks_at_once() -> None:
    """An abort in the middle of a step leaves no block behind and samples nothing."""
    engine = scheduler()
    one, queued = sequence([7_000] * 10, 50), sequence([8_000], 1)
    engine.add(one)
    step = engine.schedule(0.0)
    assert step is not None
    engine.add(queued)
    assert engine.end(one, "abort")
    assert engine.end(queued, "abort")
    assert not engine.end(one, "abort")
    assert engine.cache.free == engine.cache.num_blocks
    assert engine.complete(step, 1.0) == []
    assert engine.counters.finished["abort"] == 2


def test_what_can_never_fit_is_refused() -> None:
    """A request longer than the whole cache would block the queue for ever."""
    with pytest.raises(ValueError, match="do not fit"):
        scheduler(num_blocks=4, block_size=4).add(sequence([1], 16))


def test_times_of_a_request() -> None:
    """Queueing ends with the first step, the first token comes with its end."""
    engine = scheduler(max_num_seqs=1)
    first, second = sequence([7_000], 3, 0.0), sequence([8_000], 2, 0.5)
    engine.add(first)
    engine.add(second)
    steps = run(engine, 0.5)
    assert (first.scheduled_s, first.first_token_s, first.last_token_s) == (0.5, 1.5, 3.5)
    assert (second.scheduled_s, second.first_token_s, second.last_token_s) == (3.5, 4.5, 5.5)
    assert [step.admitted_queue_s for step in steps if step.admitted] == [0.5, 3.0]
    record = second.record(6.0)
    assert (record.prompt_tokens, record.output_tokens, record.finish_reason) == (1, 2, "length")


def test_how_many_steps_are_alike() -> None:
    """A prefill is none of several; decodes are, until the shortest ends, and no block is missing."""
    engine = scheduler(num_blocks=12, block_size=4)
    short, long = sequence([7_000] * 8, 6), sequence([8_000] * 8, 30)
    engine.add(short)
    engine.add(long)
    first = engine.schedule(0.0)
    assert first is not None and engine.repeatable(first) == 1
    engine.complete(first, 1.0)
    second = engine.schedule(1.0)
    assert second is not None and engine.repeatable(second) == 5
    engine.complete(second, 6.0, 5)
    assert short.ended and (short.output_tokens, long.output_tokens) == (6, 6)
    assert engine.counters.steps == 6 and engine.counters.generation_tokens == 12


def test_steps_are_alike_up_to_a_full_block_where_somebody_waits_or_listens() -> None:
    """The waiting request needs 4 blocks of which 2 are free: a block published or given back may change that."""
    engine = scheduler(num_blocks=6, block_size=4)
    engine.add(sequence([7_000] * 9, 12))
    prefill = engine.schedule(0.0)
    assert prefill is not None
    engine.complete(prefill, 1.0)
    alone = engine.schedule(1.0)
    assert alone is not None and engine.repeatable(alone) == 11
    engine.add(sequence([8_000] * 16, 1))
    assert engine.repeatable(alone) == 3
    engine.complete(alone, 4.0, 3)
    following = engine.schedule(4.0)
    assert following is not None and engine.repeatable(following) == 4
