import io
import json

import pytest
from rich.console import Console

from loadtest.drive.agreement import Word, agreement_of
from loadtest.drive.evidence import Evidence, Spread
from loadtest.drive.pace import Lateness
from loadtest.drive.report import json_comparison, print_comparison
from loadtest.drive.run import Driven
from loadtest.simulate.contender import Contender, OfKind, Result, result_of
from loadtest.simulate.results import Served, Slo
from loadtest.simulate.setup import Setup, alike
from loadtest.simulate.workload import Call
from policies.routing.events import Prompt

CALL = Call(Prompt((), 1000, 4), 100)
CONTENDER = Contender("c: round_robin", OfKind("round_robin"), Setup(replicas=alike(2)))
IN_TIME, LATE = Lateness(500, 0.0, 0.001, 0.01, 0), Lateness(500, 0.0, 0.02, 0.09, 0)


def result(cached: int = 500, ttft_s: float = 1.0, on_r0: int = 10, broken: int = 0) -> Result:
    """Twenty alike, one a second; the first `on_r0` after the warm-up on r0."""
    served = [
        Served(
            CALL, float(n), 1000, cached, 100, "r0" if n < 3 + on_r0 else "r1", 0, 1, float(n),
            n + ttft_s, n + 5.0, n < 20 - broken,
        )
        for n in range(20)
    ]  # fmt: skip
    return result_of(CONTENDER, served, Slo(), 20, 20.0)


@pytest.mark.parametrize(
    ("driven", "lateness", "word"),
    [
        (result(), IN_TIME, Word.AGREE),
        (result(cached=519), IN_TIME, Word.AGREE),
        (result(cached=521), IN_TIME, Word.DISAGREE),
        (result(cached=479), IN_TIME, Word.DISAGREE),
        (result(ttft_s=1.14), IN_TIME, Word.AGREE),
        (result(ttft_s=1.16), IN_TIME, Word.DISAGREE),
        (result(ttft_s=0.84), IN_TIME, Word.DISAGREE),
        (result(broken=1), IN_TIME, Word.DISAGREE),
        (result(cached=521), LATE, Word.FELL_BEHIND),
        (result(), LATE, Word.FELL_BEHIND),
    ],
)
def test_the_word(driven: Result, lateness: Lateness, word: Word) -> None:
    assert agreement_of(result(), Driven(driven, lateness, 0.0), 0.01).word is word


def test_the_figures() -> None:
    driven = Driven(result(cached=510, ttft_s=1.1, on_r0=0), IN_TIME, 0.004)
    agreement = agreement_of(result(), driven, 0.01)
    assert agreement.hit_points == pytest.approx(1.0)
    assert (agreement.ttft_p50_ratio, agreement.ttft_p90_ratio) == pytest.approx((1.1, 1.1))
    assert agreement.loads["r0"] == pytest.approx((10 / 17, 0.0))
    assert agreement.loads["r1"] == pytest.approx((7 / 17, 1.0))


def test_both_reports_say_it_all() -> None:
    driven = Driven(result(cached=530, ttft_s=1.1), IN_TIME, 0.004)
    evidence = Evidence(result(), driven, result(cached=529), Spread((0.49, 0.515), (0.9, 1.2)))
    agreement = agreement_of(evidence.simulated, driven, 0.01)
    console = Console(file=io.StringIO(), width=150)
    print_comparison(console, evidence, agreement)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for said in ("+3.00 points", "x 1.100", "load of r1", "disagree", "4.0 ms of the", "500 engine steps"):
        assert said in text
    assert "0 of 20 requests found" in text and "0.490 to 0.515" in text
    document = json.loads(json_comparison(evidence, agreement, {"seed": "0"}))
    assert document["agreement"]["word"] == "disagree"
    assert document["driven"]["hit"] == pytest.approx(0.53)
    assert document["replayed"]["hit"] == pytest.approx(0.529)
    assert document["by_chance"]["ttft_p50_s"] == [0.9, 1.2]
    assert document["lateness"]["steps"] == 500 and document["settings"] == {"seed": "0"}
