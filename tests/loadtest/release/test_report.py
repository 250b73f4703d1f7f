import io
import json

import pytest
from rich.console import Console

from loadtest.release.cells import Aim, Cell
from loadtest.release.report import TABLE_WIDTH, json_report, print_report, row
from loadtest.release.trial import Trial
from policies.release.canary import Kind


def ended(kind: Kind, canary: int = 10, percent: float = 1.0, rivals: tuple[bool, ...] = ()) -> Trial:
    return Trial(kind, canary, 100 * canary, percent, "errors: many", rivals)


CATCH = Cell(name="worse", aim=Aim.CATCH, within=((0.5, 20), (0.95, 40)))


def test_percentiles_are_of_all_releases() -> None:
    """One that was not taken back is later than any."""
    caught = [ended(Kind.ROLLBACK, number) for number in range(1, 20)]
    found = row(CATCH, [*caught, ended(Kind.HOLD)])
    assert found.until_rollback == {"p50": 10, "p95": 19, "p99": None}
    assert found.holds and found.rolled_back == 0.95 and found.unfinished == 0.05
    assert found.reasons == {"errors": 19}
    assert not row(CATCH, [*caught[:10], *[ended(Kind.HOLD)] * 10]).holds


@pytest.mark.parametrize(("bad", "holds"), [(0, True), (1, False)])
def test_false_rollbacks_and_promotions_are_shares_with_a_bound(bad: int, holds: bool) -> None:
    keep = row(
        Cell(name="equal", aim=Aim.KEEP),
        [ended(Kind.ROLLBACK)] * bad + [ended(Kind.PROMOTE, percent=100)] * 50,
    )
    assert keep.holds is holds and keep.reached_all >= 0.98
    assert 0.05 < keep.rolled_back_at_most < 0.12
    stop = row(
        Cell(name="worse", aim=Aim.STOP), [ended(Kind.HOLD, percent=100)] * bad + [ended(Kind.ROLLBACK)] * 50
    )
    assert stop.holds is holds


def test_the_table_fits_and_says_what_others_would_have_done() -> None:
    cell = Cell(
        name="errors +10 points from 10 %",
        aim=Aim.CATCH,
        within=((0.5, 60), (0.95, 150), (0.99, 200)),
        rivals=True,
    )
    rows = [row(cell, [ended(Kind.ROLLBACK, 1_234, rivals=(True, False))] * 2_000)]
    console = Console(width=TABLE_WIDTH, record=True, file=io.StringIO())
    print_report(console, rows)
    text = console.export_text()
    assert "1234/1234/1234" in text and "does not hold" in text and "…" not in text
    assert (
        "z-test, peeking takes it back in 100.0%" in text and "fixed threshold takes it back in 0.0%" in text
    )
    document = json.loads(json_report(rows, {"seed": 3}))
    assert document["settings"] == {"seed": 3} and document["rows"][0]["releases"] == 2_000
