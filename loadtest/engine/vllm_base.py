"""What vLLM's endpoints share: names of models and adapters, ids, submission, and the checks before it."""

import time
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from loadtest.engine.core import EngineCore, EngineOptions, Generation
from loadtest.engine.dialect import Headers, Request
from loadtest.engine.kv_publisher import KvPublisher, config_of
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.vllm_context import output_limit
from loadtest.engine.vllm_errors import bad_request, queue_full, unknown_model
from loadtest.engine.vllm_kv_events import Layout, VllmKvEvents
from loadtest.engine.vllm_options import VllmOptions
from loadtest.engine.vllm_usage import UsageReport
from loadtest.engine.vllm_wire import Identity

_REMEMBERED: Final = 1_000


class VllmBase:
    """One vLLM server's state."""

    def __init__(self, core: EngineCore, options: EngineOptions) -> None:
        self.core = core
        self.options = options
        self.flags = options.extra_as(VllmOptions)
        self.rejected = 0
        """Requests refused because the queue was full."""
        self.loras = dict.fromkeys(options.loras, "/adapters")
        """Path by name of the loaded adapters."""
        self.requests: dict[str, tuple[Generation, ...]] = {}
        """Generations by response id, for `/abort_requests`; finished ones are dropped now and then."""
        self.kv_events = _kv_events(core, options, self.flags)

    def lora_of(self, model: str | None) -> str | None:
        """The adapter that a model name means; None is the base model. Raises Refusal for an unknown name."""
        if not model or model in self.options.model_names:
            return None
        if model in self.loras:
            return model
        raise unknown_model(model, self.options.model_names)

    def identity(self, request: Request, prefix: str, model: str | None, wanted_id: str | None) -> Identity:
        """Id, creation time and names for a response; the id follows `X-Request-Id`."""
        own = self.own_id(request, wanted_id)
        name, fingerprint = model or self.options.model, self.flags.system_fingerprint
        return Identity(f"{prefix}-{own}", int(time.time()), name, fingerprint)

    def own_id(self, request: Request, wanted_id: str | None = None) -> str:
        """The request's id: the header's, the body's, or a new one."""
        return request.headers.get("x-request-id") or wanted_id or uuid4().hex

    def submit(
        self,
        response_id: str,
        prompts: Sequence[Sequence[int]],
        params: Sequence[Sequence[SamplingParams]],
    ) -> tuple[Generation, ...]:
        """Queue every prompt with each of its parameters; raises Refusal if the queue is full."""
        limit = self.flags.max_num_queued_reqs
        if limit is not None and self.core.stats().waiting >= limit:
            self.rejected += 1
            raise queue_full()
        if self.kv_events is not None:
            for choices in params:
                self.kv_events.expect(choices[0])
        generations = tuple(
            self.core.submit(prompt, one)
            for prompt, choices in zip(prompts, params, strict=True)
            for one in choices
        )
        self._remember(response_id, generations)
        return generations

    def _remember(self, response_id: str, generations: tuple[Generation, ...]) -> None:
        if len(self.requests) >= _REMEMBERED:
            running = {
                key: ones for key, ones in self.requests.items() if not all(one.finished for one in ones)
            }
            self.requests = running
        self.requests[response_id] = generations

    def limit(
        self, asked: int | None, prompt_tokens: int, default: int | None, name: str = "max_tokens"
    ) -> int:
        """The longest output for a prompt; raises Refusal if they do not fit the context."""
        return output_limit(
            asked,
            prompt_tokens,
            self.options.max_model_len,
            default=default,
            recent=self.flags.recent,
            name=name,
        )

    def usage(
        self, prompts: Sequence[Generation], generations: Sequence[Generation], *, created: bool = False
    ) -> UsageReport:
        """The counts of these generations."""
        return UsageReport(self.flags, self.options.block_size, prompts, generations, created=created)

    def load_headers(self, request: Request) -> Headers:
        """The ORCA header of whole answers, in the format that the request asks for."""
        wanted = request.headers.get("endpoint-load-metrics-format", "").upper()
        if wanted not in ("TEXT", "JSON"):
            return ()
        stats = self.core.stats()
        values = {"num_requests_waiting": float(stats.waiting), "kv_cache_usage_perc": stats.kv_usage_ratio}
        if wanted == "TEXT":
            text = ", ".join(f"named_metrics.{name}={value}" for name, value in values.items())
            return (("endpoint-load-metrics", f"TEXT {text}"),)
        text = ", ".join(f'"{name}": {value}' for name, value in values.items())
        return (("endpoint-load-metrics", f'JSON {{"named_metrics": {{{text}}}}}'),)

    def check_rank(self, request: Request) -> None:
        """Raises Refusal if `X-data-parallel-rank` names a rank that does not exist."""
        rank = request.headers.get("x-data-parallel-rank")
        if rank is None:
            return
        size = self.flags.data_parallel_size
        if not rank.isdigit() or int(rank) >= size:
            raise bad_request(f"data_parallel_rank {rank} is out of range [0, {size}).")

    def priority(self, request: Request, given: int) -> int:
        """The priority of the header, else of the body."""
        header = request.headers.get("x-vllm-priority")
        if header is None:
            return given
        try:
            return int(header)
        except ValueError as error:
            raise bad_request(f"X-Vllm-Priority must be an integer, got {header!r}") from error


def _kv_events(core: EngineCore, options: EngineOptions, flags: VllmOptions) -> VllmKvEvents | None:
    """What publishes the cache's events, if the options ask for them."""
    config = config_of(flags.kv_events_config)
    if config is None:
        return None
    layout = Layout(flags.release, int_hashes=flags.kv_events_int_hashes)
    publisher = KvPublisher(config, flags.kv_events_rank, replays_topic=layout.replays_topic)
    events = VllmKvEvents(publisher, layout, options.block_size, flags.kv_events_rank)
    core.cache.listeners.append(events)
    return events
