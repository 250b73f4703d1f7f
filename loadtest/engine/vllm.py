"""The vLLM dialect: which endpoint answers which path, and how the server behaves around them."""

from dataclasses import replace
from typing import ClassVar

from loadtest.engine.core import EngineCore, EngineOptions
from loadtest.engine.dialect import (
    GatheredResponse,
    Handler,
    Headers,
    Reply,
    Request,
    Response,
    Routes,
    Traits,
)
from loadtest.engine.http1 import phrase
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_chat import ChatEndpoint
from loadtest.engine.vllm_completions import CompletionsEndpoint
from loadtest.engine.vllm_errors import VllmError
from loadtest.engine.vllm_generate import GenerateEndpoint
from loadtest.engine.vllm_lifecycle import LifecycleEndpoint
from loadtest.engine.vllm_messages import MessagesEndpoint
from loadtest.engine.vllm_metrics import MetricsEndpoint
from loadtest.engine.vllm_models import ModelsEndpoint
from loadtest.engine.vllm_pooling import PoolingEndpoint
from loadtest.engine.vllm_responses import ResponsesEndpoint
from loadtest.engine.vllm_tokenize import TokenizeEndpoint

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""Only paths that start so need the key."""


class VllmDialect:
    """vLLM's HTTP surface over a simulated engine."""

    defaults: ClassVar[EngineOptions] = EngineOptions(dialect="vllm")

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self._base = VllmBase(core, options)
        self._options = options
        self._metrics = MetricsEndpoint(self._base)
        self.routes = self._all_routes()

    @property
    def traits(self) -> Traits:
        events = self._base.kv_events
        return Traits(
            disconnect="at_once",
            health_paths=frozenset({"/health", "/ping"}),
            idle_timeout_s=self._base.flags.keep_alive_s,
            server_headers=(("server", "uvicorn"),),
            drains_listening=True,
            publishers=() if events is None else (events.publisher,),
        )

    def _all_routes(self) -> Routes:
        flags = self._base.flags
        routes: Routes = {
            **self._generation_routes(),
            **self._lifecycle_routes(),
            **(self._developer_routes() if flags.dev_mode else {}),
            **(self._lora_routes() if flags.runtime_lora else {}),
        }
        return {key: self._finishing(handler) for key, handler in routes.items()}

    def _generation_routes(self) -> Routes:
        base = self._base
        chat, tokens, pooling = ChatEndpoint(base), TokenizeEndpoint(base), PoolingEndpoint(base)
        messages = MessagesEndpoint(base, chat)
        return {
            ("POST", "/v1/chat/completions"): chat.handle,
            ("POST", "/v1/completions"): CompletionsEndpoint(base).handle,
            ("POST", "/v1/responses"): ResponsesEndpoint(base, chat).handle,
            ("POST", "/v1/messages"): messages.handle,
            ("POST", "/v1/messages/count_tokens"): messages.count_tokens,
            ("POST", "/inference/v1/generate"): GenerateEndpoint(base).handle,
            ("POST", "/v1/embeddings"): pooling.embeddings,
            **{("POST", path): pooling.score for path in ("/score", "/v1/score")},
            **{("POST", path): pooling.rerank for path in ("/rerank", "/v1/rerank", "/v2/rerank")},
            ("POST", "/tokenize"): tokens.tokenize,
            ("POST", "/detokenize"): tokens.detokenize,
            ("POST", "/v1/chat/completions/render"): tokens.render_chat,
            ("POST", "/v1/completions/render"): tokens.render_completion,
        }

    def _lifecycle_routes(self) -> Routes:
        life = LifecycleEndpoint(self._base)
        return {
            ("GET", "/v1/models"): ModelsEndpoint(self._base).list,
            ("GET", "/health"): life.health,
            ("GET", "/ping"): life.health,
            ("POST", "/ping"): life.health,
            ("GET", "/version"): life.version,
            ("GET", "/load"): life.load,
            ("GET", "/metrics"): self._metrics.handle,
        }

    def _developer_routes(self) -> Routes:
        life = LifecycleEndpoint(self._base)
        return {
            ("POST", "/sleep"): life.sleep,
            ("POST", "/wake_up"): life.wake_up,
            ("GET", "/is_sleeping"): life.is_sleeping,
            ("POST", "/reset_prefix_cache"): life.reset_prefix_cache,
            ("POST", "/pause"): life.pause,
            ("POST", "/resume"): life.resume,
            ("GET", "/is_paused"): life.is_paused,
            ("GET", "/server_info"): life.server_info,
            ("POST", "/abort_requests"): life.abort_requests,
        }

    def _lora_routes(self) -> Routes:
        models = ModelsEndpoint(self._base)
        return {
            ("POST", "/v1/load_lora_adapter"): models.load_lora,
            ("POST", "/v1/unload_lora_adapter"): models.unload_lora,
        }

    def authorize(self, request: Request) -> Response | None:
        key = self._options.api_key
        if key is None or not request.path.startswith(_GUARDED):
            return None
        if request.headers.get("authorization") == f"Bearer {key}":
            return None
        return Response.of_json({"error": "Unauthorized"}, 401)

    def error(self, status: int, message: str) -> Response:
        if status in (404, 405) and message == phrase(status):
            return Response.of_json({"detail": message}, status)
        return VllmError(status, message).rendered(self._base.flags)

    def unhealthy(self) -> Response:
        return Response(503, content_type=None)

    def _finishing(self, handler: Handler) -> Handler:
        """The same handler with errors in this version's words, and the headers that go on every answer."""

        async def handle(request: Request) -> Reply:
            try:
                reply = await handler(request)
            except VllmError as error:
                reply = error.rendered(self._base.flags)
            return _with_headers(reply, self._headers(request))

        return handle

    def _headers(self, request: Request) -> Headers:
        if not self._base.flags.enable_request_id_headers:
            return ()
        return (("x-request-id", self._base.own_id(request)),)


def _with_headers(reply: Reply, more: Headers) -> Reply:
    if not more:
        return reply
    if isinstance(reply, GatheredResponse):
        render = reply.render
        return replace(reply, render=lambda completions: _headed(render(completions), more))
    return replace(reply, headers=(*reply.headers, *more))


def _headed(response: Response, more: Headers) -> Response:
    return replace(response, headers=(*response.headers, *more))
