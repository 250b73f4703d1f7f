"""Whether a simulated and a driven run of one scenario agree, and in what not."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loadtest.drive.run import Driven
from loadtest.simulate.contender import Result
from loadtest.simulate.results import measured

HIT_POINTS: Final = 2.0
TTFT_SHARE: Final = 0.15


class Word(StrEnum):
    """What may be said of a pair of runs."""

    AGREE = "agree"
    DISAGREE = "disagree"
    FELL_BEHIND = "fell behind"
    """This machine did not keep real time: the driven run says nothing."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Driven against simulated."""

    hit_points: float
    """Percentage points that the driven hit rate is higher."""
    ttft_p50_ratio: float
    ttft_p90_ratio: float
    loads: Mapping[str, tuple[float, float]]
    """Each replica's share of all prompt and output tokens: simulated, driven."""
    word: Word


def agreement_of(simulated: Result, driven: Driven, step_s: float) -> Agreement:
    """`step_s`: the shortest step of the engines. Both without their warm-up."""
    one, other = simulated.summary, driven.result.summary
    hit_points = 100 * (other.hit - one.hit)
    p50_ratio = other.ttft_p50_s / one.ttft_p50_s
    agree = abs(hit_points) <= HIT_POINTS and abs(p50_ratio - 1) <= TTFT_SHARE and not other.failed
    shares = _shares(simulated), _shares(driven.result)
    return Agreement(
        hit_points,
        p50_ratio,
        other.ttft_p90_s / one.ttft_p90_s,
        {
            replica: (shares[0].get(replica, 0.0), shares[1].get(replica, 0.0))
            for replica in simulated.replicas
        },
        _word(agree=agree, kept_up=driven.lateness.kept_up(step_s)),
    )


def _word(*, agree: bool, kept_up: bool) -> Word:
    if not kept_up:
        return Word.FELL_BEHIND
    return Word.AGREE if agree else Word.DISAGREE


def _shares(result: Result) -> dict[str, float]:
    tokens: dict[str, int] = {}
    for one in measured(result.served):
        tokens[one.replica] = tokens.get(one.replica, 0) + one.prompt_tokens + one.completion_tokens
    return {replica: count / sum(tokens.values()) for replica, count in tokens.items()}
