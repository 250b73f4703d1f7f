"""The numbers behind the metrics: plain integers and lists, added to once per request.

Nothing here knows prometheus_client: it renders these at a scrape, and a request never meets it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from operator import add

import msgspec
from msgspec import field

from router.observe.events import GAP_BOUNDS_S, Finished

TTFT_BOUNDS_S = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0,
)  # fmt: skip
"""From a cached prefix on an idle GPU to the usual first-token timeout; dense at 50 to 500 ms,
where the targets of chat services lie."""

REQUEST_BOUNDS_S = (
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 300.0, 900.0,
)  # fmt: skip
"""From an embedding to the usual total timeout; an answer of 500 tokens takes 5 to 30 s."""

OVERHEAD_BOUNDS_S = (
    0.00005, 0.0001, 0.00015, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 1.0,
)  # fmt: skip
"""The router's own share: a fifth of a millisecond is usual, a tenth of a second is an incident."""

QUEUE_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Most requests do not wait, and nobody who waits a minute is still there."""

MAX_WORDS = 64
"""Outcomes and reasons are a closed set of codes; the cap keeps a defect from becoming a leak."""

MAX_LIMIT_WORDS = 4096
"""Limits are named in the configuration, and there are a few decisions."""

OTHER = "other"


class Histogram(msgspec.Struct):
    """Counts per bucket, not cumulative, the last one above all bounds; and the sum of what was seen."""

    bounds: tuple[float, ...]
    counts: list[int] = []
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, counts: Sequence[int], total: float) -> None:
        """Add many observations that were counted in the same buckets elsewhere."""
        self.counts = list(map(add, self.counts, counts))
        self.total += total


class Words(msgspec.Struct):
    """How often each word of a small set occurred; of no more than `most` words."""

    counts: dict[str, int] = {}
    most: int = MAX_WORDS

    def count(self, word: str) -> None:
        self.add(word, 1)

    def add(self, word: str, times: int) -> None:
        counts = self.counts
        if word not in counts and len(counts) >= self.most:
            word = OTHER
        counts[word] = counts.get(word, 0) + times


class Series(msgspec.Struct):
    """What is counted for one (model, version, engine). It may go from process to process as it is."""

    outcomes: Words = field(default_factory=Words)
    attempts: Words = field(default_factory=Words)
    limits: Words = field(default_factory=lambda: Words(most=MAX_LIMIT_WORDS))
    """`NAME DECISION`: names of limits have no spaces."""
    time_to_first_token: Histogram = field(default_factory=lambda: Histogram(TTFT_BOUNDS_S))
    gaps: Histogram = field(default_factory=lambda: Histogram(GAP_BOUNDS_S))
    duration: Histogram = field(default_factory=lambda: Histogram(REQUEST_BOUNDS_S))
    overhead: Histogram = field(default_factory=lambda: Histogram(OVERHEAD_BOUNDS_S))
    queue_wait: Histogram = field(default_factory=lambda: Histogram(QUEUE_BOUNDS_S))
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    def count(self, event: Finished) -> None:
        self.outcomes.count(event.outcome)
        for attempt in event.attempts:
            self.attempts.count(attempt.reason)
        for name, decision in event.limits:
            self.limits.count(f"{name} {decision}")
        self.duration.observe(event.duration_s)
        self.overhead.observe(event.overhead_s)
        if event.queue_wait_s:
            self.queue_wait.observe(event.queue_wait_s)
        else:
            self.queue_wait.counts[0] += 1
        if event.time_to_first_token_s is not None:
            self.time_to_first_token.observe(event.time_to_first_token_s)
        if event.gaps:
            self.gaps.merge(event.gaps, event.gap_sum_s)
        usage = event.usage
        if usage is not None:
            self.prompt_tokens += usage.prompt_tokens
            self.cached_tokens += usage.cached_tokens or 0
            self.completion_tokens += usage.completion_tokens

    def merge(self, other: "Series") -> None:
        """Add what another process counted."""
        for name in self.__struct_fields__:
            mine, theirs = getattr(self, name), getattr(other, name)
            match mine:
                case Histogram():
                    mine.merge(theirs.counts, theirs.total)
                case Words():
                    for word, times in theirs.counts.items():
                        mine.add(word, times)
                case _:
                    setattr(self, name, mine + theirs)
