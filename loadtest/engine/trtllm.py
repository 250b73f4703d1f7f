"""trtllm-serve: OpenAI's paths with a closed list of fields, readings that take out what they read.

`snapshot` picks one of three releases; they differ in error shapes, ids, health, metric names and paths.
"""

import asyncio
import time
from typing import ClassVar

import msgspec

from loadtest.engine import trtllm_wire as wire
from loadtest.engine.core import EngineCore, EngineDead, EngineOptions
from loadtest.engine.dialect import Handler, Refusal, Reply, Request, Response, Routes, Traits
from loadtest.engine.kv_publisher import KvPublisher, config_of
from loadtest.engine.tokens import encode
from loadtest.engine.trtllm_events_wire import EventLog
from loadtest.engine.trtllm_inference import Inference
from loadtest.engine.trtllm_kv_push import TrtllmKvPush
from loadtest.engine.trtllm_responses import Responses
from loadtest.engine.trtllm_telemetry import Snapshot, Telemetry


class TrtllmOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """trtllm-serve's own knobs, given as `extra`. The observability that it hides by default is on."""

    snapshot: Snapshot = "new"
    """Which releases' bytes: `old` (2025), `mid` (early 2026), `new` (mid-2026)."""
    version: str = ""
    """As `/version` says it; empty: one of the snapshot's time."""
    enable_iter_perf_stats: bool = True
    """Without it `/metrics` stays empty."""
    return_perf_metrics: bool = True
    """Without it there is neither `/prometheus/metrics` nor anything in `/perf_metrics`."""
    return_metrics_header: bool = False
    """Whether requests may ask for timings with `X-TRTLLM-return-metrics`."""
    max_records: int = 1000
    """Iteration and perf records kept until they are read."""
    metrics_patience_s: float = 2.0
    """Seconds that `/metrics` waits for a first record; older servers wait for events, too."""
    event_buffer_max_size: int = 16_384
    """KV cache events kept until they are read; 0: none at all."""
    kv_events_config: str = ""
    """JSON of `kv_events_config`: events are published over ZMQ, too."""
    kv_events_rank: int = 0
    """Added to the ports of the events."""
    auto_calls: bool = False
    """Whether `tool_choice: auto` makes the model call the first tool, unless it was just given an answer."""
    window_size: int = 131_072
    """Attention window as the events report it, tokens."""


class TrtllmDialect:
    """One trtllm-serve process."""

    defaults: ClassVar[EngineOptions] = EngineOptions(
        dialect="trtllm", block_size=32, num_blocks=13_125, max_num_seqs=64
    )

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self._core = core
        self._options = options
        self._extra = extra = options.extra_as(TrtllmOptions)
        self._inference = Inference(
            core,
            options,
            extra.snapshot,
            reports_metrics=extra.return_metrics_header and extra.snapshot == "new",
            auto_calls=extra.auto_calls,
        )
        self._responses = Responses(core, options)
        self._telemetry = Telemetry(
            extra.snapshot,
            core.stats,
            collector=extra.return_perf_metrics,
            kept=extra.max_records,
            max_num_tokens=options.max_num_batched_tokens,
            model=options.model,
        )
        self._events = EventLog(
            extra.event_buffer_max_size, options.num_blocks, options.block_size, extra.window_size
        )
        if extra.enable_iter_perf_stats or extra.return_perf_metrics:
            core.listeners.append(self._telemetry)
        if extra.event_buffer_max_size:
            core.cache.listeners.append(self._events)
        self._push: TrtllmKvPush | None = None
        if (config := config_of(extra.kv_events_config)) is not None:
            publisher = KvPublisher(config, extra.kv_events_rank, replays_topic=True)
            self._push = TrtllmKvPush(publisher, options.block_size)
            core.cache.listeners.append(self._push)

    @property
    def routes(self) -> Routes:
        routes: dict[tuple[str, str], Handler] = {
            ("POST", "/v1/chat/completions"): self._inference.chat,
            ("POST", "/v1/completions"): self._inference.completions,
            ("POST", "/v1/responses"): self._responses.create,
            ("GET", "/v1/responses/{id}"): self._responses.read,
            ("DELETE", "/v1/responses/{id}"): self._responses.delete,
            ("GET", "/v1/models"): self._models,
            ("GET", "/health"): self._health,
            ("GET", "/health_generate"): self._health_generate,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._iterations,
            ("POST", "/kv_cache_events"): self._kv_cache_events,
        }
        if self._extra.return_perf_metrics:
            routes["GET", "/prometheus/metrics"] = self._prometheus
        if self._extra.snapshot != "new":
            routes["GET", "/perf_metrics"] = self._perf_metrics
        if self._extra.snapshot != "old":
            routes["GET", "/server_info"] = self._server_info
        if self._extra.snapshot == "new":
            routes["POST", "/_internal/tokenize"] = self._tokenize
        return routes

    @property
    def traits(self) -> Traits:
        return Traits(
            disconnect="polled",
            health_paths=frozenset({"/health", "/health_generate"}),
            idle_timeout_s=5.0,
            server_headers=(("server", "uvicorn"),),
            publishers=() if self._push is None else (self._push.publisher,),
        )

    def authorize(self, _: Request) -> Response | None:
        """There are no keys on the inference endpoints."""
        return None

    def error(self, status: int, message: str) -> Response:
        """Unknown paths get FastAPI's object; a generation that failed is 400 like every other exception."""
        if message in ("Not Found", "Method Not Allowed"):
            return Response.of_json({"detail": message}, status)
        if status == 500 and self._inference.pending.failed(message):
            status = 400
        kind = "BadRequestError" if status < 500 else "InternalServerError"
        return Response.of_json(wire.FlatError(message=message, type=kind, code=status), status)

    def unhealthy(self) -> Response:
        """Older servers do not notice."""
        if self._extra.snapshot == "old":
            return Response(200, b"", None)
        return Response.of_text(wire.UNAVAILABLE, 503)

    # ---- health and identity ----

    async def _health(self, _: Request) -> Reply:
        return Response(200, b"", None) if self._core.alive else self.unhealthy()

    async def _health_generate(self, _: Request) -> Reply:
        try:
            completion = await self._inference.probe().completed()
        except EngineDead as dead:
            return Response.of_text(f"Generation health check failed: {dead}", 500)
        if completion.finish_reason == "error":
            return Response.of_text("Generation health check failed", 500)
        return Response.of_text("Generation health check OK")

    async def _version(self, _: Request) -> Reply:
        return Response.of_json(wire.Version(self._extra.version or wire.VERSIONS[self._extra.snapshot]))

    async def _models(self, _: Request) -> Reply:
        return Response.of_json(wire.models(self._options.model.rpartition("/")[2], int(time.time())))

    async def _server_info(self, _: Request) -> Reply:
        return Response.of_json(wire.ServerInfo({}, self._options.block_size, "v1_block_key"))

    async def _tokenize(self, request: Request) -> Reply:
        try:
            asked = msgspec.json.decode(request.body, type=wire.TokenizeRequest)
        except msgspec.DecodeError as wrong:
            raise Refusal(Response.of_json(wire.StringError(f"1 validation error: {wrong}"), 400)) from wrong
        ids = tuple(encode(asked.prompt))
        return Response.of_json(wire.Tokens(len(ids), ids))

    # ---- telemetry: reading takes out ----

    async def _iterations(self, _: Request) -> Reply:
        if not self._extra.enable_iter_perf_stats:
            await asyncio.sleep(self._extra.metrics_patience_s)
            return Response.of_json([])
        return Response.of_json(await self._telemetry.iterations(self._extra.metrics_patience_s))

    async def _prometheus(self, _: Request) -> Reply:
        return Response(200, self._telemetry.prometheus(), wire.EXPOSITION_TEXT)

    async def _perf_metrics(self, _: Request) -> Reply:
        return Response.of_json(self._telemetry.perf_records() if self._extra.return_perf_metrics else [])

    async def _kv_cache_events(self, _: Request) -> Reply:
        """Older servers wait when there is nothing."""
        events = self._events.drain()
        if not events and self._extra.snapshot == "old":
            await asyncio.sleep(self._extra.metrics_patience_s)
            events = self._events.drain()
        return Response.of_json(events)
