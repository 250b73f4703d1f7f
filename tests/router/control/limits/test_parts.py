"""An ask in parts: what they say together is what would be said of the whole."""

from random import Random

from policies.limits.ask import Ask, Budget, Slots
from policies.limits.gcra import decide
from router.control.limits.parts import combine, parts_of


def random_ask(random: Random) -> Ask:
    def tag() -> str:
        return random.choice(["{t:a}", "{pool}", "{t:b}"])

    budgets = [Budget(f"turnout:{tag()}:{n}:r", random.randrange(10), 15) for n in range(random.randrange(5))]
    slots = [Slots(f"turnout:{tag()}:{n}:c", random.randrange(1, 4)) for n in range(random.randrange(4))]
    return Ask("x", budgets, slots)


def test_parts_have_one_tag_each_and_nothing_is_lost() -> None:
    random = Random(1)
    for _ in range(200):
        ask = random_ask(random)
        parts = parts_of(ask)
        assert len({part.tag for part in parts}) == len(parts)
        for part in parts:
            assert all(part.tag in key for key, *_ in (*part.ask.budgets, *part.ask.slots))
        shifts = list(range(len(ask.budgets)))
        assert sorted(shift for part in parts for shift in part.shifts(shifts)) == shifts
        assert sum(len(part.ask.slots) for part in parts) == len(ask.slots)


def test_the_tenant_is_asked_before_the_pool() -> None:
    ask = Ask("x", [Budget("turnout:{t:a}:l:r", 1, 1), Budget("turnout:{pool}:l:r", 1, 1)])
    assert [part.tag for part in parts_of(ask)] == ["turnout:{t:a}", "turnout:{pool}"]


def test_combined_is_as_decided_of_the_whole() -> None:
    random = Random(2)
    seen = set()
    for _ in range(3000):
        ask = random_ask(random)
        tats = [random.randrange(20) for _ in ask.budgets]
        held = [random.randrange(3) for _ in ask.slots]
        parts = parts_of(ask)
        verdicts = [
            decide(part.ask, [tats[at] for at in part.budgets], [held[at] for at in part.slots], 5)
            for part in parts
        ]
        whole = decide(ask, tats, held, 5)
        assert combine(ask, parts, verdicts) == whole
        seen.add(whole.refused)
    assert len(seen) > 4
