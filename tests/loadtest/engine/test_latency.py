import pytest
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


def test_a_run_of_decodes_is_the_sum_of_its_steps() -> None:
    """Three sequences: every step reads three tokens more than the one before."""
    model = PROFILES["8b-h100"]
    loads = [StepLoad(0, 0, 3, 1000 + 3 * step) for step in range(50)]
    total = sum(model.step_s(load) for load in loads)
    assert model.run_s(loads[0], 50) == approx(total, rel=1e-12)


@pytest.mark.parametrize("model", [*PROFILES.values(), LatencyModel(context_token_s=0.0)])
def test_steps_in_a_time(model: LatencyModel) -> None:
    """The step under way at a moment, at its very end, and at the beginning of the first."""
    load = StepLoad(0, 0, 40, 90_000)
    for steps in (1, 2, 17, 999):
        end = model.run_s(load, steps)
        assert model.steps_in(load, end) == steps
        assert model.steps_in(load, end * (1 - 1e-9)) == steps
        assert model.steps_in(load, end * (1 + 1e-9)) == steps + 1
    assert model.steps_in(load, 0.0) == model.steps_in(load, -1.0) == 1


def test_copying_in_costs_a_share_of_computing() -> None:
    model = LatencyModel(base_s=0, prefill_token_s=2, load_ratio=0.25)
    assert model.step_s(StepLoad(0, 0, 0, 0, 8)) == 4
