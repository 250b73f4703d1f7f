"""The vLLM dialect: which endpoint answers which path, and how the server behaves around them (v0.27)."""

from typing import ClassVar

from loadtest.engine.core import EngineCore, EngineOptions
from loadtest.engine.dialect import Reply, Request, Response, Routes, Traits
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_chat import ChatEndpoint
from loadtest.engine.vllm_completions import CompletionsEndpoint
from loadtest.engine.vllm_errors import VllmError

_GUARDED = ("/v1", "/v2", "/inference", "/cohere")
"""Only paths that start so need the key."""


class VllmDialect:
    """vLLM's HTTP surface over a simulated engine."""

    defaults: ClassVar[EngineOptions] = EngineOptions(dialect="vllm")

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self._base = VllmBase(core, options)
        self._options = options
        self._chat = ChatEndpoint(self._base)
        self._completions = CompletionsEndpoint(self._base)

    @property
    def traits(self) -> Traits:
        return Traits(
            disconnect="at_once",
            health_paths=frozenset({"/health", "/ping"}),
            idle_timeout_s=self._base.flags.keep_alive_s,
            server_headers=(("server", "uvicorn"),),
        )

    @property
    def routes(self) -> Routes:
        return {
            ("POST", "/v1/chat/completions"): self._chat.handle,
            ("POST", "/v1/completions"): self._completions.handle,
            ("GET", "/health"): self._health,
        }

    def authorize(self, request: Request) -> Response | None:
        key = self._options.api_key
        if key is None or not request.path.startswith(_GUARDED):
            return None
        if request.headers.get("authorization") == f"Bearer {key}":
            return None
        return Response.of_json({"error": "Unauthorized"}, 401)

    def error(self, status: int, message: str) -> Response:
        error = VllmError(status, message)
        return error.flat() if self._base.flags.flat_errors else error.response

    def unhealthy(self) -> Response:
        return Response(503, content_type=None)

    async def _health(self, _: Request) -> Reply:
        return Response(content_type=None) if self._base.core.alive else self.unhealthy()
