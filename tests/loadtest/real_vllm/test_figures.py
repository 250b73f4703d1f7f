"""From metrics texts to figures."""

import pytest

from loadtest.real_vllm.client import Seen
from loadtest.real_vllm.endless import EndlessCache
from loadtest.real_vllm.figures import Counters, Forecast, counters_from, figures_of, forecast_from

VLLM = b"""# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 9250.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7958253516679628e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 4544.0
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 7.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} 1.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} 10.0
"""
TURNOUT = b"""turnout_config_generation 1.0
turnout_prefix_predicted_tokens_total{model="m",version="v1"} 1200.5
turnout_prefix_reported_tokens_total{model="m",version="v1"} 1216.0
"""


def test_counters_are_sums_of_the_right_families() -> None:
    """Every way to finish counts as answered; look-alikes and creation times do not count; absent is 0."""
    assert counters_from(VLLM) == Counters(queried=9250, hit=4544, answered=11, preempted=0)
    with pytest.raises(ValueError, match="not the metrics of vLLM"):
        counters_from(TURNOUT)


def test_growth_is_the_difference() -> None:
    """Member by member."""
    assert Counters(10, 8, 6, 4).since(Counters(1, 2, 3, 4)) == Counters(9, 6, 3, 0)
    assert Forecast(10, 8).since(Forecast(1, 2)) == Forecast(9, 6)


def test_a_policy_without_mirrors_forecasts_nothing() -> None:
    """None, and not 0 of 0."""
    assert forecast_from(TURNOUT) == Forecast(1200.5, 1216)
    assert forecast_from(b"turnout_config_generation 1.0\n") is None


def test_figures_add_up_over_the_replicas() -> None:
    """300 of 1,000 tokens found, although the replicas' own shares are 0.1 and 0.5."""
    seen = Seen(EndlessCache(16), first_tokens_s=[0.5, 0.1, 0.3, 0.2], seconds=2.5)
    seen.errors["status 503"] = 1
    grown = [Counters(500, 50, 3, 1), Counters(500, 250, 1, 2)]
    figures = figures_of(grown, seen, Forecast(1, 2))
    assert figures.hit_share == 0.3
    assert (figures.first_token_p50_s, figures.first_token_p90_s) == (0.2, 0.5)
    assert (figures.requests, figures.preempted) == ([3, 1], 3)
    assert (figures.errors, figures.seconds, figures.forecast) == ({"status 503": 1}, 2.5, Forecast(1, 2))


def test_a_run_without_answers_has_figures_too() -> None:
    """No share of nothing, no quantile of nothing."""
    figures = figures_of([Counters(0, 0, 0, 0)], Seen(EndlessCache(16)), None)
    assert (figures.hit_share, figures.first_token_p50_s, figures.first_token_p90_s) == (0, None, None)
