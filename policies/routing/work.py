"""One request on one replica, as its ledger keeps it; and prefills whose time is taken together."""

from typing import Final

_EXPIRY_FACTOR: Final = 5.0
_EXPIRY_S: Final = 60.0
_SAME_STEP_S: Final = 0.0005
_MOST_TOGETHER: Final = 8


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


class Sample:
    """Prefills that were on one replica together, from the beginning of the first to the end of the last."""

    __slots__ = ("_began", "at", "steps", "works")

    def __init__(self, began: float, work: Work, at: float) -> None:
        self._began = began
        self.at = at
        """The last first token."""
        self.works = [work]
        self.steps = 1
        """Engine steps that it took, at most."""

    def add(self, work: Work, at: float) -> None:
        self.steps += at - self.at >= _SAME_STEP_S
        self.works.append(work)
        self.at = at

    def is_full(self, at: float) -> bool:
        """Enough are together, and a first token at `at` was not in the step of the last one."""
        count = len(self.works)
        return count >= _MOST_TOGETHER and at - self.at > 0.5 * self.took_s / count

    @property
    def took_s(self) -> float:
        return self.at - self._began

    def amount(self) -> tuple[float, float]:
        """Tokens that were computed, and pairs of tokens that attention looked at; see `PrefillModel`."""
        computed = [work.tokens if work.seems_cold else work.uncached for work in self.works]
        pairs = [one * (work.tokens - one / 2) for one, work in zip(computed, self.works, strict=True)]
        return sum(computed), sum(pairs)
