"""vLLM's health, version, load and developer endpoints."""

import msgspec

from loadtest.engine.core import EngineCore
from loadtest.engine.dialect import Reply, Request, Response
from loadtest.engine.vllm_base import VllmBase
from loadtest.engine.vllm_bodies import decode_body
from loadtest.engine.vllm_errors import bad_request


class AbortRequests(msgspec.Struct, frozen=True):
    request_ids: list[str]


class LifecycleEndpoint:
    """What asks about the server, or changes its state, rather than generate."""

    def __init__(self, base: VllmBase) -> None:
        self._base = base
        self._paused = False

    @property
    def _core(self) -> EngineCore:
        return self._base.core

    async def health(self, _: Request) -> Reply:
        """Empty 200 while the engine is not known dead: sleeping and hung engines answer 200 too."""
        return Response(200 if self._core.alive else 503, content_type=None)

    async def version(self, _: Request) -> Reply:
        return Response.of_json({"version": self._base.flags.version})

    async def server_info(self, _: Request) -> Reply:
        """`str(VllmConfig)`, of its fields those that say what is served."""
        flags, options = self._base.flags, self._base.options
        settings = {
            "model": repr(flags.root or options.model),
            "tokenizer": repr(flags.root or options.model),
            "skip_tokenizer_init": False,
            "revision": flags.revision or None,
            "tokenizer_revision": None,
            "dtype": f"torch.{flags.dtype}",
            "max_seq_len": options.max_model_len,
            "tensor_parallel_size": flags.tensor_parallel_size,
            "pipeline_parallel_size": 1,
            "quantization": flags.quantization or None,
            "kv_cache_dtype": flags.kv_cache_dtype,
            "seed": options.seed,
        }
        return Response.of_json(
            {"vllm_config": ", ".join(f"{name}={said}" for name, said in settings.items())}
        )

    async def load(self, _: Request) -> Reply:
        stats = self._core.stats()
        tracked = self._base.flags.enable_server_load_tracking
        return Response.of_json({"server_load": stats.running + stats.waiting if tracked else 0})

    async def sleep(self, request: Request) -> Reply:
        level = request.query.get("level", "1")
        if level not in ("1", "2"):
            raise bad_request(f"sleep level must be 1 or 2, got {level}")
        self._core.sleep(int(level))
        return Response(content_type=None)

    async def wake_up(self, _: Request) -> Reply:
        self._core.wake_up()
        return Response(content_type=None)

    async def is_sleeping(self, _: Request) -> Reply:
        return Response.of_json({"is_sleeping": self._core.sleep_level > 0})

    async def reset_prefix_cache(self, _: Request) -> Reply:
        return Response.of_json({"success": self._core.reset_prefix_cache()})

    async def pause(self, request: Request) -> Reply:
        mode = request.query.get("mode", "abort")
        if mode not in ("abort", "wait", "keep"):
            raise bad_request(f"pause mode must be abort, wait or keep, got {mode}")
        if mode == "abort":
            self._core.abort_all()
        self._core.stall()
        self._paused = True
        return Response.of_json({"status": "paused"})

    async def resume(self, _: Request) -> Reply:
        self._core.resume()
        self._paused = False
        return Response.of_json({"status": "resumed"})

    async def is_paused(self, _: Request) -> Reply:
        return Response.of_json({"is_paused": self._paused})

    async def abort_requests(self, request: Request) -> Reply:
        wanted = decode_body(request, AbortRequests)
        for request_id in wanted.request_ids:
            for generation in self._base.requests.get(request_id, ()):
                self._core.abort(generation)
        return Response(content_type=None)
