"""Triton's generate requests: a flat object whose keys are input tensors, or request parameters if scalar.

A misspelt scalar is silently a parameter; a misspelt list is an error.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec import Struct

from loadtest.engine.triton_wire import Layout, Scalar, Tensor, invalid_parameter, missing_inputs

Values = Mapping[str, tuple[Scalar, ...]]

ENSEMBLE_INPUTS: Final = (
    Tensor("text_input", "BYTES", optional=False),
    Tensor("max_tokens", "INT32", optional=False),
    *(Tensor(name, "BYTES", is_list=True) for name in ("bad_words", "stop_words")),
    *(
        Tensor(name, "INT32")
        for name in ("end_id", "pad_id", "top_k", "min_length", "beam_width", "num_return_sequences")
    ),
    *(
        Tensor(name, "FP32")
        for name in (
            "top_p", "temperature", "length_penalty",
            "repetition_penalty", "presence_penalty", "frequency_penalty",
        )
    ),
    *(Tensor(name, "UINT64") for name in ("random_seed", "seed", "lora_task_id")),
    *(
        Tensor(name, "BOOL")
        for name in ("return_log_probs", "return_perf_metrics", "stream", "exclude_input_in_output", "stop")
    ),
    *(Tensor(name, "BYTES") for name in ("guided_decoding_guide_type", "guided_decoding_guide")),
    *(Tensor(name, "FP32", is_list=True) for name in ("lora_weights", "embedding_bias_weights")),
    Tensor("lora_config", "INT32", is_list=True),
    Tensor("embedding_bias_words", "BYTES", is_list=True),
)  # fmt: skip
LLMAPI_INPUTS: Final = (
    Tensor("text_input", "BYTES", optional=False),
    Tensor("image_url", "BYTES", is_list=True),
    Tensor("streaming", "BOOL"),
    *(Tensor(f"sampling_param_{name}", "INT32") for name in ("best_of", "top_k", "max_tokens")),
    *(
        Tensor(f"sampling_param_{name}", "FP32")
        for name in ("temperature", "top_p", "frequency_penalty", "presence_penalty")
    ),
    Tensor("sampling_param_stop", "BYTES", is_list=True),
    Tensor("sampling_param_seed", "UINT64"),
    Tensor("sampling_param_exclude_input_from_output", "BOOL"),
    Tensor("sampling_param_return_perf_metrics", "BOOL"),
    *(Tensor(f"return_{name}", "BOOL") for name in ("finish_reason", "stop_reason", "cumulative_logprob")),
    Tensor("stop", "BOOL"),
    Tensor("lora_id", "UINT64"),
    Tensor("lora_name", "BYTES"),
    Tensor("lora_path", "BYTES"),
)
INPUTS: Final[Mapping[Layout, tuple[Tensor, ...]]] = MappingProxyType(
    {"ensemble": ENSEMBLE_INPUTS, "llmapi": LLMAPI_INPUTS}
)
_PERF_OUTPUTS = (
    *(
        Tensor(f"kv_cache_{name}", "INT32")
        for name in ("reused_block", "missed_block", "alloc_new_blocks", "alloc_total_blocks")
    ),
    Tensor("kv_cache_hit_rate", "FP32"),
    *(
        Tensor(f"{name}_time_ns", "INT64")
        for name in ("arrival", "first_scheduled", "first_token", "last_token")
    ),
)
OUTPUTS: Final[Mapping[Layout, tuple[Tensor, ...]]] = MappingProxyType(
    {
        "ensemble": (
            Tensor("text_output", "BYTES"),
            *(Tensor(name, "FP32") for name in ("cum_log_probs", "context_logits", "generation_logits")),
            Tensor("output_log_probs", "FP32", is_list=True),
            *(Tensor(name, "INT32") for name in ("batch_index", "sequence_index", "sequence_id")),
            *(Tensor(name, "BOOL") for name in ("sequence_start", "sequence_end")),
            *_PERF_OUTPUTS,
        ),
        "llmapi": (
            *(Tensor(name, "BYTES") for name in ("text_output", "finish_reason", "stop_reason")),
            Tensor("cumulative_logprob", "FP32"),
            *_PERF_OUTPUTS,
        ),
    }
)

_NAMES: Final[Mapping[Layout, Mapping[str, str]]] = MappingProxyType(
    {
        "ensemble": {
            "max_tokens": "max_tokens",
            "stop_words": "stop_words",
            "seed": "random_seed",
            "temperature": "temperature",
            "min_tokens": "min_length",
            "perf": "return_perf_metrics",
            "without_input": "exclude_input_in_output",
            "stream": "stream",
        },
        "llmapi": {
            "max_tokens": "sampling_param_max_tokens",
            "stop_words": "sampling_param_stop",
            "seed": "sampling_param_seed",
            "temperature": "sampling_param_temperature",
            "min_tokens": "",
            "perf": "sampling_param_return_perf_metrics",
            "without_input": "sampling_param_exclude_input_from_output",
            "stream": "streaming",
        },
    }
)
"""What each layout calls the same thing."""


class Invalid(Exception):
    """A body that the server or the model refuses with 400; the text is the error."""


class GenerateRequest(Struct, frozen=True, kw_only=True):
    """One request to a text model, both layouts alike. Lengths in tokens."""

    text: str
    max_tokens: int | None
    stop_words: tuple[str, ...]
    seed: int | None
    temperature: float
    min_tokens: int
    streaming: bool
    """Whether the model is to answer piece by piece."""
    cancels: bool
    """`stop: true`: not a prompt but the order to cancel the request with the same id."""
    perf: bool
    without_input: bool | None
    """Whether the prompt is left out of the text; None: not said."""
    finish_reason: bool
    stop_reason: bool
    request_id: str


def decode(body: bytes, model: str, layout: Layout) -> GenerateRequest:
    """One request; raises `Invalid`."""
    try:
        fields = msgspec.json.decode(body) if body else {}
    except msgspec.DecodeError as broken:
        raise Invalid(f"failed to parse the request JSON buffer: {broken}") from broken
    if not isinstance(fields, dict):
        raise Invalid("failed to parse the request JSON buffer: expected an object")
    tensors = {tensor.name: tensor for tensor in INPUTS[layout]}
    values: dict[str, tuple[Scalar, ...]] = {}
    _collect(fields, tensors, values)
    missing = [one.name for one in INPUTS[layout] if not one.optional and one.name not in values]
    if missing and not (_flag(values, "stop") and "text_input" in values):
        raise Invalid(missing_inputs(model, sorted(values), missing))
    request_id = fields.get("id", "")
    if not isinstance(request_id, str):
        raise Invalid("Unable to parse 'id': attempt to access JSON non-string as string")
    return _request(values, layout, request_id)


def _collect(
    fields: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    into: dict[str, tuple[Scalar, ...]],
) -> None:
    """The nested object `parameters` is searched too."""
    for name, value in fields.items():
        if name == "parameters":
            if not isinstance(value, dict):
                raise Invalid("Expected JSON object for keyword: 'parameters'")
            _collect(value, tensors, into)
        elif name in tensors:
            into[name] = _tensor(tensors[name], value)
        elif not isinstance(value, str | int | float):
            raise Invalid(invalid_parameter(name))


_TYPES: Final[Mapping[str, tuple[type, ...]]] = MappingProxyType(
    {
        "BYTES": (str,),
        "BOOL": (bool,),
        "FP32": (int, float),
        "INT32": (int,),
        "INT64": (int,),
        "UINT64": (int,),
    }
)


def _tensor(tensor: Tensor, value: Any) -> tuple[Scalar, ...]:
    elements = tuple(value) if isinstance(value, list) else (value,)
    for element in elements:
        is_flag = isinstance(element, bool)
        if not isinstance(element, _TYPES[tensor.datatype]) or is_flag != (tensor.datatype == "BOOL"):
            raise Invalid(f"Unable to parse '{tensor.name}': expected data of type {tensor.datatype}")
    if len(elements) != 1 and not tensor.is_list:
        raise Invalid(f"Expected a scalar tensor for tensor {tensor.name}")
    return elements


def _first(values: Values, name: str, default: Any) -> Any:
    return values[name][0] if values.get(name) else default


def _flag(values: Values, name: str) -> bool:
    return bool(values[name][0]) if values.get(name) else False


def _request(values: Values, layout: Layout, request_id: str) -> GenerateRequest:
    names = _NAMES[layout]
    seed = _first(values, names["seed"], _first(values, "seed", None))
    return GenerateRequest(
        text=_first(values, "text_input", ""),
        max_tokens=_first(values, names["max_tokens"], None),
        stop_words=tuple(str(word) for word in values.get(names["stop_words"], ())),
        seed=seed,
        temperature=float(_first(values, names["temperature"], 1.0)),
        min_tokens=_first(values, names["min_tokens"], 0),
        streaming=_flag(values, names["stream"]),
        cancels=_flag(values, "stop"),
        perf=_flag(values, names["perf"]),
        without_input=_first(values, names["without_input"], None),
        finish_reason=_flag(values, "return_finish_reason"),
        stop_reason=_flag(values, "return_stop_reason"),
        request_id=request_id,
    )
