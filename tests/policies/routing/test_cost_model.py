from random import Random

import pytest

from policies.routing.cost_model import Average, DecodeModel, LinearModel, PrefillModel, Speeds

DRIFT = 1e-5
TRUE = Speeds(base_s=0.02, prefill_token_s=1 / 4_000, attention_pair_s=1e-8, decode_s=0.034)


def prefill_s(speeds: Speeds, uncached: float, length: float) -> float:
    pairs = uncached * (length - uncached / 2)
    return speeds.base_s + uncached * speeds.prefill_token_s + pairs * speeds.attention_pair_s


def prompts(rng: Random, count: int) -> list[tuple[float, float]]:
    lengths = [rng.choice((200, 1_000, 4_000, 16_000)) * rng.uniform(0.5, 1.5) for _ in range(count)]
    return [(max(1.0, length * rng.random()), length) for length in lengths]


def test_a_prefill_model_finds_what_made_its_samples() -> None:
    """Within 5 % after 200 samples of 10 % noise, from a prior that is off by 4 to 10 times."""
    rng = Random(1)
    model = PrefillModel(Speeds(), DRIFT)
    for uncached, length in prompts(rng, 200):
        model.learn(uncached, length, prefill_s(TRUE, uncached, length) * rng.uniform(0.9, 1.1))
    for uncached, length in ((500, 500), (4_000, 4_000), (1_000, 16_000), (16_000, 16_000)):
        assert model.seconds(uncached, length) == pytest.approx(prefill_s(TRUE, uncached, length), rel=0.05)
    assert model.samples == 200
    assert model.tokens_per_second == pytest.approx(1_000 / prefill_s(TRUE, 1_000, 1_000), rel=0.05)


def test_a_few_samples_are_enough_to_know_a_slow_replica() -> None:
    """What matters at first is who is slower, not by how much exactly."""
    rng = Random(2)
    model = PrefillModel(Speeds(), DRIFT)
    for uncached, length in prompts(rng, 5):
        model.learn(uncached, length, prefill_s(TRUE, uncached, length))
    assert model.seconds(4_000, 4_000) == pytest.approx(prefill_s(TRUE, 4_000, 4_000), rel=0.25)


def test_a_replica_that_becomes_slower_is_found_out() -> None:
    rng = Random(3)
    model = PrefillModel(Speeds(), DRIFT)
    for uncached, length in prompts(rng, 500):
        model.learn(uncached, length, prefill_s(Speeds(), uncached, length))
    for uncached, length in prompts(rng, 150):
        model.learn(uncached, length, 4 * prefill_s(Speeds(), uncached, length))
    assert model.seconds(4_000, 4_000) == pytest.approx(4 * prefill_s(Speeds(), 4_000, 4_000), rel=0.15)


def test_stalls_do_not_poison_a_model() -> None:
    """One first token in fifty that took a minute: predictions stay within a factor of two."""
    rng = Random(4)
    model = PrefillModel(Speeds(), DRIFT)
    for number, (uncached, length) in enumerate(prompts(rng, 1_000)):
        model.learn(uncached, length, 60.0 if number % 50 == 49 else prefill_s(TRUE, uncached, length))
    for uncached, length in ((1_000, 1_000), (4_000, 8_000), (16_000, 16_000)):
        assert 0.5 < model.seconds(uncached, length) / prefill_s(TRUE, uncached, length) < 2.0


def test_estimates_stay_within_their_bounds() -> None:
    """Whatever comes in: from a twentieth to fifty times the prior."""
    for took_s in (0.0, 1e9):
        model = PrefillModel(Speeds(), DRIFT)
        for uncached, length in prompts(Random(5), 300):
            model.learn(uncached, length, took_s)
            assert 0 < model.seconds(uncached, length) <= 50 * prefill_s(Speeds(), uncached, length) * 1.0001


def test_equal_samples_for_ever_leave_a_model_sound() -> None:
    """Nothing excites it, so forgetting alone would let its uncertainty grow without bound."""
    model = PrefillModel(Speeds(), DRIFT)
    for _ in range(20_000):
        model.learn(1_000, 1_000, 0.1)
    assert model.seconds(1_000, 1_000) == pytest.approx(0.1, rel=0.01)
    model.learn(8_000, 8_000, 0.9)
    assert 0.05 < model.seconds(1_000, 1_000) < 0.2


def test_a_decode_model_finds_what_made_its_samples() -> None:
    rng = Random(6)
    model = DecodeModel(Speeds(), DRIFT)
    for _ in range(300):
        batch = rng.randrange(1, 100)
        model.learn(batch, (0.03 + 0.0006 * batch) * rng.uniform(0.9, 1.1))
    for batch in (1, 20, 90):
        assert model.seconds(batch) == pytest.approx(0.03 + 0.0006 * batch, rel=0.08)
    assert model.samples == 300


def test_a_linear_model_is_exact_without_noise() -> None:
    fit = LinearModel((1.0, 0.5), 0.0)
    for x in range(1, 50):
        fit.learn((1.0, float(x)), 2.0 + 0.25 * x, expected=2.0 + 0.25 * x)
    assert fit.coefficients == pytest.approx([2.0, 0.25], rel=0.02)


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
