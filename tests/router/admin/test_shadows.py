"""What is shown of shadow traffic."""

from dataclasses import replace

import msgspec
import pytest

from policies.release.pairs import Agreement, Answered, Pair
from router.admin.shadows import DifferenceView, ShadowsView, TextView, shadows_view
from router.observe.events import Copied
from router.observe.shadow import ShadowCounts

SERVED = Answered(
    status=200, finish_reason="stop", prompt_tokens=10, time_to_first_token_s=0.1, inter_token_s=0.01
)
COPY = replace(SERVED, prompt_tokens=12, time_to_first_token_s=0.2, inter_token_s=0.01)


def pair(number: int) -> Pair:
    return Pair(f"r{number}", float(number), SERVED, COPY, Agreement(4, 8 if number % 2 else 4))


def counts() -> ShadowCounts:
    made = ShadowCounts()
    for number in range(4):
        made(Copied("m", "v1", "v2", "sent"))
        made(Copied("m", "v1", "v2", "compared", pair=pair(number)))
    made(Copied("m", "v1", "v2", "failed", "total_timeout"))
    made(Copied("a", "v1", "v2", "dropped_saturated"))
    return made


def test_everything_is_shown_by_model() -> None:
    view = shadows_view(counts().tallies)
    assert [each.model for each in view.shadows] == ["a", "m"]
    nothing, shown = view.shadows
    assert (nothing.pairs, nothing.text, nothing.measures, nothing.differences) == (0, None, {}, {})
    assert shown.results == {"sent": 4, "compared": 4, "failed": 1}
    assert shown.codes == {"total_timeout": 1}
    assert shown.differences == {
        "status": DifferenceView(4, 0),
        "finish_reason": DifferenceView(4, 0),
        "prompt_tokens": DifferenceView(4, 4),
        "text": DifferenceView(4, 2),
    }
    assert shown.text == TextView(pairs=4, equal=2, common_share=0.75)
    assert set(shown.measures) == {"time_to_first_token_s", "inter_token_s"}
    first = shown.measures["time_to_first_token_s"]
    assert first.pairs == 4
    assert [first.served, first.copy, first.ratio, first.ratio_p90] == pytest.approx(
        [0.1, 0.2, 2, 2], rel=0.02
    )
    assert [example.request_id for example in shown.examples] == ["r3", "r2", "r1", "r0"]
    assert shown.examples[0].detail == "prompt_tokens 10, 12 by the copy; text after 4 of 8 characters"


def test_the_document_can_be_read_back() -> None:
    view = shadows_view(counts().tallies)
    assert msgspec.json.decode(msgspec.json.encode(view), type=ShadowsView) == view
