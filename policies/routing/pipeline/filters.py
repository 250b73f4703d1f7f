"""Filters: which of the replicas may be scored. Each returns positions, and never none."""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from policies.routing.pipeline.memory import Memory
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.pipeline.situation import Situation

Filter = Callable[[Situation, Random | None], Sequence[int]]
"""Chance is absent where nothing is chosen: what a filter does most of the time is asked for."""


def _prefix_affinity(options: PipelineOptions, memory: Memory) -> Filter:
    """Only who has most of the prompt, as long as that costs no more than `max_ttft_penalty_s`."""

    def seconds(situation: Situation, position: int) -> float:
        return memory.pending.total(situation.replicas[position].id) / options.peak_prefill_tokens_per_s

    def keep(situation: Situation, random: Random | None) -> Sequence[int]:
        everyone = range(len(situation.replicas))
        if options.affinity_threshold <= 0.0 or _explores(options, random):
            return everyone
        shares = situation.matched_shares()
        sticky = [position for position in everyone if shares[position] >= options.affinity_threshold]
        others = [position for position in everyone if shares[position] < options.affinity_threshold]
        if not sticky:
            return everyone
        if options.max_ttft_penalty_s > 0.0 and others:
            first = min(seconds(situation, position) for position in sticky)
            elsewhere = min(seconds(situation, position) for position in others)
            if first - elsewhere > options.max_ttft_penalty_s:
                return everyone
        return sticky

    return keep


def _explores(options: PipelineOptions, random: Random | None) -> bool:
    return random is not None and random.random() < options.exploration_probability


def _utilisation(options: PipelineOptions, _memory: Memory) -> Filter:
    """Only who has little waiting and room in its KV cache, if anyone; defaults as GIE detects saturation."""

    def keep(situation: Situation, _random: Random | None) -> Sequence[int]:
        everyone = range(len(situation.replicas))
        waiting, usage = situation.waiting(), situation.kv_usage()
        free = [
            position
            for position in everyone
            if waiting[position] <= options.max_waiting_requests
            and usage[position] <= options.max_kv_utilisation
        ]
        return free or everyone

    return keep


FILTERS: Final[Mapping[str, Callable[[PipelineOptions, Memory], Filter]]] = MappingProxyType(
    {"prefix_affinity": _prefix_affinity, "utilisation": _utilisation}
)
