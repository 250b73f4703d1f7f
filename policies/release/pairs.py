"""Two versions' answers to one request, compared; and what many such pairs say together, in bounded memory.

Each pair is its own comparison: the same prompt, so that what differs is the version (and, where answers are
sampled, chance). Times are those of the replicas, without what the router adds.
"""

import enum
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from policies.release.log_histogram import LogHistogram

MAX_EXAMPLES: Final = 20


class Difference(enum.Enum):
    """In what two answers may differ that should be alike."""

    STATUS = "status"
    FINISH_REASON = "finish_reason"
    PROMPT_TOKENS = "prompt_tokens"
    """The same text is another number of tokens: another tokenizer, or another chat template."""
    OUTPUT_TOKENS = "output_tokens"
    """Of greedy requests only; others differ by chance."""
    TEXT = "text"
    """Of greedy requests only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One version's answer. Times are seconds after the request was sent; None is what nobody knows."""

    status: int
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    time_to_first_token_s: float | None = None
    """Of streams."""
    inter_token_s: float | None = None
    """Of streams: the mean time between two tokens."""
    answer_s: float | None = None
    """Of answers that come whole."""


class Agreement(NamedTuple):
    """Of two greedy texts: how many characters they have in common from the beginning, of how many."""

    common: int
    compared: int

    @property
    def equal(self) -> bool:
        return self.common == self.compared

    @property
    def share(self) -> float:
        return self.common / self.compared if self.compared else 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """One request. `at` is wall clock, seconds. `texts` is None where chance may make them differ."""

    request_id: str
    at: float
    served: Answered
    copy: Answered
    texts: Agreement | None = None


class Example(NamedTuple):
    """One pair that differs, and in what; nothing of what anybody said."""

    request_id: str
    at: float
    differences: tuple[str, ...]
    detail: str


def agreement(served: str, copy: str, *, cut: bool = False) -> Agreement:
    """`cut`: only the beginning of one of them is known, so that its end is no difference."""
    shorter, longer = sorted((len(served), len(copy)))
    # The first length from which on the beginnings differ; each look is one comparison in C.
    common = bisect_left(range(shorter), 1, key=lambda at: served[: at + 1] != copy[: at + 1])
    return Agreement(common, shorter if cut else longer)


def judged(pair: Pair) -> Iterator[tuple[Difference, bool]]:
    """In what these two can be compared, and whether they differ in it."""
    served, copy = pair.served, pair.copy
    yield Difference.STATUS, served.status != copy.status
    if served.status != 200 or copy.status != 200:
        return
    for difference, left, right in (
        (Difference.FINISH_REASON, served.finish_reason, copy.finish_reason),
        (Difference.PROMPT_TOKENS, served.prompt_tokens, copy.prompt_tokens),
    ):
        if left is not None and right is not None:
            yield difference, left != right
    if pair.texts is not None:
        yield Difference.TEXT, not pair.texts.equal
        if served.output_tokens is not None and copy.output_tokens is not None:
            yield Difference.OUTPUT_TOKENS, served.output_tokens != copy.output_tokens


def example_of(pair: Pair, differences: tuple[Difference, ...]) -> Example:
    """What to show of a pair that differs."""
    words = tuple(difference.value for difference in differences)
    told = (_told(pair, difference) for difference in differences)
    return Example(pair.request_id, pair.at, words, "; ".join(told))


def _told(pair: Pair, difference: Difference) -> str:
    if difference is Difference.TEXT:
        assert pair.texts is not None
        return f"text after {pair.texts.common} of {pair.texts.compared} characters"
    name = difference.value
    return f"{name} {getattr(pair.served, name)}, {getattr(pair.copy, name)} by the copy"


@dataclass(slots=True)
class Measure:
    """One figure of both versions, and the copy's as a ratio to the one that was served, pair by pair."""

    served: LogHistogram = field(default_factory=LogHistogram)
    copy: LogHistogram = field(default_factory=LogHistogram)
    ratio: LogHistogram = field(default_factory=LogHistogram)

    def add(self, served: float | None, copy: float | None) -> None:
        if served and copy:
            self.served.add(served)
            self.copy.add(copy)
            self.ratio.add(copy / served)

    def merge(self, other: "Measure") -> None:
        self.served.merge(other.served)
        self.copy.merge(other.copy)
        self.ratio.merge(other.ratio)


MEASURES: Final = ("time_to_first_token_s", "inter_token_s", "answer_s", "output_tokens")


def _measures() -> dict[str, Measure]:
    return {name: Measure() for name in MEASURES}


@dataclass(slots=True)
class Summary:
    """What all pairs so far say. Of two processes it is what both have seen."""

    pairs: int = 0
    judged: dict[str, int] = field(default_factory=dict)
    """By the word of a `Difference`: pairs that could differ in it."""
    differing: dict[str, int] = field(default_factory=dict)
    """By the same: pairs that did."""
    agreed: float = 0.0
    """Sum of the shares of greedy texts up to where they part."""
    measures: dict[str, Measure] = field(default_factory=_measures)
    examples: list[Example] = field(default_factory=list)
    """Pairs that differ, the oldest first."""

    def add(self, pair: Pair) -> None:
        self.pairs += 1
        differing = []
        for difference, differs in judged(pair):
            _count(self.judged, difference.value, 1)
            if differs:
                _count(self.differing, difference.value, 1)
                differing.append(difference)
        if pair.texts is not None:
            self.agreed += pair.texts.share
        if pair.served.status == pair.copy.status == 200:
            for name, measure in self.measures.items():
                measure.add(getattr(pair.served, name), getattr(pair.copy, name))
        if differing:
            self._keep([example_of(pair, tuple(differing))])

    def merge(self, other: "Summary") -> None:
        self.pairs += other.pairs
        self.agreed += other.agreed
        for mine, theirs in ((self.judged, other.judged), (self.differing, other.differing)):
            for word, count in theirs.items():
                _count(mine, word, count)
        for name, measure in self.measures.items():
            measure.merge(other.measures[name])
        self._keep(other.examples)

    def _keep(self, examples: list[Example]) -> None:
        """The last of all."""
        self.examples = sorted([*self.examples, *examples], key=_at)[-MAX_EXAMPLES:]


def _at(example: Example) -> float:
    return example.at


def _count(counts: dict[str, int], word: str, times: int) -> None:
    counts[word] = counts.get(word, 0) + times
