import pytest

from policies.release.margins import Margins


@pytest.mark.parametrize(
    ("percent", "error", "ratio"),
    [
        (0.5, 0.05, 1.5),
        (1, 0.05, 1.5),
        (5, 0.03, 1.3),
        (10, 0.02, 1.2),
        (25, 0.02, 1.2),
        (50, 0.01, 1.1),
        (100, 0.01, 1.1),
    ],
)
def test_early_steps_ask_for_less(percent: float, error: float, ratio: float) -> None:
    margins = Margins().at(percent)
    assert margins.error == error
    assert margins.ttft_ratio == pytest.approx(ratio) and margins.inter_token_ratio == pytest.approx(ratio)


def test_what_was_configured_is_asked_for_in_the_end_and_never_less() -> None:
    strict, loose = Margins(error=0.005), Margins(error=0.08)
    assert strict.at(50) == strict and strict.at(1).error == 0.05
    assert loose.at(1).error == loose.at(100).error == 0.08
