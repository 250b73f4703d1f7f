from dataclasses import replace

import pytest

from loadtest.simulate.compare import sentences, verdicts
from loadtest.simulate.contender import Result
from loadtest.simulate.results import Served, Slo, summary_of
from loadtest.simulate.workload import Call
from policies.routing.events import Prompt

CALL = Call(Prompt((), 100, 4), 101)


def result(name: str, ttfts: list[float], tpot: float = 0.01) -> Result:
    """Prompts get longer with time; the second half of them has the longer answers."""
    served = [
        Served(
            CALL,
            float(n),
            100 * (n + 1),
            10,
            11 + n,
            "r",
            0,
            1,
            n,
            n + ttft,
            n + ttft + tpot * (10 + n),
            True,
        )
        for n, ttft in enumerate(ttfts)
    ]
    return Result(name, served, summary_of(served, Slo(), 1), ["r"], 0, 1.0)


def test_each_figure_has_a_winner_or_none() -> None:
    """One is twice as fast to the first token, the other between tokens; both have the same hits."""
    found = {v.title: v for v in verdicts(result("A", [0.5] * 40, 0.04), result("B", [1.0] * 40, 0.02))}
    assert found["TTFT p90"].winner == "A" and found["TPOT p50"].winner == "B"
    assert found["cache hits"].winner is None and found["goodput"].winner is None
    assert found["TTFT p90"].values == ("0.50 s", "1.00 s")


def test_larger_goodput_wins() -> None:
    found = {v.title: v for v in verdicts(result("A", [0.5] * 40), result("B", [0.5] * 20 + [3.0] * 20))}
    assert found["goodput"].winner == "A" and found["goodput"].values == ("100.0%", "50.0%")


def test_two_per_cent_are_level() -> None:
    assert {v.winner for v in verdicts(result("A", [0.5] * 40), result("B", [0.509] * 40))} == {None}


def test_the_sentences_say_for_whom() -> None:
    """B misses the SLO for the longest third of prompts, which are also the last."""
    a, b = result("A", [0.5] * 100), result("B", [0.5] * 70 + [3.0] * 30)
    text = "\n".join(sentences(a, b, Slo()))
    assert text.startswith("A wins goodput (100.0% against 70.0%)")
    assert "B wins no figure." in text
    assert "Level within 2%: cache hits" in text
    assert (
        "by prompt (A / B): up to 4,400 tokens 0.0% / 0.0%; up to 7,200 0.0% / 7.1%; longer 0.0% / 100.0%."
        in text
    )
    assert "by time (A / B): first half 0.0% / 0.0%; second half 0.0% / 71.4%." in text


def test_nothing_to_compare() -> None:
    empty = replace(result("A", [0.5]), served=[], summary=summary_of([], Slo(), 1))
    lines = sentences(empty, replace(empty, name="B"), Slo())
    assert lines[:2] == ["A wins no figure.", "B wins no figure."]
    assert len(lines) == pytest.approx(3)
