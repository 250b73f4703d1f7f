from random import Random

import pytest

from policies.release.event_metric import ERROR, FINISH, QUALITY, EventMetric
from policies.release.observation import Bad


def bad(metric: EventMetric, events: list[tuple[int, bool]], share: float = 0.1) -> bool:
    spoke = [metric.add(unit, 1, canary, share) for unit, canary in events]
    return any(spoke)


def made() -> EventMetric:
    metric = EventMetric("error", 0.0025)
    metric.begin_step()
    return metric


def test_every_kind_is_of_one_group() -> None:
    assert set(Bad) == ERROR | QUALITY | FINISH
    assert len(ERROR) + len(QUALITY) + len(FINISH) == len(Bad)


def test_events_of_many_units_speak_and_those_of_one_do_not() -> None:
    many, one = made(), made()
    assert bad(many, [(unit, True) for unit in range(5)])
    assert many.speaks and many.evidence([900, 100]).log_e >= many.evidence([900, 100]).threshold
    assert not bad(one, [(7, True)] * 500)
    assert not one.speaks


def test_shares_are_of_requests() -> None:
    metric = made()
    bad(metric, [(1, True), (1, True), (2, False)])
    found = metric.evidence([200, 20])
    assert (found.canary_n, found.canary_value, found.stable_n, found.stable_value) == (20, 0.1, 200, 0.005)
    nothing = made().evidence([0, 0])
    assert nothing.canary_value is nothing.stable_value is None and nothing.log_e == pytest.approx(0)


def test_harm_is_more_than_is_tolerated_now_or_all_along() -> None:
    metric = made()
    bad(metric, [(unit, True) for unit in range(6)] + [(unit, False) for unit in range(6, 12)])
    assert metric.harmful([600, 60], [600, 60], 0.05)
    assert not metric.harmful([600, 600], [600, 600], 0.01)
    # Late at this step, after 6,000 requests in which all was well.
    assert metric.harmful([60_000, 6_000], [600, 60], 0.05)


def test_what_can_be_added_at_most_falls_as_requests_come() -> None:
    metric = made()
    bad(metric, [(unit, unit % 2 == 0) for unit in range(12)])
    few = metric.most_added([600, 600], [600, 600], alone=False)
    more = metric.most_added([6_000, 6_000], [6_000, 6_000], alone=False)
    assert 0 < more < few
    # Without stable's requests at this step those of the release have to do.
    assert metric.most_added([60_000, 6_000], [0, 6_000], alone=True) < more + 0.01


def test_a_step_counts_a_unit_again() -> None:
    metric = made()
    metric.add(1, 1, True, 0.1)
    metric.begin_step()
    metric.add(1, 2, True, 0.1)
    state = metric.snapshot()
    assert state.units == (0, 1) and state.step_units == (0, 1) and state.bad == (0, 2)


def test_it_goes_on_as_it_was() -> None:
    chance, metric, copy = Random(1), made(), made()
    bad(metric, [(chance.getrandbits(32), chance.random() < 0.1) for _ in range(200)])
    copy.restore(metric.snapshot())
    assert copy.evidence([9, 9]) == metric.evidence([9, 9]) and copy.snapshot() == metric.snapshot()
