"""What vLLM's endpoints share: names of models and adapters, ids, submission, and the checks before it."""

import time
from typing import Final
from uuid import uuid4

from loadtest.engine.core import EngineCore, EngineOptions, Generation
from loadtest.engine.dialect import Headers, Request
from loadtest.engine.vllm_errors import bad_request, unknown_model
from loadtest.engine.vllm_options import VllmOptions
from loadtest.engine.vllm_wire import Identity

_REMEMBERED: Final = 1_000


class VllmBase:
    """One vLLM server's state."""

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self.core = core
        self.options = options
        self.flags = options.extra_as(VllmOptions)
        self.loras = dict.fromkeys(options.loras, "/adapters")
        """Path by name of the loaded adapters."""
        self.requests: dict[str, tuple[Generation, ...]] = {}
        """Generations by response id, for `/abort_requests`; finished ones are dropped now and then."""

    def lora_of(self, model: str | None) -> str | None:
        """The adapter that a model name means; None is the base model. Raises Refusal for an unknown name."""
        if not model or model in self.options.model_names:
            return None
        if model in self.loras:
            return model
        raise unknown_model(model)

    def identity(self, request: Request, prefix: str, model: str | None, wanted_id: str | None) -> Identity:
        """Id, creation time and names for a response; the id follows `X-Request-Id`."""
        own = request.headers.get("x-request-id") or wanted_id or uuid4().hex
        return Identity(
            f"{prefix}-{own}", int(time.time()), model or self.options.model, self.flags.system_fingerprint
        )

    def remember(self, response_id: str, generations: tuple[Generation, ...]) -> None:
        """Let these be aborted by the id of their response."""
        if len(self.requests) >= _REMEMBERED:
            running = {
                key: ones for key, ones in self.requests.items() if not all(one.finished for one in ones)
            }
            self.requests = running
        self.requests[response_id] = generations

    def answer_headers(self, request: Request) -> Headers:
        """Headers on generation answers."""
        headers: Headers = ()
        if self.flags.enable_request_id_headers:
            headers = (("x-request-id", request.headers.get("x-request-id") or uuid4().hex),)
        return headers

    def load_headers(self, request: Request) -> Headers:
        """The ORCA header of whole answers, in the format that the request asks for."""
        stats = self.core.stats()
        values = {"kv_cache_usage_perc": stats.kv_usage_ratio, "num_requests_waiting": float(stats.waiting)}
        wanted = request.headers.get("endpoint-load-metrics-format", "").upper()
        if wanted == "TEXT":
            text = ", ".join(f"named_metrics.{name}={value}" for name, value in values.items())
            return (("endpoint-load-metrics", f"TEXT {text}"),)
        if wanted == "JSON":
            text = ", ".join(f'"{name}": {value}' for name, value in values.items())
            return (("endpoint-load-metrics", f'JSON {{"named_metrics": {{{text}}}}}'),)
        return ()

    def check_rank(self, request: Request) -> None:
        """Raises Refusal if `X-data-parallel-rank` names a rank that does not exist."""
        rank = request.headers.get("x-data-parallel-rank")
        if rank is None:
            return
        if not rank.isdigit() or int(rank) >= self.flags.data_parallel_size:
            raise bad_request(
                f"data_parallel_rank {rank} is out of range [0, {self.flags.data_parallel_size})."
            )

    def priority(self, request: Request, given: int) -> int:
        """The priority of the header, else of the body."""
        header = request.headers.get("x-vllm-priority")
        if header is None:
            return given
        try:
            return int(header)
        except ValueError as error:
            raise bad_request(f"X-Vllm-Priority must be an integer, got {header!r}") from error
