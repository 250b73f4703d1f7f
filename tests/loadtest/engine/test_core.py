import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.engine.core import EngineCore, EngineDead, EngineOptions
from loadtest.engine.sampling import Completion, Output, SamplingParams
from loadtest.engine.stats import RequestRecord, StepRecord
from loadtest.engine.tokens import encode

PROMPT = encode("Tell me something about the sea, and do not hurry.")


def running(work: Callable[[EngineCore], Any], **options: Any) -> Any:
    """Run a coroutine function on a quick engine in a fresh event loop."""

    async def main() -> Any:
        core = EngineCore(EngineOptions(**{"speed": 200.0, **options}))
        try:
            return await work(core)
        finally:
            core.close()

    return asyncio.run(main())


def free(tokens: int, **params: Any) -> SamplingParams:
    return SamplingParams(tokens, temperature=0, ignore_eos=True, **params)


class Recorder:
    """Keeps everything the engine tells."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []
        self.requests: list[RequestRecord] = []
        self.first: list[float] = []
        self.gaps: list[float] = []

    def step_done(self, step: StepRecord) -> None:
        self.steps.append(step)

    def token_times(self, first_s: list[float], gaps_s: list[float]) -> None:
        self.first += first_s
        self.gaps += gaps_s

    def request_done(self, request: RequestRecord) -> None:
        self.requests.append(request)


def test_continued_by_ids_and_by_text_equals_unbroken() -> None:
    """From every cut the rest of the output is the same, given as ids or as text, on another engine."""

    async def work(core: EngineCore) -> None:
        whole = await core.submit(PROMPT, SamplingParams(500, temperature=0)).completed()
        other = EngineCore(core.options)
        for cut in range(1, len(whole.token_ids) - 1, 5):
            ids = [*PROMPT, *whole.token_ids[:cut]]
            rest = await other.submit(ids, SamplingParams(500 - cut, temperature=0)).completed()
            assert whole.token_ids[:cut] + rest.token_ids == whole.token_ids
            assert rest.finish_reason == whole.finish_reason == "stop"
        text = encode("Tell me something about the sea, and do not hurry." + whole.text[: -len(rest.text)])
        by_text = await other.submit(text, SamplingParams(500, temperature=0)).completed()
        assert by_text.text == rest.text
        other.close()

    running(work)


def test_three_ways_to_read_agree() -> None:
    """Callback, iteration and waiting for the whole give the same tokens."""

    async def work(core: EngineCore) -> None:
        outputs: list[Output] = []
        ended = asyncio.Event()

        def receive(output: Output) -> None:
            outputs.append(output)
            if output.finish_reason:
                ended.set()

        core.submit(PROMPT, free(7)).subscribe(receive)
        iterated = [output async for output in core.submit(PROMPT, free(7))]
        whole: Completion = await core.submit(PROMPT, free(7)).completed()
        await ended.wait()
        assert [output.token_ids for output in outputs] == [output.token_ids for output in iterated]
        assert "".join(output.text for output in outputs) == whole.text
        assert (whole.finish_reason, len(whole.token_ids)) == ("length", 7)

    running(work)


def test_late_subscription_misses_nothing() -> None:
    """Outputs that came before the callback are pushed to it at once."""

    async def work(core: EngineCore) -> None:
        generation = core.submit(PROMPT, free(3))
        while not generation.finished:
            await asyncio.sleep(0.001)
        outputs: list[Output] = []
        generation.subscribe(outputs.append)
        assert [len(output.token_ids) for output in outputs] == [1, 1, 1]

    running(work)


def test_stream_interval_bundles_tokens() -> None:
    """The first token comes alone, then so many at a time, and the last ones whenever it ends."""

    async def work(core: EngineCore) -> None:
        sizes = [len(output.token_ids) async for output in core.submit(PROMPT, free(9))]
        assert sizes == [1, 3, 3, 2]

    running(work, stream_interval=3)


def test_stop_string_and_stop_token() -> None:
    """Both end with reason `stop` and say what stopped it; neither shows in the text."""

    async def work(core: EngineCore) -> None:
        whole = await core.submit(PROMPT, free(20)).completed()
        word = whole.text.split()[5]
        by_text = await core.submit(PROMPT, free(20, stop=(word,))).completed()
        assert (by_text.finish_reason, by_text.stop_reason) == ("stop", word)
        assert by_text.text == whole.text[: whole.text.index(word)]
        token = whole.token_ids[5]
        by_token = await core.submit(PROMPT, free(20, stop_token_ids=(token,))).completed()
        assert (by_token.finish_reason, by_token.stop_reason) == ("stop", token)
        assert by_token.token_ids == whole.token_ids[:6]
        assert word not in by_token.text
        assert core.stats().blocks_used == 0

    running(work)


def test_logprobs_come_with_their_tokens() -> None:
    """One entry per token, of that token."""

    async def work(core: EngineCore) -> None:
        whole = await core.submit(PROMPT, free(4, logprobs=2)).completed()
        assert [entry.token_id for entry in whole.logprobs or ()] == list(whole.token_ids)
        assert all(len(entry.top) == 2 for entry in whole.logprobs or ())

    running(work)


def test_times_are_in_order_and_the_cache_is_told() -> None:
    """Queueing, first token and last token follow each other; the second equal prompt reports its hit."""

    async def work(core: EngineCore) -> None:
        first = core.submit(PROMPT, free(3))
        await first.completed()
        second = core.submit(PROMPT, free(3))
        assert second.queue_s is None
        await second.completed()
        assert first.queue_s is not None and first.queue_s >= 0
        assert first.scheduled_s and first.first_token_s and first.last_token_s
        assert first.arrived_s <= first.scheduled_s < first.first_token_s < first.last_token_s
        assert first.cached_tokens == 0
        assert second.cached_tokens == (len(PROMPT) - 1) // 16 * 16 > 0

    running(work)


def test_abort_gives_a_last_output_and_frees_everything() -> None:
    """The consumer learns of the abort; nothing stays in the engine."""

    async def work(core: EngineCore) -> None:
        generation = core.submit(PROMPT, free(5_000))
        outputs = []
        async for output in generation:
            outputs.append(output)
            if len(outputs) == 3:
                core.abort(generation)
        assert outputs[-1].finish_reason == "abort"
        core.abort(generation)
        stats = core.stats()
        assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)
        assert stats.finished["abort"] == 1

    running(work)


def test_abort_from_inside_an_output() -> None:
    """A consumer may abort itself and others from its callback, in the middle of the step."""

    async def work(core: EngineCore) -> None:
        generations = [core.submit(encode(f"number {index}"), free(500)) for index in range(4)]
        ended = asyncio.Event()

        def receive(output: Output) -> None:
            if output.finish_reason is None:
                core.abort_all()
            ended.set()

        generations[1].subscribe(receive)
        await ended.wait()
        assert all(generation.finished for generation in generations)
        assert core.stats().blocks_used == 0
        assert (await core.submit(PROMPT, free(2)).completed()).finish_reason == "length"

    running(work)


def test_a_dead_engine_fails_what_runs_and_refuses_the_rest() -> None:
    """Death is an error for those that run; after revival there is a cold, working engine."""

    async def work(core: EngineCore) -> None:
        generation = core.submit(PROMPT, free(5_000))
        core.kill("gone")
        assert (await generation.completed()).finish_reason == "error"
        assert generation.error == "gone"
        with pytest.raises(EngineDead):
            core.submit(PROMPT, free(1))
        core.revive()
        again = core.submit(PROMPT, free(1))
        await again.completed()
        assert again.cached_tokens == 0

    running(work)


def test_a_stalled_engine_goes_on_where_it_was() -> None:
    """While it hangs nothing comes and nothing is lost."""

    async def work(core: EngineCore) -> None:
        generation = core.submit(PROMPT, free(40))
        outputs: list[Output] = []

        def receive(output: Output) -> None:
            outputs.append(output)
            if len(outputs) == 3:
                core.stall()

        generation.subscribe(receive)
        while not core.stalled:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
        assert (len(outputs), core.stats().steps) == (3, 3)
        core.resume()
        while not generation.finished:
            await asyncio.sleep(0.001)
        assert len(outputs) == 40

    running(work)


def test_sleep_aborts_and_then_keeps_waiting() -> None:
    """Sleeping ends what runs, drops the cache, and holds what comes until it wakes."""

    async def work(core: EngineCore) -> None:
        await core.submit(PROMPT, free(1)).completed()
        generation = core.submit(PROMPT, free(5_000))
        core.sleep(1)
        assert (await generation.completed()).finish_reason == "abort"
        later = core.submit(PROMPT, free(1))
        await asyncio.sleep(0.02)
        assert not later.finished and core.stats().waiting == 1
        core.wake_up()
        await later.completed()
        assert later.cached_tokens == 0

    running(work)


def test_resetting_the_cache_waits_for_idleness() -> None:
    """It is refused while a request runs, as vLLM does."""

    async def work(core: EngineCore) -> None:
        generation = core.submit(PROMPT, free(5_000))
        async for _ in generation:
            break
        assert not core.reset_prefix_cache()
        core.abort(generation)
        assert core.reset_prefix_cache()

    running(work)


def test_steps_take_the_time_the_model_says() -> None:
    """The engine's own clock adds up to the latency model, however late timers fire."""

    async def work(core: EngineCore) -> None:
        recorder = Recorder()
        core.listeners.append(recorder)
        await core.submit(PROMPT, free(20)).completed()
        latencies = [step.latency_s for step in recorder.steps]
        assert len(latencies) == 20
        assert all(6.2e-3 / 50 <= latency < 8e-3 / 50 for latency in latencies)
        core.slowdown = 10.0
        await core.submit(PROMPT, free(2)).completed()
        assert recorder.steps[-1].latency_s >= 10 * 6.2e-3 / 50

    running(work, speed=50.0)


def test_listeners_hear_steps_tokens_and_requests() -> None:
    """The records add up to what was generated."""

    async def work(core: EngineCore) -> None:
        recorder = Recorder()
        core.listeners.append(recorder)
        await asyncio.gather(*(core.submit(PROMPT, free(tokens)).completed() for tokens in (3, 5)))
        await core.submit(PROMPT, free(1)).completed()
        assert [record.output_tokens for record in recorder.requests] == [3, 5, 1]
        assert (len(recorder.first), len(recorder.gaps)) == (3, 6)
        assert sum(step.new_tokens for step in recorder.steps) == 9
        assert sum(step.new_active for step in recorder.steps) == 3
        assert sum(step.completed for step in recorder.steps) == 3
        assert sum(step.context_tokens for step in recorder.steps) == 3 * len(PROMPT) - 16
        assert core.stats().steps == len(recorder.steps) == recorder.steps[-1].number
        assert core.stats().busy_s == pytest.approx(sum(step.latency_s for step in recorder.steps))

    running(work)


def test_what_cannot_run_is_refused() -> None:
    """An empty prompt, and a cache that could not hold the longest request."""

    async def work(core: EngineCore) -> None:
        with pytest.raises(ValueError, match="empty"):
            core.submit([], free(1))

    running(work)
    with pytest.raises(ValueError, match="smaller"):
        EngineCore(EngineOptions(num_blocks=10))


def test_many_streams_share_one_loop() -> None:
    """Hundreds of generations at once all finish, each with its own output."""

    async def work(core: EngineCore) -> None:
        prompts = [encode(f"stream {number}") for number in range(300)]
        together = await asyncio.gather(*(core.submit(prompt, free(12)).completed() for prompt in prompts))
        assert all(len(one.token_ids) == 12 for one in together)
        assert len({one.token_ids for one in together}) > 250
        assert core.stats().blocks_used == 0

    running(work, max_num_seqs=128)
