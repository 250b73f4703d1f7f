"""Reservations are near what is used, charges are what was used, and nobody is kept out by an estimate."""

from collections.abc import Callable
from random import Random
from statistics import median, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits.ask import Ask, Budget
from policies.limits.book import Book
from policies.limits.cost import NEVER, CostModel, Expected, Reserve
from policies.limits.gcra import Rate
from policies.limits.usage import NOTHING, Delivered, Size, Used
from policies.outcome import Ending

CHAT = Size("generate", 3_500)
DONE = Ending.COMPLETED
MODES: tuple[Reserve, ...] = ("expected", "strict", "post")


def answered(prompt: int, output: int, cached: int = 0, pieces: int = 0) -> Delivered:
    return Delivered(DONE, sent=True, reported=Used(prompt, output, cached), pieces=pieces)


def run(costs: CostModel, size: Size, delivered: Delivered, tenant: str = "t") -> tuple[Expected, Used]:
    reserved = costs.expect(tenant, "m", size, "expected")
    return reserved, costs.settle(tenant, "m", size, sum(reserved[:2]), delivered)


# ---- what is reserved ----


def test_before_anything_is_known() -> None:
    """A token for 3.5 bytes and 256 of output, or less if the request says so."""
    costs = CostModel()
    assert costs.expect("t", "m", CHAT, "expected") == Expected(1001, 256, 250)
    assert costs.expect("t", "m", CHAT._replace(most_output=5), "expected").output_tokens == 5
    assert costs.expect("t", "m", CHAT._replace(answers=3), "expected").output_tokens == 768
    assert costs.expect("t", "m", CHAT._replace(answers=3, most_output=5), "expected").output_tokens == 15


def test_strict_reserves_all_that_is_possible() -> None:
    """What one answer may have, for each; without a bound, all that the bucket holds."""
    costs = CostModel()
    assert costs.expect("t", "m", CHAT._replace(most_output=900, answers=2), "strict").output_tokens == 1800
    assert costs.expect("t", "m", CHAT, "strict").within(50_000) == 50_000


def test_post_reserves_the_prompt_alone() -> None:
    """However much may come."""
    assert CostModel().expect("t", "m", CHAT._replace(most_output=900), "post") == Expected(1001, 0, 250)


@pytest.mark.parametrize("mode", MODES)
def test_what_writes_nothing_reserves_no_output(mode: Reserve) -> None:
    """Embeddings and scores read; what runs no model costs one token, so that an empty bucket refuses it."""
    costs = CostModel()
    assert costs.expect("t", "m", Size("encode", 3_500), mode) == Expected(1001, 0, 250)
    assert costs.expect("t", "m", Size("none", 3_500), mode) == Expected(1, 0, 1)


def test_a_count_is_better_than_an_estimate() -> None:
    """Tokens that were counted are reserved as they are, whatever was learned of bytes."""
    costs = CostModel()
    for _ in range(100):
        run(costs, CHAT, answered(3_000, 10))
    assert costs.expect("t", "m", CHAT._replace(exact_tokens=17), "post") == Expected(17, 0, 17)


@given(
    st.lists(st.integers(0, 100_000), max_size=40),
    st.integers(1, 10**6),
    st.integers(1, 10**5) | st.none(),
    st.integers(1, 8),
    st.sampled_from(MODES),
    st.integers(1, 10**6),
)
def test_a_reservation_fits_or_the_prompt_does_not(
    outputs: list[int], size_bytes: int, most: int | None, answers: int, mode: Reserve, capacity: int
) -> None:
    """Never above the bucket, never nothing, never more output than was asked for."""
    costs = CostModel()
    for output in outputs:
        run(costs, CHAT, answered(1_000, output))
    size = Size("generate", size_bytes, most_output=most, answers=answers)
    expected = costs.expect("t", "m", size, mode)
    assert 1 <= expected.least_tokens <= expected.prompt_tokens
    assert most is None or expected.output_tokens <= most * answers
    reserved = expected.within(capacity)
    assert reserved == NEVER if expected.least_tokens > capacity else 1 <= reserved <= capacity


def lognormal(middle: float, sigma: float) -> Callable[[Random], int]:
    return lambda rng: max(1, round(middle * rng.lognormvariate(0, sigma)))


def either(share: float, first: int, second: int) -> Callable[[Random], int]:
    return lambda rng: first if rng.random() < share else second


OUTPUTS: dict[str, Callable[[Random], int]] = {
    "lognormal, wide": lognormal(200, 1.0),
    "lognormal, narrow": lognormal(400, 0.4),
    "fixed": lambda _: 120,
    "mostly short": either(0.75, 20, 900),
    "mostly long": either(0.25, 20, 900),
    "evenly": lambda rng: rng.randint(1, 600),
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("prompt", [100, 1_500])
@pytest.mark.parametrize("draw", OUTPUTS.values(), ids=OUTPUTS.keys())
def test_reserved_is_near_what_is_used(draw: Callable[[Random], int], prompt: int, exact: bool) -> None:
    """After 200 requests of a tenant without a limit of its own: the median of reserved to used is 1 to 1.3."""
    costs, rng = CostModel(), Random(5)
    ratios = []
    for number in range(2_200):
        tokens = max(1, round(prompt * rng.lognormvariate(0, 0.5)))
        size = Size("generate", max(1, round(tokens * rng.gauss(4.2, 0.3))), exact_tokens=tokens * exact)
        reserved, used = run(costs, size, answered(tokens, draw(rng)))
        if number >= 200:
            ratios.append(sum(reserved[:2]) / (used.prompt_tokens + used.output_tokens))
    assert 1.0 <= median(ratios) <= 1.3


def test_nine_answers_in_ten_are_covered_where_that_is_near() -> None:
    """Outputs that spread little, beside a large prompt, are reserved at their 90th percentile."""
    costs, rng = CostModel(), Random(6)
    covered = 0
    for number in range(2_200):
        size = Size("generate", 8_000, exact_tokens=2_000)
        output = lognormal(300, 0.4)(rng)
        reserved, _ = run(costs, size, answered(2_000, output))
        covered += number >= 200 and reserved.output_tokens >= output
    assert covered / 2_000 == pytest.approx(0.9, abs=0.03)


def test_the_usual_answer_is_always_reserved() -> None:
    """Also where prompts spread so widely that what they may have takes up all that is above the usual."""
    costs = CostModel()
    for number in range(200):
        run(costs, CHAT, answered(500 + 1_500 * (number % 5 == 0), 30))
    expected = costs.expect("t", "m", CHAT, "expected")
    assert expected.prompt_tokens == pytest.approx(2_000, abs=1)
    assert expected.output_tokens == 30


def test_a_tenant_is_not_measured_by_others() -> None:
    """Once it has answers of its own; before that it is."""
    costs = CostModel()
    for _ in range(200):
        run(costs, CHAT, answered(1_000, 100), "short")
        run(costs, CHAT, answered(1_000, 800), "long")
    assert costs.expect("short", "m", CHAT, "expected").output_tokens == 100
    assert costs.expect("long", "m", CHAT, "expected").output_tokens == 800
    assert 100 <= costs.expect("new", "m", CHAT, "expected").output_tokens <= 800


# ---- nobody is locked out ----


def admitted_in(costs: CostModel, size: Size, delivered: Delivered, rate: Rate, minutes: int) -> int:
    """Requests that come in while one client asks every second and waits for the answer."""
    book, count = Book(), 0
    for second in range(minutes * 60):
        now_us = (second + 1) * 1_000_000
        expected = costs.expect("t", "m", size, "expected")
        reserved = expected.within(rate.capacity)
        reserved_us = rate.cost_us(reserved)
        ask = Ask(str(second), (Budget("k", reserved_us, rate.window_us),))
        if reserved != NEVER and book.admit(ask, now_us).admitted:
            used = costs.settle("t", "m", size, reserved, delivered)
            used_us = rate.cost_us(used.prompt_tokens + used.output_tokens)
            book.settle(ask, [used_us - reserved_us], now_us)
            count += 1
    return count


@pytest.mark.parametrize(
    ("size", "used"),
    [
        (Size("generate", 400), Used(100, 20)),
        (Size("generate", 400), Used(100, 5_000)),
        (Size("generate", 3_600), Used(900, 3_000)),
        (Size("generate", 5_000), Used(800, 50)),
        (Size("encode", 12_000), Used(900, 0)),
        (Size("none", 2_000_000), Used(1, 0)),
    ],
    ids=["small", "long answers", "nearly all of it", "a picture", "embeddings", "tokenize"],
)
def test_a_small_limit_stays_usable(size: Size, used: Used) -> None:
    """At 1,000 tokens a minute a client gets, in the long run, what the limit is worth, however wrong the estimate."""
    delivered = Delivered(DONE, sent=True, reported=used)
    tokens = used.prompt_tokens + used.output_tokens
    count = admitted_in(CostModel(), size, delivered, Rate(1_000, 60), minutes=60)
    assert count >= 0.6 * min(3_600, 60_000 / tokens)
    assert (count - 1) * tokens <= 61_000


def test_a_prompt_that_can_never_fit_is_told_so() -> None:
    """Counted, one token too many is; estimated, only what is far too much."""
    costs = CostModel()
    assert costs.expect("t", "m", CHAT._replace(exact_tokens=1_001), "expected").within(1_000) == NEVER
    assert costs.expect("t", "m", CHAT._replace(exact_tokens=1_000), "expected").within(1_000) == 1_000
    assert costs.expect("t", "m", Size("generate", 5_000), "expected").within(1_000) == 1_000
    assert costs.expect("t", "m", Size("generate", 50_000), "expected").within(1_000) == NEVER


# ---- what is charged ----


def test_what_was_reported_is_what_was_used() -> None:
    """To the token, cached ones apart, whatever had been reserved."""
    costs = CostModel()
    for used in (Used(1_000, 300), Used(900, 5_000, 800), Used(1, 0)):
        assert run(costs, CHAT, Delivered(DONE, sent=True, reported=used))[1] == used


def test_a_cache_that_cannot_be_true_is_full_price() -> None:
    """More of it than there was of the prompt."""
    told = Delivered(DONE, sent=True, reported=Used(1_000, 300, 1_001))
    assert run(CostModel(), CHAT, told)[1] == Used(1_000, 300, 0)


def test_a_client_that_leaves_before_the_first_byte_pays_the_prompt() -> None:
    """If it was sent; and what had come by then, if it leaves later."""
    costs = CostModel()
    left = Ending.CLIENT_LEFT
    assert run(costs, CHAT, Delivered(left, sent=False))[1] == NOTHING
    assert run(costs, CHAT, Delivered(left, sent=True))[1] == Used(1001, 0, source="estimated")
    assert run(costs, CHAT, Delivered(left, sent=True, pieces=40))[1] == Used(1001, 40, source="estimated")


def test_an_error_with_nothing_delivered_is_refunded() -> None:
    """And one in the middle of a stream is paid as far as it went."""
    costs = CostModel()
    assert run(costs, CHAT, Delivered(Ending.FAILED, sent=True))[1] == NOTHING
    assert run(costs, CHAT, Delivered(Ending.FAILED, sent=True, pieces=7))[1].output_tokens == 7


def test_what_runs_no_model_is_settled_as_it_was_reserved() -> None:
    """One token, whatever the engine says; and embeddings have no output, however long their answer."""
    costs = CostModel()
    assert run(costs, Size("none", 900), Delivered(DONE, sent=True, body_bytes=99))[1] == Used(1, 0)
    embedded = run(costs, Size("encode", 3_500), Delivered(DONE, sent=True, body_bytes=90_000))[1]
    assert embedded == Used(1001, 0, source="estimated")


@pytest.mark.parametrize(
    "reported", [Used(-5, -5), Used(10**12, 10**12), Used(-(10**12), 10**12), Used(0, 0)]
)
def test_absurd_usage_is_bounded_and_teaches_nothing(reported: Used) -> None:
    """From what was delivered to twice what was reserved, and the next estimate is as before."""
    costs = CostModel()
    before = costs.expect("t", "m", CHAT, "expected")
    for _ in range(50):
        reserved, used = run(costs, CHAT, Delivered(DONE, sent=True, reported=reported, pieces=30))
        assert used.source == "clamped"
        assert used.prompt_tokens >= 1001
        assert used.output_tokens >= 30
        most = 2 * (reserved.prompt_tokens + reserved.output_tokens)
        assert used.prompt_tokens + used.output_tokens <= most + 30
    assert costs.expect("t", "m", CHAT, "expected") == before


def test_without_usage_the_charge_is_near() -> None:
    """After 200 answers that said: the error of the others is within 10 % for 95 in 100."""
    costs, rng = CostModel(), Random(7)
    errors = []
    for number in range(1_200):
        prompt, output = round(1_500 * rng.lognormvariate(0, 0.7)) + 20, lognormal(300, 0.8)(rng)
        size = Size("generate", round((prompt - 20) * rng.gauss(4.2, 0.2)) + 120)
        pieces = round(output / rng.gauss(1.8, 0.05))
        told = Used(prompt, output) if number < 200 else None
        _, used = run(costs, size, Delivered(DONE, sent=True, reported=told, pieces=pieces))
        if number >= 200:
            assert used.source == "estimated"
            errors.append(abs((used.prompt_tokens + used.output_tokens) / (prompt + output) - 1))
    assert quantiles(errors, n=20)[-1] <= 0.10


def test_an_answer_that_is_no_stream_is_measured_by_its_bytes() -> None:
    """Learned from those that said what they used; rounded up."""
    costs = CostModel()
    for _ in range(20):
        told = Delivered(DONE, sent=True, reported=Used(1_000, 200), body_bytes=1_400)
        run(costs, CHAT, told)
    assert run(costs, CHAT, Delivered(DONE, sent=True, body_bytes=1_400))[1].output_tokens == 201


def test_an_answer_that_was_cut_teaches_no_length() -> None:
    """Where a client leaves says nothing of where the answer would have ended."""
    costs = CostModel()
    for _ in range(50):
        run(costs, CHAT, Delivered(Ending.CLIENT_LEFT, sent=True, reported=Used(1_000, 3)))
    assert costs.expect("t", "m", CHAT, "expected").output_tokens == 256


def test_several_answers_teach_what_one_has() -> None:
    """Four of a hundred each are not one of four hundred."""
    costs = CostModel()
    for _ in range(50):
        run(costs, CHAT._replace(answers=4), answered(1_000, 400))
    assert costs.expect("t", "m", CHAT, "expected").output_tokens == 100
    assert costs.expect("t", "m", CHAT._replace(answers=2), "expected").output_tokens == 200


# ---- memory ----


def test_tenants_are_remembered_up_to_a_bound() -> None:
    """100,000 of them leave 1,000, the latest; the busy one among them stays."""
    costs = CostModel(most=1_000)
    for number in range(100_000):
        run(costs, CHAT, answered(1_000, 10), f"t{number}")
        if number % 500 == 0:
            run(costs, CHAT, answered(1_000, 900), "busy")
    assert len(costs) == 1_000
    assert costs.expect("busy", "m", CHAT, "expected").output_tokens > 100
