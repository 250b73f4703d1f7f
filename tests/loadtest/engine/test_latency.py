from pytest import approx

from loadtest.engine.latency import PROFILES, LatencyModel, StepLoad


def test_step_time_is_the_sum_of_its_terms() -> None:
    """Each term counts with its own price."""
    model = LatencyModel(base_s=1, prefill_token_s=2, attention_pair_s=3, decode_s=5, context_token_s=7)
    assert model.step_s(StepLoad(0, 0, 0, 0)) == 1
    assert model.step_s(StepLoad(10, 100, 1000, 10_000)) == 1 + 20 + 300 + 5000 + 70_000


def test_profiles_have_the_speeds_they_are_named_for() -> None:
    """A full prefill step runs at the profile's rate, a lone decode at a plausible one."""
    h100 = PROFILES["8b-h100"]
    assert 8192 / (h100.step_s(StepLoad(8192, 0, 0, 0)) - h100.base_s) == approx(32_000)
    assert 1 / h100.step_s(StepLoad(0, 0, 1, 1000)) == approx(158, rel=0.05)
    assert PROFILES["8b-a10g"].step_s(StepLoad(0, 0, 8, 8000)) > 4 * h100.step_s(StepLoad(0, 0, 8, 8000))
