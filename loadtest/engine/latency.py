"""What one engine step costs. Pure: parameters in, seconds out."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class StepLoad:
    """The work of one step."""

    prefill_tokens: int
    attention_pairs: int
    """Sum over prefill chunks of chunk tokens x context tokens."""
    decodes: int
    context_tokens: int
    """Sum of the decoding sequences' lengths."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """step = base + prefill x a + pairs x q + decodes x c + context x d.

    Rooflines of 2 FLOP per parameter and token at half of peak, and weights plus KV reads over three
    quarters of the memory bandwidth. The defaults are Llama-3-8B on one H100: 32,000 prompt tokens/s, about
    150 tokens/s alone.
    """

    base_s: float = 6.2e-3
    prefill_token_s: float = 1 / 32_000
    attention_pair_s: float = 1.1e-9
    decode_s: float = 4e-5
    context_token_s: float = 5.2e-8

    def step_s(self, load: StepLoad) -> float:
        """Seconds that a step with this load takes."""
        return (
            self.base_s
            + load.prefill_tokens * self.prefill_token_s
            + load.attention_pairs * self.attention_pair_s
            + load.decodes * self.decode_s
            + load.context_tokens * self.context_token_s
        )


PROFILES: Final[Mapping[str, LatencyModel]] = MappingProxyType(
    {
        "8b-h100": LatencyModel(),
        "70b-4xh100": LatencyModel(
            base_s=18e-3,
            prefill_token_s=1 / 14_000,
            attention_pair_s=2.2e-9,
            decode_s=1.2e-4,
            context_token_s=3.3e-8,
        ),
        "8b-a10g": LatencyModel(
            base_s=34e-3,
            prefill_token_s=1 / 4_000,
            attention_pair_s=1e-8,
            decode_s=3e-4,
            context_token_s=3e-7,
        ),
    }
)
"""Latency by model and hardware."""
