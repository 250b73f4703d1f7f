from random import Random

import pytest

from policies.routing.cost_model import Average, DecodeModel, LinearModel, Pace, Paces, PrefillModel

DRIFT = 1e-5


def teach(model: PrefillModel, uncached: float, length: float, took_s: float) -> None:
    """One prompt, which one step computed."""
    model.learn(1, uncached, uncached * (length - uncached / 2), took_s)


PROMPTS = ((500, 500), (4_000, 4_000), (1_000, 16_000), (16_000, 16_000))


def true_s(uncached: float, length: float) -> float:
    """A replica 4 to 10 times slower than the prior."""
    return 0.02 + uncached / 4_000 + 1e-8 * uncached * (length - uncached / 2)


def prompts(rng: Random, count: int) -> list[tuple[float, float]]:
    lengths = [rng.choice((200, 1_000, 4_000, 16_000)) * rng.uniform(0.5, 1.5) for _ in range(count)]
    return [(max(1.0, length * rng.random()), length) for length in lengths]


def test_a_prefill_model_finds_what_made_its_samples() -> None:
    """Within 5 % after 200 samples of 10 % noise."""
    rng = Random(1)
    model = PrefillModel(DRIFT)
    for uncached, length in prompts(rng, 200):
        teach(model, uncached, length, true_s(uncached, length) * rng.uniform(0.9, 1.1))
    for uncached, length in PROMPTS:
        assert model.seconds(uncached, length) == pytest.approx(true_s(uncached, length), rel=0.05)


def test_a_few_samples_are_enough_to_begin_with() -> None:
    rng = Random(2)
    model = PrefillModel(DRIFT)
    for uncached, length in prompts(rng, 5):
        teach(model, uncached, length, true_s(uncached, length))
    assert model.seconds(4_000, 4_000) == pytest.approx(true_s(4_000, 4_000), rel=0.25)


def test_stalls_do_not_poison_a_model() -> None:
    """One first token in fifty that took a minute: predictions stay within a factor of two."""
    rng = Random(4)
    model = PrefillModel(DRIFT)
    for number, (uncached, length) in enumerate(prompts(rng, 1_000)):
        teach(model, uncached, length, 60.0 if number % 50 == 49 else true_s(uncached, length))
    for uncached, length in PROMPTS:
        assert 0.5 < model.seconds(uncached, length) / true_s(uncached, length) < 2.0


def test_estimates_stay_within_their_bounds() -> None:
    """Whatever comes in: from a twentieth to fifty times the prior."""
    for took_s in (0.0, 1e9):
        model, prior = PrefillModel(DRIFT), PrefillModel(DRIFT)
        for uncached, length in prompts(Random(5), 300):
            teach(model, uncached, length, took_s)
            ratio = model.seconds(uncached, length) / prior.seconds(uncached, length)
            assert 0.0499 < ratio < 50.001


def test_equal_samples_for_ever_leave_a_model_sound() -> None:
    """Nothing excites it, so what it knew of other prompts must not be forgotten."""
    model = PrefillModel(DRIFT)
    for _ in range(20_000):
        teach(model, 1_000, 1_000, 0.1)
    assert model.seconds(1_000, 1_000) == pytest.approx(0.1, rel=0.01)
    teach(model, 8_000, 8_000, 0.9)
    assert 0.05 < model.seconds(1_000, 1_000) < 0.2


def test_a_decode_model_finds_what_made_its_samples() -> None:
    rng = Random(6)
    model = DecodeModel(DRIFT)
    for _ in range(300):
        batch = rng.randrange(1, 100)
        model.learn(batch, (0.03 + 0.0006 * batch) * rng.uniform(0.9, 1.1))
    for batch in (1, 20, 90):
        assert model.seconds(batch) == pytest.approx(0.03 + 0.0006 * batch, rel=0.08)


def test_a_linear_model_is_exact_without_noise() -> None:
    fit = LinearModel((1.0, 0.5), 0.0)
    for x in range(1, 50):
        fit.learn((1.0, float(x)), 2.0 + 0.25 * x, expected=2.0 + 0.25 * x)
    assert fit.coefficients == pytest.approx([2.0, 0.25], rel=0.02)


def fleet(count: int) -> list[Pace]:
    together = Paces()
    return [Pace(together, 1.0) for _ in range(count)]


def test_a_pace_is_how_much_slower_than_the_others_a_replica_is() -> None:
    """Three alike and one that takes three times as long: their mean is the model's business."""
    rng = Random(7)
    paces = fleet(4)
    for number in range(800):
        expected = rng.uniform(0.01, 1.0)
        paces[number % 4].learn(
            (3.0 if number % 4 == 3 else 1.0) * expected * rng.uniform(0.8, 1.2), expected
        )
    assert paces[3].factor / paces[0].factor == pytest.approx(3.0, rel=0.07)
    assert sum(pace.factor for pace in paces) == pytest.approx(4.0)


def test_model_and_paces_find_the_truth_together() -> None:
    """A fleet of 1 : 1 : 2 : 4, an order of magnitude off the prior: every product is right within 10 %."""
    rng = Random(8)
    model, paces = PrefillModel(DRIFT), fleet(4)
    slowness = (1.0, 1.0, 2.0, 4.0)
    for number, (uncached, length) in enumerate(prompts(rng, 800)):
        took = true_s(uncached, length) * slowness[number % 4] * rng.uniform(0.9, 1.1)
        teach(model, uncached, length, paces[number % 4].learn(took, model.seconds(uncached, length)))
    for uncached, length in PROMPTS:
        for pace, slow in zip(paces, slowness, strict=True):
            found = pace.factor * model.seconds(uncached, length)
            assert found == pytest.approx(slow * true_s(uncached, length), rel=0.1)


def test_a_replica_that_becomes_slower_is_found_out_in_some_dozen_answers() -> None:
    changed, *others = fleet(8)
    for _ in range(500):
        for pace in (changed, *others):
            pace.learn(0.1, 0.1)
    for _ in range(20):
        changed.learn(0.4, 0.1)
    assert changed.factor / others[0].factor == pytest.approx(4.0, rel=0.1)


def test_one_stall_is_no_pace() -> None:
    """It counts for no more than four of its kind."""
    stalled, *_ = fleet(8)
    for _ in range(100):
        stalled.learn(0.1, 0.1)
    stalled.learn(60.0, 0.1)
    assert stalled.factor < 1.1


def test_a_newcomer_is_taken_to_be_like_the_others_and_leaves_no_trace() -> None:
    together = Paces()
    old = Pace(together, 1.0)
    for _ in range(100):
        old.learn(0.5, 0.1)
    new = Pace(together, 1.0)
    assert new.factor == pytest.approx(old.factor)
    half = Pace(together, 2.0)
    assert half.factor == pytest.approx(2 * old.factor)
    half.leave()
    new.leave()
    assert old.factor == pytest.approx(1.0)


def test_an_average_begins_with_what_it_sees() -> None:
    mean = Average(prior=1_000.0, window=10)
    assert mean.value == 1_000.0
    mean.add(10.0)
    assert mean.value == 10.0
    mean.add(20.0)
    assert mean.value == 15.0
    for _ in range(200):
        mean.add(40.0)
    assert mean.value == pytest.approx(40.0)


def test_a_first_sample_far_off_does_not_stay() -> None:
    """Ten times what was expected, as a first request may take; what comes after it is what counts."""
    model = DecodeModel(drift=1e-5)
    model.learn(1, 10 * model.seconds(1))
    for _ in range(20):
        model.learn(1, 0.03)
    assert model.seconds(1) == pytest.approx(0.03, rel=0.15)
