"""What one metric of a release says, for people and for the record."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Evidence:
    """It speaks against the canary from `log_e` >= `threshold` on, both natural logarithms.

    `canary_value` and `stable_value` are what was compared: shares of requests, median seconds or tokens,
    over `canary_n` and `stable_n`; None where nothing was measured. Where values are compared among like
    ones, the canary's is stable's median times the median ratio.
    """

    metric: str
    log_e: float
    threshold: float
    canary_n: int
    stable_n: int
    canary_value: float | None
    stable_value: float | None
