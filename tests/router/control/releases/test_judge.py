"""One release and its evidence: verdicts become moves, failed evaluations never move it up, evidence is kept."""

from dataclasses import replace
from typing import Any

import pytest

from policies.release.lifecycle import Phase, Release, Verb
from policies.release.observation import Bad, Observation
from router.config.model import CanaryConfig, ModelConfig
from router.control.releases.judge import MISSED, Judge

MODEL = ModelConfig(stable="v1", versions={}, canary=CanaryConfig(steps=(5.0, 100.0), min_requests=50))
RELEASE = Release(
    stable="v1",
    declared="v1",
    generation=1,
    phase=Phase.CANARY,
    canary="v2",
    share=500,
    step=0,
    salt="s",
    step_at=1.0,
)


def seen(number: int, *, canary: bool, bad: frozenset[Bad] = frozenset(), share: float = 0.05) -> Observation:
    return Observation(canary, share, 10.0 + number, number, 0, 1000, bad)


def failing(judge: Judge, count: int = 12) -> None:
    for number in range(count):
        judge.observe(seen(number, canary=True, bad=frozenset({Bad.ERROR})))
        judge.observe(seen(1000 + number, canary=False))


def verb(judge: Judge, release: Release = RELEASE, now: float = 20.0) -> Verb | None:
    decided = judge.decide(release, now)
    return None if decided is None else decided[0].verb


def test_without_evidence_it_stays_and_in_the_end_a_person_decides() -> None:
    judge = Judge(MODEL, RELEASE, 1.0)
    assert verb(judge) is None
    assert verb(judge, now=1.0 + 3600) is Verb.GIVE_UP


@pytest.mark.parametrize("phase", [Phase.CANARY, Phase.PAUSED, Phase.INCONCLUSIVE])
def test_evidence_of_harm_takes_it_back_wherever_it_is(phase: Phase) -> None:
    judge = Judge(MODEL, RELEASE, 1.0)
    failing(judge)
    assert verb(judge, replace(RELEASE, phase=phase)) is Verb.ROLL_BACK
    assert verb(judge, replace(RELEASE, phase=phase, manual=True)) is None
    assert {one.metric for one in judge.evidence()} >= {"error", "time_to_first_token", "sample_ratio"}


@pytest.mark.parametrize(("share", "moves"), [(500, Verb.STEP), (10_000, Verb.PROMOTE)])
def test_evidence_of_no_harm_moves_it_on(share: int, moves: Verb) -> None:
    canary = CanaryConfig(steps=(5.0, 100.0), min_requests=50)
    model = replace(MODEL, canary=replace(canary, margins=replace(canary.margins, error=0.5)))
    release = replace(RELEASE, share=share, step=0 if share == 500 else 1)
    judge = Judge(model, release, 1.0)
    for number in range(4000):
        is_canary = share == 10_000 or number % 20 == 0
        if share == 500:
            judge.observe(timed(number, canary=is_canary))
        else:
            judge.observe(seen(number, canary=True, share=1.0))
    assert verb(judge, release) is moves, judge.verdict


def timed(number: int, *, canary: bool) -> Observation:
    return Observation(
        canary, 0.05, 10.0 + number / 100, number * 7919, 0, 1000, frozenset(), 0.1, 0.02, 500, 0, 50
    )


def test_an_analysis_that_fails_holds_and_then_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Judge(MODEL, RELEASE, 1.0)

    def fail(_now: float) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(judge._analysis, "verdict", fail)
    moves = [verb(judge) for _ in range(MISSED)]
    assert moves == [None] * (MISSED - 1) + [Verb.PAUSE]
    assert verb(judge, replace(RELEASE, phase=Phase.PAUSED)) is None


def test_who_takes_over_goes_on_with_the_same_evidence() -> None:
    first = Judge(MODEL, RELEASE, 1.0)
    failing(first, 2)
    second = Judge(MODEL, RELEASE, 9.0, first.keep())
    for judge in (first, second):
        failing(judge, 3)
    assert second.decide(RELEASE, 20.0) == first.decide(RELEASE, 20.0)
    assert second.evidence() == first.evidence()
    alone = Judge(MODEL, replace(RELEASE, salt="other"), 9.0, first.keep())
    failing(alone, 3)
    assert alone.decide(RELEASE, 20.0) is None or alone.evidence() != first.evidence()


@pytest.mark.parametrize("kept", [b"", b"[]", b'["s", 1.0, {"layout": 99}]'])
def test_evidence_that_cannot_be_read_is_gathered_anew(kept: bytes) -> None:
    judge = Judge(MODEL, RELEASE, 1.0, kept)
    failing(judge)
    assert verb(judge) is Verb.ROLL_BACK
