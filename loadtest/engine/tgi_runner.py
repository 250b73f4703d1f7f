"""How TGI runs jobs: the permit, the validation, the queue, and what becomes of a failure.

Not streaming, a failure has its own status. Streaming, it comes inside the stream, so the status is 200.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from loadtest.engine import tgi_wire as wire
from loadtest.engine.core import EngineCore, EngineDead, EngineOptions, Generation
from loadtest.engine.dialect import GatheredResponse, Refusal, Response, StreamResponse
from loadtest.engine.pending import Pending
from loadtest.engine.sampling import Completion
from loadtest.engine.tgi_answer import Timed
from loadtest.engine.tgi_meter import Meter
from loadtest.engine.tgi_options import TgiOptions
from loadtest.engine.tgi_stream import ChatEvents, NativeEvents, TextEvents
from loadtest.engine.tgi_validation import (
    Failure,
    Job,
    generation_failed,
    incomplete,
    overloaded,
    validated,
)

Events = ChatEvents | NativeEvents | TextEvents


class Runner:
    """The engine behind its door."""

    def __init__(self, core: EngineCore, options: EngineOptions, extra: TgiOptions, meter: Meter) -> None:
        self._core = core
        self._options = options
        self._extra = extra
        self._limits = extra.limits(options)
        self._meter = meter
        self.pending = Pending()

    def scheduled(self, job: Job, *, streamed: bool, choice: int = 0) -> Generation:
        """Through the door, the validation and into the queue; raises `Failure`."""
        self._meter.counted()
        stats = self._core.stats()
        if stats.running + stats.waiting >= self._extra.max_concurrent_requests:
            raise overloaded()
        ids, params = validated(job, self._limits, self._options.loras, streamed=streamed)
        self._meter.accepted(len(ids), params.max_tokens)
        try:
            return self._core.submit(ids, replace(params, choice=choice))
        except (EngineDead, ValueError) as failure:
            raise generation_failed(str(failure)) from failure

    async def hide(self, job: Job, *, streamed: bool) -> None:
        """Run a generation that nobody sees."""
        try:
            generation = self.scheduled(job, streamed=streamed)
        except Failure as failure:
            raise self.refused(failure, streamed=streamed) from failure
        try:
            completion = await generation.completed()
        finally:
            self._core.abort(generation)
        if completion.finish_reason == "error":
            raise self.refused(generation_failed(generation.error or ""), streamed=streamed)

    def streamed(
        self, job: Job, encoder: Callable[[Generation], Events], *, native: bool = False
    ) -> StreamResponse | Response:
        """One job as a stream; `native` is about the shape of a failure."""
        try:
            generation = self.scheduled(job, streamed=True)
        except Failure as failure:
            return self.refused(failure, streamed=True, native=native).response
        return self.stream((generation,), encoder(generation), len(job.inputs))

    def stream(self, generations: tuple[Generation, ...], encoder: Events, characters: int) -> StreamResponse:
        """A stream of what runs already, with its comments; `characters` are those of the prompts."""
        return StreamResponse(
            generations,
            encoder,
            wire.EVENT_STREAM,
            wire.stream_headers(characters),
            keepalive=(self._extra.keep_alive_s, wire.KEEP_ALIVE),
        )

    def whole(
        self,
        jobs: Sequence[Job],
        started_s: float,
        answer: Callable[[Sequence[Timed]], object],
        *,
        batch: bool = False,
    ) -> GatheredResponse:
        """All jobs as one answer. Without `batch` they are choices of one prompt."""
        generations: list[Generation] = []
        try:
            for choice, job in enumerate(jobs):
                generations.append(self.scheduled(job, streamed=False, choice=0 if batch else choice))
        except Failure as failure:
            for generation in generations:
                self._core.abort(generation)
            raise self.refused(failure) from failure
        self.pending.add(generations)

        def render(completions: tuple[Completion, ...]) -> Response:
            if any(one.finish_reason == "abort" for one in completions):
                raise self.refused(incomplete(streamed=False))
            for generation in generations:
                self._meter.succeeded(generation, started_s)
            done = [
                Timed(job, generation, completion, started_s)
                for job, generation, completion in zip(jobs, generations, completions, strict=True)
            ]
            try:
                body = answer(done)
            except Failure as failure:
                raise self.refused(failure) from failure
            return Response.of_json(body, headers=_headers(done, batch=batch))

        return GatheredResponse(tuple(generations), render)

    # ---- endings ----

    def settled(self, started_s: float) -> Callable[[Generation, Failure | None], None]:
        """Counts how a generation of a request that began then has ended."""

        def settled(generation: Generation, failure: Failure | None) -> None:
            if failure is None:
                self._meter.succeeded(generation, started_s)
            else:
                self._meter.failed(failure)

        return settled

    def refused(self, failure: Failure, *, streamed: bool = False, native: bool = False) -> Refusal:
        """The answer of a failure: its own status, or 200 with the failure in the stream."""
        self._meter.failed(failure)
        if not streamed:
            return Refusal(Response.of_json(failure.body, failure.status))
        space = self._extra.framing == "current"
        if native:
            return Refusal(self.error_stream([wire.frame(failure.body, space=space)], done=False))
        return Refusal(self.error_stream([wire.openai_error_frame(failure.message, space=space)]))

    def error_stream(self, frames: Sequence[bytes], *, done: bool = True) -> Response:
        """A stream of nothing but errors."""
        end = wire.done(space=self._extra.framing == "current") if done else b""
        return Response(200, b"".join(frames) + end, wire.EVENT_STREAM, wire.stream_headers(0))


def _headers(done: Sequence[Timed], *, batch: bool) -> wire.Headers:
    """Timings; those of a batch are added up, and the time in seconds is left out."""
    counted = done if batch else done[:1]
    headers = wire.timing_headers(
        characters=sum(len(one.job.inputs) for one in counted),
        total_s=sum(one.total_s for one in counted),
        validation_s=sum(one.generation.arrived_s - one.started_s for one in counted),
        queue_s=sum(one.generation.queue_s or 0.0 for one in counted),
        inference_s=sum(one.inference_s for one in counted),
        prompt_tokens=sum(one.generation.prompt_tokens for one in counted),
        generated_tokens=sum(one.generation.output_tokens for one in counted),
    )
    return tuple(header for header in headers if not batch or header[0] != "x-compute-time")
