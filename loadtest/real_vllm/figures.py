"""What one run measured: the replicas' own counters before and after it, and what the clients saw."""

from collections.abc import Sequence

import msgspec

from loadtest.bench.figures import quantile
from loadtest.real_vllm.client import Seen
from router.engines.prometheus_text import Families

_QUERIES, _HITS = "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"
_ANSWERED, _PREEMPTED = "vllm:request_success_total", "vllm:num_preemptions_total"
_VLLM = Families("vLLM", ["vllm:"], [_QUERIES, _HITS, _ANSWERED, _PREEMPTED])

_PREDICTED, _REPORTED = "turnout_prefix_predicted_tokens_total", "turnout_prefix_reported_tokens_total"
_TURNOUT = Families("turnout", ["turnout_"], [_PREDICTED, _REPORTED])


class Counters(msgspec.Struct, frozen=True):
    """One replica's since its start; tokens and requests."""

    queried: float
    hit: float
    answered: float
    preempted: float

    def since(self, before: "Counters") -> "Counters":
        return Counters(
            self.queried - before.queried,
            self.hit - before.hit,
            self.answered - before.answered,
            self.preempted - before.preempted,
        )


class Forecast(msgspec.Struct, frozen=True):
    """Cached tokens: what the router expected, and what the engines then reported of these answers."""

    predicted: float
    reported: float

    def since(self, before: "Forecast") -> "Forecast":
        return Forecast(self.predicted - before.predicted, self.reported - before.reported)


def counters_from(metrics: bytes) -> Counters:
    """vLLM's `/metrics`; a counter that is not there yet is 0. Raises ValueError for another's."""
    said = _VLLM.read(metrics)
    return Counters(*(said.total(name) or 0.0 for name in (_QUERIES, _HITS, _ANSWERED, _PREEMPTED)))


def forecast_from(metrics: bytes) -> Forecast | None:
    """Turnout's `/metrics`; None where its policy forecasts nothing. Raises ValueError for another's."""
    said = _TURNOUT.read(metrics)
    predicted, reported = said.total(_PREDICTED), said.total(_REPORTED)
    return None if predicted is None or reported is None else Forecast(predicted, reported)


class RunFigures(msgspec.Struct, frozen=True):
    """One candidate under one workload in one round, without its warm-up."""

    seconds: float
    hit_share: float
    """Of the prompt tokens, by the replicas' counters."""
    endless_share: float
    """What one cache that forgets nothing would have found of the same prompts."""
    first_token_p50_s: float | None
    first_token_p90_s: float | None
    requests: list[int]
    """A replica each."""
    preempted: int
    forecast: Forecast | None
    errors: dict[str, int]


def figures_of(grown: Sequence[Counters], seen: Seen, forecast: Forecast | None) -> RunFigures:
    """`grown`: by how much each replica's counters did."""
    queried = sum(each.queried for each in grown)
    return RunFigures(
        seconds=seen.seconds,
        hit_share=sum(each.hit for each in grown) / queried if queried else 0.0,
        endless_share=seen.endless.hit_share,
        first_token_p50_s=quantile(seen.first_tokens_s, 0.5),
        first_token_p90_s=quantile(seen.first_tokens_s, 0.9),
        requests=[round(each.answered) for each in grown],
        preempted=round(sum(each.preempted for each in grown)),
        forecast=forecast,
        errors=dict(seen.errors),
    )
