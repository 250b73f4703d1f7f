"""What is shown of shadow traffic: what became of the copies, and how their answers compare."""

from collections.abc import Mapping

import msgspec

from policies.release.pairs import Difference, Measure, Summary
from router.observe.shadow import ShadowKey, ShadowTally


class DifferenceView(msgspec.Struct, frozen=True):
    """Of `judged` pairs that could differ in it, `differing` did."""

    judged: int
    differing: int


class MeasureView(msgspec.Struct, frozen=True, kw_only=True):
    """Medians of `pairs` in which both are known. `ratio` is the median of the copy's to the client's.

    Nine in ten ratios are up to `ratio_p90`. Seconds, or tokens.
    """

    pairs: int
    served: float
    copy: float
    ratio: float
    ratio_p90: float


class TextView(msgspec.Struct, frozen=True, kw_only=True):
    """Of greedy requests: `equal` of `pairs` said the same; on average so much of a text was in common."""

    pairs: int
    equal: int
    common_share: float


class ExampleView(msgspec.Struct, frozen=True):
    """One pair that differs. `at` is seconds since the epoch."""

    request_id: str
    at: float
    differences: tuple[str, ...]
    detail: str


class ShadowView(msgspec.Struct, frozen=True, kw_only=True):
    """Copies of what `against` served, for `version`. `results` and `codes`: how often each word."""

    model: str
    version: str
    against: str
    results: dict[str, int]
    codes: dict[str, int]
    pairs: int
    differences: dict[str, DifferenceView]
    text: TextView | None
    measures: dict[str, MeasureView]
    """By name: `time_to_first_token_s`, `inter_token_s`, `answer_s` (of whole answers), `output_tokens`."""
    examples: list[ExampleView]
    """The last ones, the newest first."""


class ShadowsView(msgspec.Struct, frozen=True):
    """Everything since the router began."""

    shadows: list[ShadowView]


def shadows_view(tallies: Mapping[ShadowKey, ShadowTally]) -> ShadowsView:
    """By model, version and the version compared with."""
    rows = sorted(tallies.items(), key=lambda row: (row[0].model, row[0].version, row[0].against))
    return ShadowsView([_shadow(key, tally) for key, tally in rows])


def _shadow(key: ShadowKey, tally: ShadowTally) -> ShadowView:
    pairs = tally.pairs
    return ShadowView(
        model=key.model,
        version=key.version,
        against=key.against,
        results=tally.results.counts,
        codes=tally.codes.counts,
        pairs=pairs.pairs,
        differences={
            word: DifferenceView(count, pairs.differing.get(word, 0)) for word, count in pairs.judged.items()
        },
        text=_text(pairs),
        measures={name: _measure(each) for name, each in pairs.measures.items() if each.ratio.counts},
        examples=[ExampleView(*example) for example in reversed(pairs.examples)],
    )


def _text(pairs: Summary) -> TextView | None:
    word = Difference.TEXT.value
    judged = pairs.judged.get(word, 0)
    if not judged:
        return None
    equal = judged - pairs.differing.get(word, 0)
    return TextView(pairs=judged, equal=equal, common_share=pairs.agreed / judged)


def _measure(measure: Measure) -> MeasureView:
    """Of one that has pairs."""
    return MeasureView(
        pairs=measure.ratio.total,
        served=measure.served.quantile(0.5) or 0.0,
        copy=measure.copy.quantile(0.5) or 0.0,
        ratio=measure.ratio.quantile(0.5) or 0.0,
        ratio_p90=measure.ratio.quantile(0.9) or 0.0,
    )
