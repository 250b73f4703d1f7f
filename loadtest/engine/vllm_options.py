"""vLLM's own knobs: the values of `EngineOptions.extra` that this dialect knows."""

import msgspec


class VllmOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Server flags of a simulated vLLM, by the names of the real ones where there are some."""

    version: str = "0.32.0"
    """Decides wording and optional fields: from 0.32 on as recorded from a real one, before that as v0.27."""
    fingerprint: str | None = "1a2b3c4d"
    """Last part of `system_fingerprint`; null drops the field (`--fingerprint-mode none`)."""
    enable_prompt_tokens_details: bool = False
    """Whether usage tells the cached tokens."""
    enable_force_include_usage: bool = False
    """Usage on every chunk, asked for or not."""
    enable_request_id_headers: bool = False
    """Whether `X-Request-Id` comes back as a header."""
    enable_server_load_tracking: bool = False
    """Whether `/load` counts."""
    enable_per_request_metrics: bool = False
    """Whether whole chat answers carry `metrics`."""
    tool_call_parser: bool = True
    """Whether tools can be used (`--enable-auto-tool-choice --tool-call-parser hermes`)."""
    enable_scale_out: bool = True
    """Whether the rendering endpoints answer (`--enable-scale-out`)."""
    max_num_queued_reqs: int | None = None
    """Waiting requests above which new ones get a 503; null: the queue is unbounded."""
    runtime_lora: bool = True
    """Whether adapters can be loaded and unloaded (`VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`)."""
    dev_mode: bool = True
    """Whether the sleep and reset endpoints exist (`VLLM_SERVER_DEV_MODE=1`)."""
    legacy_metrics: bool = False
    """Metric names of v0.9 to v0.11 beside the new ones."""
    flat_errors: bool = False
    """Error bodies of v0.10 and older."""
    data_parallel_size: int = 1
    """Ranks behind this port; `X-data-parallel-rank` must be below it."""
    keep_alive_s: float = 5.0
    """Idle seconds before a kept-alive connection is closed (`VLLM_HTTP_TIMEOUT_KEEP_ALIVE`)."""
    max_loras: int = 4
    """Label of the LoRA gauge."""
    embedding_size: int = 64
    """Length of embedding vectors."""
    kv_events_config: str = ""
    """JSON of `--kv-events-config`; `version` decides how the events are encoded."""
    kv_events_rank: int = 0
    """Data-parallel rank: added to the ports of the events."""
    kv_events_int_hashes: bool = True
    """Whether block hashes are numbers or whole digests (`VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES`)."""
    root: str = ""
    """What the server was told to load (`--model`); empty: the name."""
    revision: str = ""
    """Commit that was asked for (`--revision`); empty: none."""
    dtype: str = "bfloat16"
    """Data type of the weights."""
    quantization: str = ""
    """How the weights are quantized; empty: they are not."""
    kv_cache_dtype: str = "auto"
    """Data type of the KV cache (`--kv-cache-dtype`)."""
    tensor_parallel_size: int = 1
    """GPUs over which each layer is split."""

    @property
    def release(self) -> tuple[int, ...]:
        """The version's numbers."""
        return tuple(int(part) for part in self.version.split(".") if part.isdigit())

    @property
    def recent(self) -> bool:
        """Whether it speaks as v0.32 does."""
        return self.release >= (0, 32)

    @property
    def system_fingerprint(self) -> str | None:
        return None if self.fingerprint is None else f"vllm-{self.version}-{self.fingerprint}"
