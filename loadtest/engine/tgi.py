"""TGI: OpenAI's paths and its own, behind a limit on concurrent requests (router 3.3.6-dev0).

In a stream every error has status 200; the prompt alone is cached, and only when its request has ended.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from msgspec import UNSET

from loadtest.engine import tgi_native_wire as native
from loadtest.engine import tgi_wire as wire
from loadtest.engine.core import EngineCore, EngineDead, EngineOptions
from loadtest.engine.dialect import Handler, Refusal, Reply, Request, Response, Routes, Traits
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.tgi_chat import chat_job
from loadtest.engine.tgi_inference import Inference
from loadtest.engine.tgi_meter import Meter
from loadtest.engine.tgi_options import TgiOptions
from loadtest.engine.tgi_request_wire import ChatRequest, GenerateRequest
from loadtest.engine.tgi_validation import Failure, generation_failed
from loadtest.engine.tokens import encode, token_bytes

GUARDED: Final = frozenset(
    {
        "/",
        "/generate",
        "/generate_stream",
        "/v1/chat/completions",
        "/v1/completions",
        "/vertex",
        "/invocations",
        "/tokenize",
    }
)
"""POST paths that need the key, if there is one."""
_ERROR_TYPES: Final[Mapping[int, str]] = {
    422: "validation",
    424: "generation",
    429: "overloaded",
    500: "incomplete_generation",
    503: "healthcheck",
}


class TgiDialect:
    """One TGI router with its model."""

    # Blocks of 16 tokens are TGI's "paged" attention. Its default (flashinfer) has blocks of one token, which
    # cost this simulator 16 times the bookkeeping; `block_size=1` shows the difference to who needs it.
    defaults: ClassVar[EngineOptions] = EngineOptions(
        dialect="tgi", reuse="prompt_on_finish", reserve_output=True
    )

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self._core = core
        self._options = options
        self._extra = options.extra_as(TgiOptions)
        limits = self._extra.limits(options)
        self._info = wire.Info(
            model_id=options.model,
            model_sha=self._extra.model_sha,
            model_dtype=UNSET if self._extra.model_dtype is None else self._extra.model_dtype,
            version=self._extra.version,
            max_concurrent_requests=self._extra.max_concurrent_requests,
            max_best_of=self._extra.max_best_of,
            max_stop_sequences=self._extra.max_stop_sequences,
            max_input_tokens=limits.max_input_tokens,
            max_total_tokens=limits.max_total_tokens,
            max_client_batch_size=self._extra.max_client_batch_size,
        )
        self._meter = Meter(limits.max_input_tokens, limits.max_total_tokens)
        self._inference = Inference(core, options, self._extra, self._meter)
        core.listeners.append(self._meter)

    @property
    def routes(self) -> Routes:
        run = self._inference
        posts: dict[str, Handler] = {
            "/": run.compat,
            "/generate": run.generate,
            "/generate_stream": run.generate_stream,
            "/v1/chat/completions": run.chat,
            "/v1/completions": run.completions,
            "/vertex": run.vertex,
            "/invocations": run.invocations,
            "/tokenize": self._tokenize,
            "/chat_tokenize": self._chat_tokenize,
        }
        gets: dict[str, Handler] = {
            "/": self._health,
            "/health": self._health,
            "/ping": self._health,
            "/info": self._about,
            "/metrics": self._metrics,
            "/v1/models": self._models,
            "/docs": self._docs,
            "/api-doc/openapi.json": self._openapi,
        }
        return {
            **{("POST", path): handler for path, handler in posts.items()},
            **{("GET", path): handler for path, handler in gets.items()},
        }

    @property
    def traits(self) -> Traits:
        return Traits(
            disconnect="next_token",
            health_paths=frozenset({"/", "/health", "/ping"}),
            max_body_bytes=self._extra.payload_limit,
        )

    def authorize(self, request: Request) -> Response | None:
        """Key and header are compared in lower case; the refusal is empty."""
        key = self._options.api_key
        if key is None or request.method != "POST" or request.path not in GUARDED:
            return None
        given = request.headers.get("authorization", "").lower()
        return None if given == f"bearer {key.lower()}" else Response(401, b"", None)

    def error(self, status: int, message: str) -> Response:
        """A failed generation is 424; the framework's own refusals are plain text or empty."""
        if status == 500 and self._inference.runner.pending.failed(message):
            failure = generation_failed(message)
            return Response.of_json(failure.body, failure.status)
        if status in (401, 404, 405):
            return Response(status, b"", None)
        if status == 413:
            return Response.of_text("Failed to buffer the request body: length limit exceeded", 413)
        kind = _ERROR_TYPES.get(status)
        if kind is None:
            return Response.of_text(message, status)
        return Response.of_json(wire.Error(message, kind), status)

    def unhealthy(self) -> Response:
        return Response.of_json(wire.Error("unhealthy", "healthcheck"), 503)

    # ---- health and identity ----

    async def _health(self, _: Request) -> Reply:
        """Good without work, until a generation fails: then the next call runs one token to see."""
        if not self._core.alive:
            return self.unhealthy()
        if self._meter.suspicious:
            try:
                probe = self._core.submit(encode("liveness"), SamplingParams(max_tokens=1, temperature=0.0))
            except EngineDead:
                return self.unhealthy()
            if (await probe.completed()).finish_reason == "error":
                return self.unhealthy()
            self._meter.suspicious = False
        return Response(200, b"", None)

    async def _about(self, _: Request) -> Reply:
        return Response.of_json(self._info)

    async def _models(self, _: Request) -> Reply:
        return Response.of_json(wire.models(self._options.model))

    async def _metrics(self, _: Request) -> Reply:
        return Response(200, self._meter.scrape(self._core.stats()), wire.TEXT)

    async def _docs(self, _: Request) -> Reply:
        page = f"<!doctype html><title>Text Generation Inference {wire.VERSION}</title>"
        return Response(200, page.encode(), "text/html; charset=utf-8")

    async def _openapi(self, _: Request) -> Reply:
        paths: dict[str, dict[str, object]] = {}
        for method, path in self.routes:
            paths.setdefault(path, {})[method.lower()] = {"responses": {"200": {"description": "OK"}}}
        title = {"title": "Text Generation Inference", "version": wire.VERSION}
        return Response.of_json({"openapi": "3.0.3", "info": title, "paths": paths})

    # ---- the tokenizer ----

    async def _tokenize(self, request: Request) -> Reply:
        asked = self._inference.decoded(request, GenerateRequest)
        return Response.of_json(tokens_of(asked.inputs))

    async def _chat_tokenize(self, request: Request) -> Reply:
        asked = self._inference.decoded(request, ChatRequest)
        self._meter.counted()
        try:
            text = chat_job(asked, auto_calls=self._extra.auto_calls).job.inputs
        except Failure as failure:
            raise Refusal(Response.of_json(failure.body, failure.status)) from failure
        return Response.of_json(native.ChatTokens(tokens_of(text), text))


def tokens_of(text: str) -> tuple[native.SimpleToken, ...]:
    """The tokens of a text with their byte offsets in it."""
    tokens = []
    start = 0
    for token_id in encode(text):
        data = token_bytes(token_id, specials=True)
        tokens.append(native.SimpleToken(token_id, data.decode("utf-8", "replace"), start, start + len(data)))
        start += len(data)
    return tuple(tokens)
