"""Triton's bytes: generate answers and events, errors, metadata, model configuration and statistics.

Answers have alphabetical keys (a C++ `std::map`) and one-element tensors without their brackets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import msgspec
from msgspec import Struct

Layout = Literal["ensemble", "llmapi"]
Datatype = Literal["BYTES", "BOOL", "INT32", "INT64", "UINT64", "FP32"]
Scalar = str | int | float | bool
Outputs = Mapping[str, Scalar | tuple[float, ...]]

JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream; charset=utf-8"
METRICS_TEXT: Final = "text/plain; charset=utf-8"
VERSION: Final = "2.73.0"
CANCELLED: Final = "Request cancelled by client"
NOT_ONE_RESPONSE: Final = (
    "generate expects model to produce exactly 1 response, "
    "use generate stream for model that generates various number of responses"
)
NOT_DECOUPLED: Final = "Streaming is only supported in decoupled mode."
QUEUE_FULL: Final = "Exceeds maximum queue size"
NOT_READY: Final = "Model version not ready"
NO_REQUEST_ID: Final = "A request id must be provided for request cancellation"

ENSEMBLE_EXTRAS: Final[Outputs] = MappingProxyType(
    {
        "batch_index": 0,
        "context_logits": 0.0,
        "cum_log_probs": 0.0,
        "generation_logits": 0.0,
        "output_log_probs": (0.0, 0.0, 0.0),
        "sequence_end": False,
        "sequence_id": 0,
        "sequence_index": 0,
        "sequence_start": False,
    }
)
"""What surrounds `text_output` in the ensemble layout when no logits or probabilities were asked for."""

_sorted = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model. `optional` is about inputs; a list input takes any number of values."""

    name: str
    datatype: Datatype
    optional: bool = True
    is_list: bool = False


def answer(model_name: str, outputs: Outputs, request_id: str = "") -> bytes:
    """One response as JSON. `id` is there only if the request had one."""
    reserved = {"model_name": model_name, "model_version": "1"} | ({"id": request_id} if request_id else {})
    return _sorted.encode({**outputs, **reserved})


def event(body: bytes) -> bytes:
    """The same response inside `generate_stream`."""
    return b"data: " + body + b"\n\n"


def error(message: str) -> bytes:
    return msgspec.json.encode({"error": message})


def generation_failed(what: str) -> str:
    return f"Error generating request: {what}"


def unknown_model(name: str) -> str:
    return f"Request for unknown model: '{name}' is not found"


def unknown_version(name: str, version: str) -> str:
    return f"Request for unknown model: '{name}' version {version} is not found"


def too_long(prompt_tokens: int, max_tokens: int, limit: int) -> str:
    """Prompt and answer do not fit into the model's context together."""
    return generation_failed(
        f"The sum of prompt length ({prompt_tokens}) and max_tokens ({max_tokens}) "
        f"should not exceed max_seq_len ({limit})"
    )


def load_report(kind: str, kv_cache_utilization: float, max_token_capacity: int) -> str:
    """The `endpoint-load-metrics` header (ORCA) as `text` or `json`."""
    if kind == "text":
        return (
            f"TEXT named_metrics.kv_cache_utilization={kv_cache_utilization:.6f}, "
            f"named_metrics.max_token_capacity={max_token_capacity}"
        )
    named = {"kv_cache_utilization": kv_cache_utilization, "max_token_capacity": max_token_capacity}
    return "JSON " + msgspec.json.encode({"named_metrics": named}).decode()


def invalid_parameter(name: str) -> str:
    """For a key that is no input of the model and cannot be a request parameter either."""
    return f"parameter '{name}' has invalid type. It should be either 'int', 'bool', or 'string'."


def missing_inputs(model: str, got: Sequence[str], missing: Sequence[str]) -> str:
    def shown(names: Sequence[str]) -> str:
        return "[" + ", ".join(f"'{name}'" for name in names) + "]"

    return (
        f"expected {len(got) + len(missing)} inputs but got {len(got)} inputs for model '{model}'. "
        f"Got input(s) {shown(got)}, but missing required input(s) {shown(missing)}. "
        "Please provide all required input(s)."
    )


class ServerMetadata(Struct, frozen=True):
    """`GET /v2`."""

    name: str = "triton"
    version: str = VERSION
    extensions: tuple[str, ...] = (
        "classification",
        "sequence",
        "model_repository",
        "model_repository(unload_dependents)",
        "schedule_policy",
        "model_configuration",
        "system_shared_memory",
        "cuda_shared_memory",
        "binary_tensor_data",
        "parameters",
        "statistics",
        "trace",
        "logging",
    )


class TensorMetadata(Struct, frozen=True):
    name: str
    datatype: Datatype
    shape: tuple[int, ...]


class ModelMetadata(Struct, frozen=True):
    """`GET /v2/models/{model}`."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class ConfigTensor(Struct, frozen=True):
    name: str
    data_type: str
    dims: tuple[int, ...]
    optional: bool


class TransactionPolicy(Struct, frozen=True):
    decoupled: bool


class Parameter(Struct, frozen=True):
    string_value: str


class ModelConfig(Struct, frozen=True):
    """`GET /v2/models/{model}/config`, without the parts that nobody reads."""

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: tuple[ConfigTensor, ...]
    output: tuple[ConfigTensor, ...]
    model_transaction_policy: TransactionPolicy
    parameters: Mapping[str, Parameter]


class Times(Struct, frozen=True):
    """A count and the nanoseconds they took together."""

    count: int = 0
    ns: int = 0


class InferenceStats(Struct, frozen=True):
    success: Times
    fail: Times
    queue: Times
    compute_input: Times
    compute_infer: Times
    compute_output: Times
    cache_hit: Times = Times()
    cache_miss: Times = Times()


class ModelStats(Struct, frozen=True):
    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStats
    response_stats: Mapping[str, Times]
    batch_stats: tuple[Times, ...]


class AllStats(Struct, frozen=True):
    """`GET /v2/models/{model}/stats`. `last_inference` is in milliseconds since the epoch."""

    model_stats: tuple[ModelStats, ...]


class IndexEntry(Struct, frozen=True):
    """One element of the repository index."""

    name: str
    version: str
    state: str
    reason: str = ""


def metadata(name: str, layout: Layout, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> ModelMetadata:
    """Tensors with their batch dimension."""
    platform = "python" if layout == "llmapi" else "ensemble"
    return ModelMetadata(name, ("1",), platform, _described(inputs), _described(outputs))


def _described(tensors: Sequence[Tensor]) -> tuple[TensorMetadata, ...]:
    return tuple(TensorMetadata(one.name, one.datatype, (-1, -1 if one.is_list else 1)) for one in tensors)


def config(
    name: str,
    layout: Layout,
    max_batch_size: int,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    *,
    decoupled: bool,
    engine_dir: str = "",
) -> ModelConfig:
    platform, backend = ("", "python") if layout == "llmapi" else ("ensemble", "")
    shape = _configured(inputs), _configured(outputs)
    parameters = {"engine_dir": Parameter(engine_dir)} if engine_dir else {}
    policy = TransactionPolicy(decoupled)
    return ModelConfig(name, platform, backend, max_batch_size, *shape, policy, parameters)


def _configured(tensors: Sequence[Tensor]) -> tuple[ConfigTensor, ...]:
    names = {"BYTES": "TYPE_STRING"}
    return tuple(
        ConfigTensor(
            one.name,
            names.get(one.datatype, f"TYPE_{one.datatype}"),
            (-1 if one.is_list else 1,),
            one.optional,
        )
        for one in tensors
    )
