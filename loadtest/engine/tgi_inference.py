"""TGI's generation endpoints: requests to jobs, and finished jobs to answers.

What is wrong with bodies, templates, tools and batches is found here, before any stream begins.
"""

import time
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from loadtest.engine import tgi_wire as wire
from loadtest.engine.core import EngineCore, EngineOptions, Generation
from loadtest.engine.dialect import Refusal, Reply, Request, Response
from loadtest.engine.tgi_answer import Timed, chat_answer, native_answer, text_answer
from loadtest.engine.tgi_chat import chat_job
from loadtest.engine.tgi_meter import Meter
from loadtest.engine.tgi_options import TgiOptions
from loadtest.engine.tgi_request_wire import (
    ChatRequest,
    CompletionRequest,
    GenerateRequest,
    Parameters,
    Rejected,
    decode,
)
from loadtest.engine.tgi_runner import Runner
from loadtest.engine.tgi_stream import ChatEvents, NativeEvents, TextEvents, ToolParser
from loadtest.engine.tgi_validation import Failure, Job

Body = TypeVar("Body", ChatRequest, CompletionRequest, GenerateRequest)
SUFFIX = "Suffix is not supported and can be achieved by preprocessing the prompt."


class Inference:
    """The generation endpoints over one engine."""

    def __init__(self, core: EngineCore, options: EngineOptions, extra: TgiOptions, meter: Meter) -> None:
        self._options = options
        self._extra = extra
        self._meter = meter
        self.runner = Runner(core, options, extra, meter)

    # ---- endpoints ----

    async def chat(self, request: Request) -> Reply:
        """`POST /v1/chat/completions`."""
        started_s = time.monotonic()
        asked = self.decoded(request, ChatRequest)
        self._meter.counted()
        try:
            plan = chat_job(asked, auto_calls=self._extra.auto_calls)
        except Failure as failure:
            raise self.runner.refused(failure) from failure
        if plan.hidden is not None:
            await self.runner.hide(plan.hidden, streamed=asked.stream)
        model = self._options.model if asked.model in (None, "tgi") else asked.model or ""
        if asked.stream:
            return self.runner.streamed(
                plan.job,
                lambda generation: ChatEvents(
                    (generation,),
                    self.runner.settled(started_s),
                    self._extra.framing,
                    model,
                    asked.stream_options.include_usage,
                    ToolParser() if plan.calls_tool else None,
                    plan.tool_call_id,
                ),
            )
        return self.runner.whole(
            [plan.job], started_s, lambda done: chat_answer(model, done[0], plan.calls_tool)
        )

    async def completions(self, request: Request) -> Reply:
        """`POST /v1/completions`."""
        started_s = time.monotonic()
        asked = self.decoded(request, CompletionRequest)
        self._meter.counted()
        self._check_batch(asked)
        jobs = [Job(prompt, _completion_parameters(asked)) for prompt in asked.prompts]
        if asked.stream:
            return self._text_stream(jobs, started_s)
        return self.runner.whole(
            jobs, started_s, lambda done: text_answer(self._options.model, done), batch=True
        )

    async def generate(self, request: Request) -> Reply:
        """`POST /generate`."""
        return self._native(self.decoded(request, GenerateRequest))

    async def generate_stream(self, request: Request) -> Reply:
        """`POST /generate_stream`."""
        return self._native_stream(self.decoded(request, GenerateRequest))

    async def compat(self, request: Request) -> Reply:
        """`POST /`: either of the two, by the `stream` flag; the prompt is part of the text by default."""
        asked = self.decoded(request, GenerateRequest)
        if asked.parameters.return_full_text is None:
            parameters = msgspec.structs.replace(asked.parameters, return_full_text=True)
            asked = msgspec.structs.replace(asked, parameters=parameters)
        return self._native_stream(asked) if asked.stream else self._native(asked, in_list=True)

    async def invocations(self, request: Request) -> Reply:
        """`POST /invocations`: the first of native, chat and completions whose required field is there."""
        fields = self._object(request)
        if "inputs" in fields:
            return await self.compat(request)
        return await (self.chat(request) if "messages" in fields else self.completions(request))

    async def vertex(self, request: Request) -> Reply:
        """`POST /vertex`: several requests at once, texts as the answer."""
        started_s = time.monotonic()
        instances = self._object(request).get("instances")
        self._meter.counted()
        if not isinstance(instances, list) or not instances:
            error = wire.Error("Input validation error", "Input validation error")
            raise Refusal(Response.of_json(error, 422))
        try:
            jobs = [self._vertex_job(request, one) for one in instances]
        except Failure as failure:
            raise self.runner.refused(failure) from failure
        return self.runner.whole(
            jobs, started_s, lambda done: {"predictions": [one.completion.text for one in done]}, batch=True
        )

    # ---- native and text ----

    def _native(self, asked: GenerateRequest, *, in_list: bool = False) -> Reply:
        started_s = time.monotonic()
        parameters = asked.parameters
        job = Job(asked.inputs, parameters, logprobs=True)
        prefix = asked.inputs if parameters.return_full_text else ""

        def answer(done: Sequence[Timed]) -> object:
            whole = native_answer(parameters, done, prefix, self._seed(parameters))
            return [whole] if in_list else whole

        return self.runner.whole([job] * max(1, parameters.best_of or 1), started_s, answer)

    def _native_stream(self, asked: GenerateRequest) -> Reply:
        started_s = time.monotonic()
        parameters = asked.parameters
        return self.runner.streamed(
            Job(asked.inputs, parameters, logprobs=True),
            lambda generation: NativeEvents(
                (generation,),
                self.runner.settled(started_s),
                self._extra.framing,
                self._seed(parameters),
                parameters.details,
                asked.inputs if parameters.return_full_text else "",
            ),
            native=True,
        )

    def _seed(self, parameters: Parameters) -> int | None:
        """The seed that sampling used; greedy decoding has none."""
        samples = parameters.do_sample or parameters.temperature is not None
        given = parameters.seed
        return (self._options.seed if given is None else given) if samples else None

    def _text_stream(self, jobs: Sequence[Job], started_s: float) -> Reply:
        """Prompts that fail are reported in the stream of the others."""
        generations: dict[int, Generation] = {}
        failures: list[Failure] = []
        for index, job in enumerate(jobs):
            try:
                generations[index] = self.runner.scheduled(job, streamed=True)
            except Failure as failure:
                self._meter.failed(failure)
                failures.append(failure)
        if not generations:
            return self.runner.error_stream([wire.openai_error_frame(one.message) for one in failures])
        running = tuple(generations.values())
        encoder = TextEvents(
            running,
            self.runner.settled(started_s),
            self._extra.framing,
            self._options.model,
            tuple(generations),
            tuple(failures),
        )
        return self.runner.stream(running, encoder, sum(len(job.inputs) for job in jobs))

    # ---- reading ----

    def decoded(self, request: Request, kind: type[Body]) -> Body:
        """The body; raises Refusal with axum's plain text."""
        try:
            return decode(request.body, request.headers.get("content-type", ""), kind)
        except Rejected as rejected:
            raise Refusal(Response.of_text(rejected.text, rejected.status)) from rejected

    def _object(self, request: Request) -> dict[str, object]:
        try:
            fields = msgspec.json.decode(request.body)
        except msgspec.DecodeError as broken:
            text = f"Failed to parse the request body as JSON: {broken}"
            raise Refusal(Response.of_text(text, 400)) from broken
        return fields if isinstance(fields, dict) else {}

    def _vertex_job(self, request: Request, instance: object) -> Job:
        one = Request("POST", request.path, {}, request.headers, msgspec.json.encode(instance))
        if isinstance(instance, dict) and "inputs" in instance:
            given = self.decoded(one, GenerateRequest)
            asked = given.parameters
            parameters = Parameters(
                do_sample=True,
                max_new_tokens=asked.max_new_tokens,
                seed=asked.seed,
                details=True,
                decoder_input_details=True,
            )
            return Job(given.inputs, parameters)
        return chat_job(self.decoded(one, ChatRequest), auto_calls=self._extra.auto_calls).job

    def _check_batch(self, asked: CompletionRequest) -> None:
        limit = self._extra.max_client_batch_size
        if asked.suffix is not None:
            failure = Failure(422, "suffix not supported", SUFFIX, "validation")
        elif len(asked.prompts) > limit:
            text = f"Number of prompts exceeds the maximum allowed batch size of {limit}"
            failure = Failure(422, "batch size exceeded", text, "validation")
        else:
            return
        raise self.runner.refused(failure)


def _completion_parameters(asked: CompletionRequest) -> Parameters:
    greedy = asked.temperature == 0
    return Parameters(
        temperature=None if greedy else asked.temperature,
        repetition_penalty=asked.repetition_penalty,
        frequency_penalty=asked.frequency_penalty,
        top_p=asked.top_p,
        do_sample=not greedy,
        max_new_tokens=asked.max_tokens,
        stop=asked.stop or (),
        details=True,
        decoder_input_details=not asked.stream,
        seed=asked.seed,
        adapter_id=None if asked.model == "tgi" else asked.model,
    )
