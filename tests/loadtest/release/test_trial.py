import pytest

from loadtest.release.cells import CELLS, Aim, Cell
from loadtest.release.traffic import Defect, Witness
from loadtest.release.trial import run
from policies.release.canary import Kind


def test_a_worse_canary_is_taken_back_soon() -> None:
    trial = run(CELLS["errors +10 points from 10 %"], 1, 5_000)
    assert trial.kind is Kind.ROLLBACK and trial.percent == 10
    assert trial.canary_requests <= 200 and trial.reason.startswith("errors: ")


def test_an_equal_one_climbs_by_the_analysers_own_verdicts() -> None:
    trial = run(Cell(name="quick", aim=Aim.KEEP, steps=(25.0, 50.0, 100.0), rivals=True), 1, 9_000)
    assert trial.kind is Kind.HOLD and trial.percent == 50 and trial.requests == 9_000
    assert len(trial.rivals) == 2


def test_the_same_seed_gives_the_same_release() -> None:
    cell = CELLS["errors +10 points"]
    assert run(cell, 7, 3_000) == run(cell, 7, 3_000) != run(cell, 8, 3_000)


@pytest.mark.slow
def test_an_equal_canary_becomes_stable_in_the_end() -> None:
    trial = run(CELLS["equal"], 0, 100_000)
    assert trial.kind is Kind.PROMOTE and trial.percent == 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.aim is not Aim.CATCH])
def test_cells_of_equal_and_hardly_worse_canaries(name: str) -> None:
    """Few releases: to see that nothing is far off. `turnout bench-release` runs many."""
    trials = [run(CELLS[name], seed, 60_000) for seed in range(8)]
    if CELLS[name].aim is Aim.KEEP:
        assert all(trial.kind is not Kind.ROLLBACK for trial in trials)
    else:
        assert all(trial.percent < 100 for trial in trials)


def test_cells_are_what_they_are_called() -> None:
    assert all(name == cell.name for name, cell in CELLS.items())
    assert CELLS["equal"].defect == Defect() and CELLS["equal, tenants"].witness is Witness.TENANT
    assert all(cell.within for cell in CELLS.values() if cell.aim is Aim.CATCH)
