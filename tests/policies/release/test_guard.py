from policies.release.guard import Guard


def run(failures: int, *, stable: str = "", unit: int | None = None) -> Guard:
    guard = Guard()
    for number in range(failures):
        guard.canary(number if unit is None else unit, failed=True)
        for word in stable:
            guard.stable(failed=word == "x")
    return guard


def test_five_in_a_row_fire() -> None:
    assert not run(4).fires(0.01)
    assert run(5).fires(0.01)
    assert run(5, stable="....").fires(0.0)


def test_a_success_in_between_begins_anew() -> None:
    guard = run(4)
    guard.canary(99, failed=False)
    guard.canary(100, failed=True)
    assert guard.run == 1 and not guard.fires(0.0)


def test_one_session_does_not_do_it_alone() -> None:
    assert not run(50, unit=7).fires(0.0)


def test_where_stable_fails_too_it_takes_a_longer_run() -> None:
    assert not run(5).fires(0.2) and run(9).fires(0.2)
    assert not run(30).fires(0.9)
    assert not run(5, stable="x").fires(0.01)  # an outage that has just begun, for both
    assert not run(60, stable="x").fires(0.01)
    assert not run(5, stable="x.").fires(0.01)


def test_it_stays_small_and_goes_on_as_it_was() -> None:
    guard, copy = run(1_000, stable=".x."), Guard()
    assert guard.run <= 64
    copy.restore(guard.snapshot())
    assert copy.snapshot() == guard.snapshot() and copy.fires(0.01) == guard.fires(0.01)
    guard.clear()
    assert guard.run == 0 and guard.snapshot() == ((), 0, 0)
