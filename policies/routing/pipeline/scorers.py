"""Scorers: how good each replica is in one respect, 0 to 1, in the order of the situation's replicas."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from policies.routing.pipeline.memory import Memory
from policies.routing.pipeline.options import PipelineOptions
from policies.routing.pipeline.situation import Situation
from policies.routing.rendezvous import Rendezvous

Scorer = Callable[[Situation], Sequence[float]]


def _prefix(options: PipelineOptions, _memory: Memory) -> Scorer:
    """The share of the prompt that is cached, and its length squared, as attention's cost grows."""

    def score(situation: Situation) -> Sequence[float]:
        shares = situation.matched_shares()
        weight, scale = options.match_length_weight, options.match_length_scale_tokens
        if weight == 0.0:
            return shares
        lengths = [min(1.0, tokens / scale) ** 2 for tokens in situation.matched_tokens()]
        return [
            weight * length + (1.0 - weight) * share for length, share in zip(lengths, shares, strict=True)
        ]

    return score


def _queue(_options: PipelineOptions, _memory: Memory) -> Scorer:
    """The fewest waiting requests score 1, the most 0."""
    return lambda situation: _between(situation.waiting())


def _running(_options: PipelineOptions, _memory: Memory) -> Scorer:
    """The fewest running requests score 1, the most 0."""
    return lambda situation: _between(situation.running())


def _kv_utilisation(_options: PipelineOptions, _memory: Memory) -> Scorer:
    """What is free of the KV cache."""
    return lambda situation: [1.0 - usage for usage in situation.kv_usage()]


def _active(options: PipelineOptions, _memory: Memory) -> Scorer:
    """What is idle scores 1; of the others the busiest 0, and none more than `max_busy_score`."""

    def score(situation: Situation) -> Sequence[float]:
        active = situation.active()
        most = max(active)
        return [
            1.0 if count <= options.idle_threshold else (most - count) / most * options.max_busy_score
            for count in active
        ]

    return score


def _token_load(options: PipelineOptions, memory: Memory) -> Scorer:
    """1 without tokens to prefill, 0 at `queue_threshold_tokens`."""

    def score(situation: Situation) -> Sequence[float]:
        tokens = [memory.pending.total(replica.id) for replica in situation.replicas]
        return [1.0 - min(1.0, count / options.queue_threshold_tokens) for count in tokens]

    return score


def _load_aware(options: PipelineOptions, _memory: Memory) -> Scorer:
    """0.5 with an empty queue, 0 at `queue_threshold`."""
    return lambda situation: [
        0.5 * (1.0 - min(1.0, waiting / options.queue_threshold)) for waiting in situation.waiting()
    ]


def _no_hit_lru(_options: PipelineOptions, memory: Memory) -> Scorer:
    """A prompt that nobody knows goes to whoever had such a one longest ago; for others all are equal."""

    def score(situation: Situation) -> Sequence[float]:
        count = len(situation.replicas)
        if any(situation.hits) or count == 1:
            return [0.5 if any(situation.hits) else 1.0] * count
        ages = {replica: age for age, replica in enumerate(memory.cold, start=1)}
        order = sorted(range(count), key=lambda position: ages.get(situation.replicas[position].id, 0))
        scores = [0.0] * count
        for rank, position in enumerate(order):
            scores[position] = 1.0 - rank / (count - 1)
        return scores

    return score


def _session(_options: PipelineOptions, _memory: Memory) -> Scorer:
    """1 for the session's home by rendezvous hashing, where llm-d remembers who served it last."""
    rendezvous = Rendezvous()

    def score(situation: Situation) -> Sequence[float]:
        session = situation.request.session
        if session is None:
            return [0.0] * len(situation.replicas)
        ids = [replica.id for replica in situation.replicas]
        draws = rendezvous.scores(session, ids, [replica.weight for replica in situation.replicas])
        home = max(draws)
        return [float(draw == home) for draw in draws]

    return score


def _between(figures: Sequence[float]) -> list[float]:
    """The least figure scores 1, the greatest 0; equal figures all score 1."""
    least, most = min(figures), max(figures)
    return [(most - figure) / (most - least) if most > least else 1.0 for figure in figures]


SCORERS: Final[Mapping[str, Callable[[PipelineOptions, Memory], Scorer]]] = MappingProxyType(
    {
        "prefix": _prefix,
        "queue": _queue,
        "kv_utilisation": _kv_utilisation,
        "running": _running,
        "active": _active,
        "token_load": _token_load,
        "load_aware": _load_aware,
        "no_hit_lru": _no_hit_lru,
        "session": _session,
    }
)
