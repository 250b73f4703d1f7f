"""The workloads of the comparison, as data.

A closed loop: each keep-alive connection sends its next request when its answer is complete.
"""

from dataclasses import dataclass
from typing import Literal

Prompt = Literal["same", "shared", "unique", "multi_turn"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One row of the table. `prompt_bytes` is the text of all messages together, without its JSON."""

    name: str
    what: str
    connections: int
    prompt: Prompt
    prompt_bytes: int
    output_tokens: int = 0
    """0: one JSON answer. More: a stream of so many content chunks."""
    token_interval_ms: int = 0
    """0: as fast as the socket takes it, one write per token all the same."""
    warmup_s: float = 0.6
    window_s: float = 2.0
    ramp_s: float = 0.0
    """The connections open evenly over this time, so that streams do not run in step."""

    @property
    def streams(self) -> bool:
        return self.output_tokens > 0


WORKLOADS = (
    Workload("W1", "200 B prompt, JSON answer", 32, "same", 200),
    Workload("W2s", "8 KB prompt, shared system prompt, unique tail", 32, "shared", 8192),
    Workload("W2u", "8 KB prompt, unique from its first byte", 32, "unique", 8192),
    Workload("W3", "32 KB multi-turn, 200 tokens, no delay", 16, "multi_turn", 32768, output_tokens=200),
    Workload(
        "W4",
        "256 streams, 200 tokens at 10 ms, 8 KB shared prompt",
        256,
        "shared",
        8192,
        output_tokens=200,
        token_interval_ms=10,
        warmup_s=2.5,
        window_s=3.0,
        ramp_s=2.0,
    ),
    Workload("W5", "128 KB multi-turn, 20 tokens, no delay", 16, "multi_turn", 131072, output_tokens=20),
)


def workloads_named(names: str) -> tuple[Workload, ...]:
    """The workloads in a comma-separated list, in the table's order; `W2` means W2s and W2u.

    Raises ValueError for a name that is none of them.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {workload.name for workload in WORKLOADS} | {"W2"}
    if unknown := [name for name in wanted if name not in known]:
        raise ValueError(f"unknown workload {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return tuple(w for w in WORKLOADS if w.name in wanted or (w.name[:2] == "W2" and "W2" in wanted))
