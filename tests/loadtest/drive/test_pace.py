from dataclasses import replace
from math import isnan

from loadtest.drive.pace import Pace
from loadtest.engine.stats import StepRecord

STEP = StepRecord(
    number=1,
    ended_s=0.0,
    latency_s=0.02,
    context_requests=0,
    context_tokens=0,
    generation_requests=1,
    new_tokens=1,
    new_active=0,
    new_active_queue_s=0.0,
    paused=0,
    completed=0,
)


def late_by(*delays_s: float) -> Pace:
    now = 100.0
    pace = Pace(lambda: now)
    for delay_s in delays_s:
        pace.step_done(replace(STEP, ended_s=now - delay_s))
    return pace


def test_lateness_is_from_the_end_of_each_step() -> None:
    lateness = late_by(*[0.001] * 98, 0.004, 0.03).lateness
    assert lateness.steps == 100 and lateness.lost == 0
    assert [round(one_s, 6) for one_s in (lateness.p50_s, lateness.p99_s, lateness.most_s)] == [
        0.001,
        0.004,
        0.03,
    ]
    assert lateness.kept_up(0.005) and not lateness.kept_up(0.003)


def test_a_clock_that_was_put_back_is_never_forgiven() -> None:
    lateness = late_by(*[0.001] * 999, 0.2).lateness
    assert lateness.lost == 1 and not lateness.kept_up(0.05)


def test_nothing_is_not_in_time() -> None:
    lateness = Pace().lateness
    assert isnan(lateness.p99_s) and not lateness.kept_up(1.0)


def test_first_tokens_are_kept() -> None:
    pace = Pace()
    pace.token_times([0.5], [0.01, 0.02])
    pace.token_times([0.25], [])
    assert pace.first_tokens_s == [0.5, 0.25]
