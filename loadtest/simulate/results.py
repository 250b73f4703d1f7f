"""What a run gave: one line a request, and the figures that are made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, nan
from typing import NamedTuple

from loadtest.simulate.workload import Call


class Slo(NamedTuple):
    """What users may expect of a request: its first token, and the mean time of each after that."""

    ttft_s: float = 2.0
    tpot_s: float = 0.05


class Served(NamedTuple):
    """One request, from arrival to its end. Seconds of virtual time."""

    call: Call
    at: float
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    replica: str
    worker: int
    attempts: int
    dispatched_at: float
    """Of the last attempt."""
    first_token_at: float | None
    ended_at: float
    ok: bool
    """Whether the answer came whole."""

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_token_at is None else self.first_token_at - self.at

    @property
    def tpot_s(self) -> float | None:
        """None where there is no token after the first."""
        if self.first_token_at is None or self.completion_tokens < 2:
            return None
        return (self.ended_at - self.first_token_at) / (self.completion_tokens - 1)

    def meets(self, slo: Slo) -> bool:
        ttft, tpot = self.ttft_s, self.tpot_s
        return self.ok and ttft is not None and ttft <= slo.ttft_s and (tpot or 0.0) <= slo.tpot_s


@dataclass(frozen=True, slots=True)
class Summary:
    """Shares are 0 to 1; nan where there was nothing to measure."""

    requests: int
    hit: float
    """Prompt tokens that the caches had, of all."""
    ttft_mean_s: float
    ttft_p50_s: float
    ttft_p90_s: float
    ttft_p99_s: float
    tpot_mean_s: float
    tpot_p50_s: float
    tpot_p99_s: float
    end_to_end_p99_s: float
    goodput: float
    """Requests inside the SLO."""
    busiest: float
    """Prompt and output tokens of the replica that had most, in shares of the mean."""
    failed: int


WARM_UP = 0.15


def measured(served: Sequence[Served], warm_up: float = WARM_UP) -> Sequence[Served]:
    """Without the first share of requests, in order of arrival."""
    ordered = sorted(served, key=lambda one: one.at)
    return ordered[int(len(ordered) * warm_up) :]


def summary_of(served: Sequence[Served], slo: Slo, replicas: int) -> Summary:
    """Of these requests, none left out; see `measured` for those after the warm-up."""
    ttft = sorted(one.ttft_s for one in served if one.ttft_s is not None)
    tpot = sorted(one.tpot_s for one in served if one.tpot_s is not None)
    whole = sorted(one.ended_at - one.at for one in served if one.ok)
    prompt_tokens = sum(one.prompt_tokens for one in served)
    return Summary(
        requests=len(served),
        hit=sum(one.cached_tokens for one in served) / prompt_tokens if prompt_tokens else nan,
        ttft_mean_s=_mean(ttft),
        ttft_p50_s=quantile(ttft, 0.5),
        ttft_p90_s=quantile(ttft, 0.9),
        ttft_p99_s=quantile(ttft, 0.99),
        tpot_mean_s=_mean(tpot),
        tpot_p50_s=quantile(tpot, 0.5),
        tpot_p99_s=quantile(tpot, 0.99),
        end_to_end_p99_s=quantile(whole, 0.99),
        goodput=sum(one.meets(slo) for one in served) / len(served) if served else nan,
        busiest=_busiest(served, replicas),
        failed=sum(not one.ok for one in served),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Nearest rank; nan of nothing."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else nan


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else nan


def _busiest(served: Sequence[Served], replicas: int) -> float:
    tokens: dict[str, int] = {}
    for one in served:
        tokens[one.replica] = tokens.get(one.replica, 0) + one.prompt_tokens + one.completion_tokens
    return max(tokens.values()) * replicas / sum(tokens.values()) if tokens else nan
