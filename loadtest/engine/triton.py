"""Triton with the TensorRT-LLM backend: `generate`, `generate_stream`, health, metadata and a metrics port.

No chat, no template, no usage: the prompt is raw text. The first response decides the status, and only a
write finds out that the client has left.
"""

import time
from collections.abc import Mapping
from typing import ClassVar, Literal

import msgspec

from loadtest.engine import triton_wire as wire
from loadtest.engine.core import EngineCore, EngineDead, EngineOptions, Generation
from loadtest.engine.dialect import (
    GatheredResponse,
    Handler,
    Headers,
    Refusal,
    Reply,
    Request,
    Response,
    Routes,
    StreamResponse,
    Traits,
)
from loadtest.engine.pending import Pending
from loadtest.engine.sampling import Completion, Output, SamplingParams
from loadtest.engine.tokens import encode
from loadtest.engine.triton_answer import Events, Model, response
from loadtest.engine.triton_meter import Meter
from loadtest.engine.triton_metrics_wire import scrape
from loadtest.engine.triton_request_wire import INPUTS, OUTPUTS, GenerateRequest, Invalid, decode


class TritonOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Triton's own knobs, given as `extra`."""

    layout: wire.Layout = "llmapi"
    """Which model repository is served: `ensemble` (C++ backend) or `llmapi` (PyTorch)."""
    model_name: str = ""
    """The model to call; empty: `ensemble` or `tensorrt_llm`, as the layout has it."""
    version: str = wire.VERSION
    """The server's."""
    engine_dir: str = ""
    """What the model's parameters say is served; empty: nothing."""
    output: Literal["auto", "delta", "cumulative"] = "auto"
    """What an event's text is; auto: deltas from the ensemble, the text so far from llmapi."""
    decoupled: bool = True
    """Whether the model may answer in pieces."""
    max_queue_size: int = 0
    """Waiting requests from which on new ones get 503; 0: no limit, as in the stock configurations."""
    queue_us: int = 57
    """Microseconds that a request spends in Triton's own queue, before the batch manager's."""
    metrics_interval_s: float = 1.0
    """Seconds over which the GPU utilisation is averaged."""


class TritonDialect:
    """One Triton server with one text model."""

    defaults: ClassVar[EngineOptions] = EngineOptions(
        dialect="triton", block_size=32, num_blocks=13_125, max_num_seqs=64
    )

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self._core = core
        self._options = options
        self._extra = options.extra_as(TritonOptions)
        layout = self._extra.layout
        self._model = Model(
            name=self._extra.model_name or ("ensemble" if layout == "ensemble" else "tensorrt_llm"),
            layout=layout,
            cumulative=self._extra.output == "cumulative"
            or (self._extra.output == "auto" and layout == "llmapi"),
            block_size=options.block_size,
        )
        self._meter = Meter(self._extra.queue_us, self._extra.metrics_interval_s)
        self._by_id: dict[str, Generation] = {}
        self._pending = Pending()
        core.listeners.append(self._meter)

    @property
    def routes(self) -> Routes:
        of_model: Mapping[tuple[str, str], Handler] = {
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("GET", "/ready"): self._model_ready,
            ("GET", "/config"): self._config,
            ("GET", "/stats"): self._stats,
            ("GET", ""): self._metadata,
        }
        bases = ("/v2/models/{model}", "/v2/models/{model}/versions/{version}")
        return {
            ("GET", "/v2"): self._server,
            ("GET", "/v2/health/live"): self._live,
            ("GET", "/v2/health/ready"): self._ready,
            ("POST", "/v2/repository/index"): self._index,
            ("GET", "/v2/models/stats"): self._stats,
            **{
                (method, base + path): handler
                for base in bases
                for (method, path), handler in of_model.items()
            },
        }

    @property
    def traits(self) -> Traits:
        return Traits(
            disconnect="next_write",
            health_paths=frozenset({"/v2/health/ready", f"/v2/models/{self._model.name}/ready"}),
            max_body_bytes=64 << 20,
            extra_ports={"metrics": {("GET", "/metrics"): self._metrics}},
        )

    def authorize(self, _: Request) -> Response | None:
        """Triton has no keys."""
        return None

    def error(self, status: int, message: str) -> Response:
        if status == 500 and self._pending.failed(message):
            message = wire.generation_failed(message)
        return Response(status, wire.error(message), wire.JSON)

    def unhealthy(self) -> Response:
        """Not ready is 400, with nothing in it."""
        return Response(400, b"", None)

    # ---- generation ----

    async def _generate(self, request: Request) -> Reply:
        wanted = self._decoded(request)
        if wanted.cancels:
            return self._cancelled(wanted, streamed=False)
        generation = self._submitted(wanted, streamed=False)
        prefix = self._echo(wanted)

        def render(completions: tuple[Completion, ...]) -> Response:
            (completion,) = completions
            self._check_whole(wanted, completion)
            last = Output((), "", completion.finish_reason, completion.stop_reason)
            body = response(self._model, wanted, generation, prefix + completion.text, last)
            return Response(200, body, wire.JSON, self._load_report(request))

        self._pending.add((generation,))
        return GatheredResponse((generation,), render)

    async def _generate_stream(self, request: Request) -> Reply:
        wanted = self._decoded(request)
        if wanted.cancels:
            return self._cancelled(wanted, streamed=True)
        generation = self._submitted(wanted, streamed=True)
        events = Events(self._model, wanted, generation, self._echo(wanted))
        return StreamResponse(
            (generation,),
            events,
            wire.EVENT_STREAM,
            self._load_report(request),
            head_with_first_output=True,
            first_error_status=500,
        )

    def _decoded(self, request: Request) -> GenerateRequest:
        self._check_model(request)
        try:
            wanted = decode(request.body, self._model.name, self._model.layout)
        except Invalid as invalid:
            raise Refusal(self.error(400, str(invalid))) from invalid
        header = request.headers.get("triton-request-id", "")
        return (
            msgspec.structs.replace(wanted, request_id=header) if header and not wanted.request_id else wanted
        )

    def _check_model(self, request: Request) -> None:
        name, version = request.params.get("model", self._model.name), request.params.get("version", "1")
        if name != self._model.name:
            raise Refusal(self.error(404, wire.unknown_model(name)))
        if version != "1":
            raise Refusal(self.error(404, wire.unknown_version(name, version)))

    def _submitted(self, wanted: GenerateRequest, *, streamed: bool) -> Generation:
        limit = self._extra.max_queue_size
        if limit and self._core.stats().waiting >= limit:
            self._meter.failed("REJECTED")
            raise Refusal(self.error(503, wire.QUEUE_FULL))
        if wanted.streaming and not self._extra.decoupled:
            raise Refusal(self._first_error(500, wire.generation_failed(wire.NOT_DECOUPLED), streamed))
        prompt = encode(wanted.text)
        room = self._options.max_model_len - len(prompt)
        longest = room if wanted.max_tokens is None else wanted.max_tokens
        if not 0 < longest <= room:
            message = wire.too_long(len(prompt), longest, self._options.max_model_len)
            raise Refusal(
                self._first_error(400 if self._model.layout == "ensemble" else 500, message, streamed)
            )
        try:
            generation = self._core.submit(prompt, _sampling(wanted, longest))
        except (EngineDead, ValueError) as failure:
            raise Refusal(self._first_error(500, wire.generation_failed(str(failure)), streamed)) from failure
        self._remember(wanted.request_id, generation)
        return generation

    def _remember(self, request_id: str, generation: Generation) -> None:
        if request_id:
            self._by_id = {known: one for known, one in self._by_id.items() if not one.finished}
            self._by_id[request_id] = generation

    def _cancelled(self, wanted: GenerateRequest, *, streamed: bool) -> Response:
        """`stop: true` ends the request with the same id; the order itself is answered with an error, too."""
        if not wanted.request_id:
            return self._first_error(500, wire.NO_REQUEST_ID, streamed)
        generation = self._by_id.pop(wanted.request_id, None)
        if generation is not None:
            self._core.abort(generation)
        return self._first_error(400, wire.CANCELLED, streamed)

    def _first_error(self, status: int, message: str, streamed: bool) -> Response:
        """An error as the first response decides the status; a stream request gets it framed all the same."""
        if streamed:
            return Response(status, wire.event(wire.error(message)), wire.EVENT_STREAM)
        return self.error(status, message)

    def _check_whole(self, wanted: GenerateRequest, completion: Completion) -> None:
        if completion.finish_reason == "abort":
            raise Refusal(self.error(400, wire.CANCELLED))
        if wanted.streaming and len(completion.token_ids) > 1:
            raise Refusal(self.error(200, wire.NOT_ONE_RESPONSE))

    def _echo(self, wanted: GenerateRequest) -> str:
        """The ensemble repeats the prompt unless told not to, llmapi only if told to."""
        excluded = wanted.without_input
        if excluded is None:
            excluded = self._model.layout == "llmapi"
        return "" if excluded else wanted.text

    # ---- health and metadata ----

    async def _server(self, _: Request) -> Reply:
        return Response.of_json(wire.ServerMetadata(version=self._extra.version))

    async def _live(self, _: Request) -> Reply:
        return Response(200, b"", None)

    async def _ready(self, _: Request) -> Reply:
        return Response(200, b"", None) if self._core.alive else self.unhealthy()

    async def _model_ready(self, request: Request) -> Reply:
        self._check_model(request)
        return Response(200, b"", None) if self._core.alive else self.error(400, wire.NOT_READY)

    async def _metadata(self, request: Request) -> Reply:
        self._check_model(request)
        layout = self._model.layout
        return Response.of_json(wire.metadata(self._model.name, layout, INPUTS[layout], OUTPUTS[layout]))

    async def _config(self, request: Request) -> Reply:
        self._check_model(request)
        layout, batch = self._model.layout, self._options.max_num_seqs
        tensors = INPUTS[layout], OUTPUTS[layout]
        return Response.of_json(
            wire.config(
                self._model.name,
                layout,
                batch,
                *tensors,
                decoupled=self._extra.decoupled,
                engine_dir=self._extra.engine_dir,
            )
        )

    async def _index(self, _: Request) -> Reply:
        return Response.of_json([wire.IndexEntry(self._model.name, "1", "READY")])

    async def _stats(self, request: Request) -> Reply:
        self._check_model(request)
        return Response.of_json(self._meter.statistics(self._model.name))

    async def _metrics(self, _: Request) -> Reply:
        now = time.monotonic()
        reading = self._meter.reading(self._model.name, self._core.stats(), now, int(time.time()))
        return Response(200, scrape(reading), wire.METRICS_TEXT)

    def _load_report(self, request: Request) -> Headers:
        kind = request.headers.get("endpoint-load-metrics-format")
        if kind not in ("text", "json"):
            return ()
        stats = self._core.stats()
        capacity = stats.blocks_total * stats.block_size
        return (("endpoint-load-metrics", wire.load_report(kind, stats.kv_usage_ratio, capacity)),)


def _sampling(wanted: GenerateRequest, longest: int) -> SamplingParams:
    return SamplingParams(
        max_tokens=longest,
        min_tokens=wanted.min_tokens,
        temperature=wanted.temperature,
        seed=wanted.seed,
        stop=wanted.stop_words,
    )
