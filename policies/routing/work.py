"""One request on one replica, as its ledger keeps it."""

from typing import Final

_EXPIRY_FACTOR: Final = 5.0
_EXPIRY_S: Final = 60.0


class Work:
    """`at` and `first_at` are seconds, `prefill_s` is as predicted when it was sent."""

    __slots__ = (
        "at",
        "busy_at_first",
        "first_at",
        "hit_tokens",
        "prefill_s",
        "prefilled_at_first",
        "ready_at",
        "seems_cold",
        "tokens",
        "uncached",
    )

    def __init__(self, at: float, tokens: float, hit_tokens: float, prefill_s: float) -> None:
        self.at = at
        self.tokens = tokens
        self.hit_tokens = hit_tokens
        self.uncached = max(1.0, tokens - hit_tokens)
        self.prefill_s = prefill_s
        self.ready_at: float | None = None
        """When its prefill is taken to be over, for answers that come whole and never show a first token."""
        self.seems_cold: bool | None = None
        """It took as long as if nothing of it had been cached; None: its time does not say."""
        self.first_at: float | None = None
        self.busy_at_first = 0.0
        self.prefilled_at_first = 0.0

    def is_over(self, now: float) -> bool:
        """Its prefill must have ended by now; or nobody will say any more what became of it."""
        if self.ready_at is not None and self.ready_at <= now:
            return True
        return now > self.expires_at and self.ready_at is None

    @property
    def expires_at(self) -> float:
        """When nobody is believed to say any more what became of it."""
        return self.at + _EXPIRY_FACTOR * self.prefill_s + _EXPIRY_S
