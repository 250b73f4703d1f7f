"""That what is timed is what it says; the times themselves are the machine's."""

import pytest

from loadtest.simulate.decision import IndexCost, decide, decision, index_cost_alone, resident_bytes
from loadtest.simulate.section import Field, Section


def asked(subject: str) -> Section:
    asking = decision(Field(subject, [], "oracle", ["tool8"], (0,), 5))
    assert next(asking) == []
    try:
        asking.send([])
    except StopIteration as ended:
        section: Section = ended.value
        return section
    raise AssertionError("it asks for more")


def test_the_choice_is_a_part_of_the_decision() -> None:
    spans = decide("expected_latency", 8)
    assert 0 < spans.choose_p50 < spans.p50 <= spans.p99


def test_of_another_rule_only_the_index_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' rules are not written for speed, and nobody runs them as they are here."""
    monkeypatch.setattr("loadtest.simulate.decision.index_cost_alone", lambda *_: IndexCost(90.0, 1.2))
    section = asked("lmetric")
    assert [row[0] for row in section.rows] == ["index"]
    assert [verdict.holds for verdict in section.verdicts] == [True, False]


def test_an_index_costs_what_its_parts_do() -> None:
    """A hash of 32 bytes, 8 in its era and a dictionary's slot are the least there can be of it."""
    cost = index_cost_alone(200_000, 1_000_000, 60_000_000)
    if resident_bytes() is None:
        assert cost is None
    else:
        assert cost is not None
        assert 60 < cost.bytes_per_block < 200 and 0.3 < cost.over_budget < 1.5
