"""What is held against a canary, and what is still open: sentences for people, each a reason."""

from collections.abc import Iterator
from typing import Final

from policies.release.event_metric import EventMetric
from policies.release.margins import FINISH, Margins
from policies.release.samples import Samples
from policies.release.value_metric import ValueMetric

ALL: Final = 100.0
"""Per cent: stable has no traffic, so there is nothing to compare with at the same time."""
_ODD: Final = 0.05
"""With a greater share of observations that cannot be true nothing is promoted."""
_RARE: Final = 0.1
"""What so few of stable's answers have is not what traffic is about, and need not be ruled out."""
_WORDS: Final = {
    "error": "errors",
    "quality": "broken answers",
    "finish": "cut-off answers",
    "time_to_first_token": "time to first token",
    "inter_token": "time between tokens",
    "completion_tokens": "length of answers",
}


def wrong_ratio(samples: Samples) -> str | None:
    """Why nothing that is compared can be believed, if so."""
    ratio = samples.ratio
    if not ratio.wrong:
        return None
    return (
        f"the canary has {ratio.canary} of {ratio.units} units and should have {ratio.expected:.0f}: the "
        "split or the observations are wrong, and so is every comparison"
    )


def blamed(samples: Samples, margins: Margins, percent: float) -> Iterator[str]:
    """Why the canary is to be taken back: enough evidence, of more harm than is tolerated."""
    for metric, margin in _events(samples, margins):
        if metric.speaks and metric.harmful(samples.requests, samples.step_requests, margin):
            yield _against_events(metric, samples)
        elif percent >= ALL and metric.least_added(samples.requests, samples.step_requests) > margin:
            now, before = metric.step_shares(samples.requests, samples.step_requests)
            yield f"{_WORDS[metric.name]}: {now:.1%} of the canary's requests; stable had {before:.1%}"
    for measure, margin in _measures(samples, margins):
        if measure.speaks and measure.harmful(margin):
            yield _against_values(measure)


def open_questions(samples: Samples, margins: Margins, percent: float, min_requests: int) -> Iterator[str]:
    """Why the canary cannot be promoted yet. `margins` are those of the step."""
    count = samples.step_requests[True]
    if samples.odd > _ODD * (samples.odd + sum(samples.step_requests)):
        yield f"{samples.odd} observations of this step cannot be true"
    if samples.baseline.degraded:
        yield f"stable itself fails: {samples.baseline.share:.0%} of its last requests"
    if count < min_requests:
        yield f"{count} of {min_requests} requests of the canary at this step"
        return
    if percent < ALL and not samples.step_requests[False]:
        yield "stable had no requests at this step to compare with"
        return
    yield from _harm_of_events(samples, margins, percent)
    if percent < ALL:
        yield from _harm_of_values(samples, margins)


def _harm_of_events(samples: Samples, margins: Margins, percent: float) -> Iterator[str]:
    for metric, margin in _events(samples, margins):
        most = metric.most_added(samples.requests, samples.step_requests, alone=percent >= ALL)
        if not most <= margin:
            yield (
                f"{_WORDS[metric.name]}: up to {100 * most:+.1f} points are not ruled out, "
                f"{100 * margin:+.1f} have to be"
            )


def _harm_of_values(samples: Samples, margins: Margins) -> Iterator[str]:
    offered, *measured = samples.offered
    if not offered:
        yield "no times of stable at this step to compare with"
        return
    for (measure, margin), having in zip(_measures(samples, margins), measured, strict=True):
        if having >= _RARE * offered and not measure.ruled_out(margin):
            yield f"{_WORDS[measure.name]}: {_so_far(measure)}, {margin:.2f} times is not ruled out"


def _so_far(measure: ValueMetric) -> str:
    ratios = measure.step_ratios
    median = ratios.median()
    if median is None:
        return "nothing to compare yet"
    return f"{median:.2f} times stable's over {ratios.count} so far"


def _events(samples: Samples, margins: Margins) -> Iterator[tuple[EventMetric, float]]:
    error, quality, finish = samples.events
    yield error, margins.error
    yield quality, margins.error
    yield finish, FINISH * margins.error


def _measures(samples: Samples, margins: Margins) -> Iterator[tuple[ValueMetric, float]]:
    first_token, inter_token, length = samples.measures
    yield first_token, margins.ttft_ratio
    yield inter_token, margins.inter_token_ratio
    yield length, margins.length_ratio


def _against_events(metric: EventMetric, samples: Samples) -> str:
    found = metric.evidence(samples.requests)
    return (
        f"{_WORDS[metric.name]}: {found.canary_value or 0:.1%} of {found.canary_n} requests of the canary, "
        f"{found.stable_value or 0:.1%} of {found.stable_n} of stable"
    )


def _against_values(measure: ValueMetric) -> str:
    now, ever = measure.step_ratios.median() or 0.0, measure.ratios.median() or 0.0
    found = measure.evidence()
    return (
        f"{_WORDS[measure.name]}: {ever:.2f} times stable's over {found.canary_n} requests, "
        f"{now:.2f} times at this step"
    )
