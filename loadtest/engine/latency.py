"""What one engine step costs. Pure: parameters in, seconds out."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, sqrt
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True)
class StepLoad:
    """The work of one step."""

    prefill_tokens: int
    attention_pairs: int
    """Sum over the prefilled tokens of how many each attends to: itself and all before it."""
    decodes: int
    context_tokens: int
    """Sum of the decoding sequences' lengths."""
    loaded_tokens: int = 0
    """Prompt tokens whose keys and values are copied in from host memory."""


@dataclass(frozen=True, slots=True)
class LatencyModel:
    """step = base + prefill x a + pairs x q + decodes x c + context x d + loaded x a x `load_ratio`.

    Rooflines of 2 FLOP per parameter and token at half of peak, and weights plus KV reads over three
    quarters of the memory bandwidth. The defaults are Llama-3-8B on one H100: 32,000 prompt tokens/s, about
    150 tokens/s alone.
    """

    base_s: float = 6.2e-3
    prefill_token_s: float = 1 / 32_000
    attention_pair_s: float = 1.1e-9
    decode_s: float = 4e-5
    context_token_s: float = 5.2e-8
    load_ratio: float = 0.045
    """What copying a token in from host memory costs, in shares of computing it."""

    def step_s(self, load: StepLoad) -> float:
        """Seconds that a step with this load takes."""
        return (
            self.base_s
            + load.prefill_tokens * self.prefill_token_s
            + load.attention_pairs * self.attention_pair_s
            + load.decodes * self.decode_s
            + load.context_tokens * self.context_token_s
            + load.loaded_tokens * self.prefill_token_s * self.load_ratio
        )

    def run_s(self, load: StepLoad, steps: int) -> float:
        """Seconds of `steps` decode steps in a row, `load` the first: every context grows by one a step."""
        growth_s = load.decodes * self.context_token_s
        return steps * self.step_s(load) + growth_s * (steps * (steps - 1) / 2)

    def steps_in(self, load: StepLoad, seconds: float) -> int:
        """Inverse of `run_s`: the least number of such steps that takes at least `seconds`, 1 or more."""
        growth_s = load.decodes * self.context_token_s
        linear_s = self.step_s(load) - growth_s / 2
        root = (sqrt(linear_s * linear_s + 2 * growth_s * max(seconds, 0.0)) + linear_s) / 2
        steps = max(1, ceil(max(seconds, 0.0) / root))
        while steps > 1 and self.run_s(load, steps - 1) >= seconds:
            steps -= 1
        while self.run_s(load, steps) < seconds:
            steps += 1
        return steps


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
