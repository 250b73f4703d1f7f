"""A refusal is repeated only while it must be true, and never turned into an admission."""

from policies.limits.ask import ADMITTED, Ask, Budget, Slots, Verdict
from router.control.limits.denials import MOST, REMEMBERED_US, Denials

REQUESTS = Budget("r", 10, 1000)
TOKENS = Budget("t", 500, 1000)
ASK = Ask("1", [REQUESTS, TOKENS])
REFUSED = Verdict(1, [40, 900], [], 400)


def test_a_refusal_is_repeated_with_less_to_wait() -> None:
    denials = Denials()
    denials.note(1000, ASK, REFUSED)

    assert denials.recall(1100, ASK) == Verdict(1, [0, 800], [], 300)
    assert denials.recall(1399, ASK) == Verdict(1, [0, 501], [], 1)
    assert denials.recall(1400, ASK) is None


def test_it_is_forgotten_before_much_can_have_changed() -> None:
    denials = Denials()
    denials.note(0, ASK, REFUSED._replace(wait_us=10 * REMEMBERED_US))

    assert denials.recall(REMEMBERED_US - 1, ASK) is not None
    assert denials.recall(REMEMBERED_US, ASK) is None


def test_who_wants_less_is_not_refused_for_it() -> None:
    denials = Denials()
    denials.note(0, ASK, REFUSED)

    assert denials.recall(1, Ask("2", [REQUESTS, TOKENS._replace(cost_us=499)])) is None
    more = denials.recall(1, Ask("2", [REQUESTS, TOKENS._replace(cost_us=550)]))
    assert more is not None
    assert more.wait_us == 449


def test_other_buckets_are_not_concerned() -> None:
    denials = Denials()
    denials.note(0, ASK, REFUSED)

    assert denials.recall(1, Ask("2", [REQUESTS])) is None
    assert denials.recall(1, Ask("2", [TOKENS._replace(key="other")])) is None
    assert denials.recall(1, Ask("2", [REQUESTS, TOKENS._replace(window_us=2000)])) is None


def test_slots_are_always_asked_for() -> None:
    denials = Denials()
    ask = Ask("1", [REQUESTS], [Slots("s", 1)])
    denials.note(0, ask, Verdict(1, [40], [1]))

    assert denials.recall(1, ask) is None


def test_an_admission_is_not_remembered_and_memory_is_bounded() -> None:
    denials = Denials()
    denials.note(0, ASK, Verdict(ADMITTED, [10, 500], []))
    assert denials.recall(1, ASK) is None

    for number in range(3 * MOST):
        budget = Budget(str(number), 10, 1000)
        denials.note(0, Ask("", [budget]), Verdict(0, [1000], [], 10))
    assert len(denials._by_key) <= MOST
