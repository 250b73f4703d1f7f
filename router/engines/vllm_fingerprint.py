"""What vLLM says it is: `/v1/models` and `/version` always, `/server_info` in its developer mode.

The KV cache's type is a label of its metrics.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from router.engines.fingerprint import (
    Fingerprint,
    Question,
    Subject,
    cards_of,
    count_of,
    dtype_of,
    members_of,
    names_of,
    quantization_of,
    text_of,
    version_in,
)
from router.engines.prometheus_text import Families

_SETTING: Final = r"\b{}=(?:'([^']*)'|([^,\s)]+))"
"""One of `str(VllmConfig)`: `model='org/m', dtype=torch.bfloat16, …` (vllm/config/vllm.py)."""


_CACHE: Final = Families("vLLM", prefixes=["vllm:"], names=["vllm:cache_config_info"])


def vllm_questions(subject: Subject) -> tuple[Question, ...]:
    def models(content: bytes) -> Fingerprint:
        return _models(subject, cards_of(content))

    return (
        Question("/v1/models", frozenset({"names", "model", "max_model_len"}), models),
        Question("/version", frozenset({"engine_version"}), version_in),
        Question(
            "/server_info", frozenset({"dtype", "quantization", "tensor_parallel", "revision"}), _server
        ),
        Question("/metrics", frozenset({"kv_cache_dtype"}), _metrics),
    )


def _models(subject: Subject, cards: list[Mapping[str, Any]]) -> Fingerprint:
    """An adapter's card names its files as root; the model and its length are on the card of its parent."""
    by_name = {card.get("id"): card for card in cards}
    card = by_name.get(subject.name, {})
    model = by_name.get(card.get("parent"), card) if subject.is_adapter else card
    return Fingerprint(
        names=names_of(cards),
        model=text_of(model.get("root")),
        max_model_len=count_of(model.get("max_model_len")),
    )


def _server(content: bytes) -> Fingerprint:
    """The configuration as one text."""
    config = members_of(content).get("vllm_config")
    if not isinstance(config, str):
        raise ValueError("there is no vllm_config in it")
    parallel = _setting(config, "tensor_parallel_size")
    revision = _setting(config, "revision")
    return Fingerprint(
        dtype=dtype_of(_setting(config, "dtype")),
        quantization=quantization_of(_setting(config, "quantization")),
        tensor_parallel=int(parallel) if parallel is not None and parallel.isdecimal() else None,
        revision=None if revision == "None" else revision,
    )


def _setting(config: str, name: str) -> str | None:
    found = re.search(_SETTING.format(name), config)
    return None if found is None else found[1] or found[2]


def _metrics(content: bytes) -> Fingerprint:
    labels = _CACHE.read(content).labels("vllm:cache_config_info")
    said = {label["cache_dtype"] for label in labels if label.get("cache_dtype")}
    return Fingerprint(kv_cache_dtype=dtype_of(said.pop()) if len(said) == 1 else None)
