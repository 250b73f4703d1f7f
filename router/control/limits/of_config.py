"""The limits of a configuration, as policies know them."""

from policies.limits.gcra import Rate
from policies.limits.rules import Limit, Rules
from router.config.access import LimitConfig
from router.config.model import Config


def rules_of(config: Config) -> Rules:
    return Rules(_limit(limit) for limit in config.limits)


def _limit(config: LimitConfig) -> Limit:
    return Limit(
        name=config.name,
        per=config.per,
        match=config.match,
        requests=_rate(config.requests_per_minute, config.burst_s),
        tokens=_rate(config.tokens_per_minute, config.burst_s),
        concurrency=config.concurrency,
        output_reserve=config.output_reserve,
        cached_weight=config.cached_weight,
        stops=config.stream_overrun == "stop",
    )


def _rate(per_minute: float | None, burst_s: float) -> Rate | None:
    return None if per_minute is None else Rate(per_minute, burst_s)
