"""Generated traffic is what it says it is."""

from collections import Counter, defaultdict
from random import Random

import pytest

from loadtest.release.traffic import BASE_CUT, BASE_ERRORS, Defect, Traffic, Witness
from policies.release.event_metric import ERROR, FINISH
from policies.release.observation import Observation


def drawn(
    witness: Witness, defect: Defect | None = None, requests: int = 20_000, share: float = 0.25
) -> list[Observation]:
    traffic = Traffic(witness, defect or Defect(), Random(1))
    return [traffic.next(share) for _ in range(requests)]


def share_of(kinds: frozenset[object], seen: list[Observation]) -> float:
    return sum(not kinds.isdisjoint(one.bad) for one in seen) / len(seen)


def arms(seen: list[Observation]) -> tuple[list[Observation], list[Observation]]:
    return [one for one in seen if not one.canary], [one for one in seen if one.canary]


@pytest.mark.parametrize("witness", [Witness.REQUEST, Witness.SESSION])
def test_errors_and_shares_are_as_given(witness: Witness) -> None:
    stable, canary = arms(drawn(witness))
    assert len(canary) / 20_000 == pytest.approx(0.25, abs=0.02)
    for seen in (stable, canary):
        assert share_of(ERROR, seen) == pytest.approx(BASE_ERRORS, abs=0.007)
        assert share_of(FINISH, seen) == pytest.approx(BASE_CUT, abs=0.01)


@pytest.mark.parametrize("witness", list(Witness))
def test_a_unit_keeps_its_arm_and_a_growing_share_takes_from_stable_alone(witness: Witness) -> None:
    traffic, arm = Traffic(witness, Defect(), Random(2)), dict[int, bool]()
    for percent in (5, 25, 50):
        for _ in range(2_000):
            one = traffic.next(percent / 100)
            assert one.canary >= arm.get(one.unit, False)
            arm[one.unit] = one.canary
    assert witness is Witness.REQUEST or len(arm) < 4_000


@pytest.mark.parametrize("witness", [Witness.SESSION, Witness.TENANT])
def test_errors_of_one_unit_come_together(witness: Witness) -> None:
    """Far more of them in its worst units than by chance."""
    bad = Counter(one.unit for one in drawn(witness) if not ERROR.isdisjoint(one.bad))
    worst = sum(number for _, number in bad.most_common(len(bad) // 10 or 1))
    assert worst > 0.25 * bad.total()


def test_a_defect_is_the_canarys_alone() -> None:
    stable, canary = arms(
        drawn(Witness.REQUEST, Defect(errors=0.1, time_to_first_token=1.5, inter_token=1.2, cut=0.15))
    )
    assert share_of(ERROR, canary) == pytest.approx(0.11, abs=0.02)
    assert share_of(ERROR, stable) == pytest.approx(0.01, abs=0.005)
    assert share_of(FINISH, canary) == pytest.approx(0.15 * 0.89, abs=0.02)
    between = [
        sorted(one.inter_token_s or 0 for one in seen if one.inter_token_s)[len(seen) // 3]
        for seen in (stable, canary)
    ]
    assert between[1] > 1.1 * between[0]


def test_a_cold_cache_fills_up() -> None:
    _, canary = arms(drawn(Witness.REQUEST, Defect(cold=True), share=0.5))
    assert [one.ordinal for one in canary[:3]] == [0, 1, 2]
    cached = [
        sum(bool(one.cached_tokens) for one in part) / 1_000 for part in (canary[:1_000], canary[4_000:5_000])
    ]
    assert cached[0] < 0.25 and cached[1] == pytest.approx(0.5, abs=0.06)


def test_sessions_find_their_past_cached() -> None:
    turns = defaultdict(list)
    for one in drawn(Witness.SESSION, requests=3_000):
        turns[one.unit].append(one.cached_tokens)
    assert all(cached == [400 * number for number in range(len(cached))] for cached in turns.values())


def test_the_same_seed_gives_the_same_traffic() -> None:
    assert drawn(Witness.TENANT, requests=300) == drawn(Witness.TENANT, requests=300)
