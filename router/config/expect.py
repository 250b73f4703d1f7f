"""The options of `expect`: what a replica of a version must be before it gets traffic."""

from collections.abc import Iterator
from typing import Final

from router.config import checks
from router.config.option import option, section
from router.config.places import artefact_directory


@section
class ExpectConfig:
    """`expect`: what a replica, or the files it was started from, must say before it gets traffic."""

    artefact: str | None = option(
        "Directory the replicas load from: a model or a TensorRT-LLM engine; read for all they do not say.",
        checks.not_empty,
        default=None,
        example="/models/llama-8b",
        convert=artefact_directory,
    )
    model: str | None = option(
        "The model as the engine was told it: vLLM's root, TGI's model_id; '*' stands for any text.",
        checks.not_empty,
        default=None,
        example="meta-llama/Llama-3.1-8B-*",
    )
    revision: str | None = option(
        "Commit of the model: TGI says it, and a directory that was downloaded from a hub.",
        checks.not_empty,
        default=None,
        example="0e9e39f249a16976918f6564b8830bc894c89659",
    )
    engine_version: str | None = option(
        "Version of the engine; '*' stands for any text.", checks.not_empty, default=None, example="0.33.*"
    )
    dtype: str | None = option(
        "Data type of the weights; '*' stands for any text.",
        checks.not_empty,
        default=None,
        example="bfloat16",
    )
    quantization: str | None = option(
        "How the weights are quantized, 'none' if they are not; '*' stands for any text.",
        checks.not_empty,
        default=None,
        example="fp8",
    )
    kv_cache_dtype: str | None = option(
        "Data type of the KV cache; 'auto' if it is that of the model.",
        checks.not_empty,
        default=None,
        example="auto",
    )
    tensor_parallel: int | None = option(
        "GPUs over which each layer is split.", checks.at_least(1), default=None, example=1
    )
    max_model_len: int | None = option(
        "Most tokens of prompt and answer together.", checks.at_least(1), default=None, example=8192
    )
    vocab_size: int | None = option(
        "Tokens in the vocabulary, as the artefact's config.json has it.",
        checks.at_least(1),
        default=None,
        example=128256,
    )
    config_sha256: str | None = option(
        "Digest of the artefact's config.json.", checks.sha256, default=None, example="0" * 64
    )
    tokenizer_sha256: str | None = option(
        "Digest of the artefact's tokenizer.json.", checks.sha256, default=None, example="0" * 64
    )
    chat_template_sha256: str | None = option(
        "Digest of the artefact's chat template, the text alone; `/api/replicas` shows it.",
        checks.sha256,
        default=None,
        example="0" * 64,
    )
    weights_sha256: str | None = option(
        "Digest of names, types and shapes of the artefact's tensors; `/api/replicas` shows it.",
        checks.sha256,
        default=None,
        example="0" * 64,
    )


ARTEFACT_ONLY: Final = (
    "vocab_size",
    "config_sha256",
    "tokenizer_sha256",
    "chat_template_sha256",
    "weights_sha256",
)
"""What no engine says of itself."""


def expect_mistakes(expect: ExpectConfig) -> Iterator[tuple[str, str]]:
    """Options of `expect` that could never be met, and why."""
    if expect.artefact is not None:
        return
    for name in ARTEFACT_ONLY:
        if getattr(expect, name) is not None:
            yield name, 'no engine says it; write the directory of the files too: artefact = "DIRECTORY"'
