"""The whole analysis: what it takes back, what it lets pass, and what it does not decide. Seeded."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf, nan
from random import Random

import msgspec
import pytest

from loadtest.release.traffic import Defect, Traffic, Witness
from policies.release.canary import Analysis, CanaryOptions, Kind, Snapshot, Verdict
from policies.release.margins import Margins
from policies.release.observation import Bad, Observation

Change = Callable[[Observation], Observation]


def begun(percent: float, options: CanaryOptions | None = None) -> Analysis:
    analysis = Analysis(options or CanaryOptions())
    analysis.begin_step(percent, 0.0)
    return analysis


def stream(
    percent: float, defect: Defect | None = None, witness: Witness = Witness.REQUEST, seed: int = 1
) -> Iterator[Observation]:
    traffic = Traffic(witness, defect or Defect(), Random(seed))
    while True:
        yield traffic.next(percent / 100)


def told(
    analysis: Analysis, seen: Iterator[Observation], requests: int, change: Change | None = None
) -> Verdict:
    """The verdict after so many, or the first that takes the canary back."""
    at = 0.0
    for one, _ in zip(seen, range(requests), strict=False):
        at = one.at
        if analysis.observe(one if change is None else change(one)):
            verdict = analysis.verdict(at)
            if verdict.kind is Kind.ROLLBACK:
                return verdict
    return analysis.verdict(at)


def canary_requests(verdict: Verdict) -> int:
    return verdict.evidence[0].canary_n


# ---- worse canaries ----


def waits(defect: Defect, percent: float, releases: int, requests: int) -> list[int]:
    """Requests of the canary until it is taken back, ascending."""
    found = [told(begun(percent), stream(percent, defect, seed=seed), requests) for seed in range(releases)]
    assert all(verdict.kind is Kind.ROLLBACK for verdict in found)
    return sorted(map(canary_requests, found))


def test_ten_points_of_errors_are_noticed() -> None:
    found = waits(Defect(errors=0.1), 10, 30, 5_000)
    assert found[15] <= 75 and found[-1] <= 220


def test_a_canary_that_answers_nobody_is_gone_at_once() -> None:
    assert waits(Defect(errors=1.0), 5, 10, 2_000)[-1] <= 5


def test_half_as_slow_again_is_noticed() -> None:
    found = waits(Defect(time_to_first_token=1.5), 10, 12, 6_000)
    assert found[6] <= 150 and found[-1] <= 350


def test_time_between_tokens_is_watched() -> None:
    analysis = begun(10)
    verdict = told(analysis, stream(10, Defect(inter_token=1.3)), 6_000)
    assert verdict.kind is Kind.ROLLBACK and verdict.reason.startswith("time between tokens: 1.")


def test_cut_off_answers_are_noticed() -> None:
    found = waits(Defect(cut=0.15), 10, 10, 6_000)
    assert found[5] <= 250 and found[-1] <= 500


def test_answers_half_as_long_are_noticed() -> None:
    def halved(one: Observation) -> Observation:
        return (
            one._replace(completion_tokens=one.completion_tokens // 2 or 1)
            if one.canary and one.completion_tokens
            else one
        )

    verdict = told(begun(10), stream(10), 8_000, halved)
    assert verdict.kind is Kind.ROLLBACK and verdict.reason.startswith("length of answers")


def test_broken_answers_are_noticed() -> None:
    def broken(one: Observation) -> Observation:
        return one._replace(bad=frozenset({Bad.EMPTY})) if one.canary and one.unit % 12 == 0 else one

    verdict = told(begun(10), stream(10), 6_000, broken)
    assert verdict.kind is Kind.ROLLBACK and verdict.reason.startswith("broken answers: ")


def test_two_points_of_errors_do_not_get_all_traffic() -> None:
    for seed in range(3):
        verdict = told(begun(50), stream(50, Defect(errors=0.02), seed=seed), 6_000)
        assert verdict.kind in (Kind.ROLLBACK, Kind.HOLD)


def test_an_observation_says_when_to_look() -> None:
    """Of all requests only those that may end the release are worth a verdict at once."""
    analysis, looks = begun(10), 0
    for one, _ in zip(stream(10, Defect(errors=0.1)), range(3_000), strict=False):
        looks += analysis.observe(one)
        if looks:
            break
    assert looks and analysis.verdict(1.0).kind is Kind.ROLLBACK


# ---- equal canaries ----


@pytest.mark.parametrize("witness", [Witness.REQUEST, Witness.SESSION, Witness.TENANT])
def test_an_equal_canary_is_not_taken_back(witness: Witness) -> None:
    """Small releases, looked at after every request; the large ones are `slow`."""
    options = CanaryOptions(per_tenant=witness is Witness.TENANT)
    for seed in range(8):
        assert told(begun(20, options), stream(20, None, witness, seed), 2_500).kind is not Kind.ROLLBACK


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("witness", [Witness.REQUEST, Witness.SESSION, Witness.TENANT])
def test_of_200_equal_canaries_hardly_one_is_taken_back(witness: Witness) -> None:
    """1 in 200 on average: 5 or more come once in 270 times."""
    options = CanaryOptions(per_tenant=witness is Witness.TENANT)
    found = [told(begun(10, options), stream(10, None, witness, seed), 10_000).kind for seed in range(200)]
    assert found.count(Kind.ROLLBACK) <= 4


def test_tenants_that_are_taken_for_independent_requests_mislead() -> None:
    """The same traffic, each request a witness: evidence of what is not there, and a split that looks wrong."""

    def wrong(seed: int) -> bool:
        number = iter(range(10**9))
        verdict = told(
            begun(10),
            stream(10, None, Witness.TENANT, seed),
            2_500,
            lambda one: one._replace(unit=next(number)),
        )
        return any(one.log_e >= one.threshold for one in verdict.evidence)

    assert sum(wrong(seed) for seed in range(6)) >= 4


def test_an_equal_canary_is_promoted_at_every_step() -> None:
    analysis = Analysis(CanaryOptions())
    for percent in (25.0, 50.0, 100.0):
        analysis.begin_step(percent, 0.0)
        assert analysis.verdict(0.0).kind is Kind.HOLD
        seen = stream(percent, seed=int(percent))
        found = (told(analysis, seen, 1_000) for _ in range(30))
        assert next(one.kind for one in found if one.kind is not Kind.HOLD) is Kind.PROMOTE


def test_a_cold_cache_is_not_held_against_a_canary() -> None:
    """Its times are twice stable's for a while, and it is exactly as fast."""
    for seed in range(4):
        analysis, seen = begun(20), stream(20, Defect(cold=True), seed=seed)
        kept = [next(seen) for _ in range(4_000)]
        times = {
            arm: sorted(
                one.time_to_first_token_s for one in kept if one.canary is arm and one.time_to_first_token_s
            )
            for arm in (True, False)
        }
        assert times[True][len(times[True]) // 2] > 1.2 * times[False][len(times[False]) // 2]
        assert told(analysis, iter(kept), 4_000).kind is not Kind.ROLLBACK


def test_the_first_requests_of_a_replica_are_not_compared() -> None:
    def fresh(one: Observation) -> Observation:
        return one._replace(ordinal=one.ordinal if not one.canary else 49, time_to_first_token_s=9.0)

    analysis = begun(20)
    told(analysis, stream(20), 1_000, fresh)
    assert analysis.evidence()[3].canary_n == 0


def test_a_little_slower_is_tolerated_however_certain_it_is() -> None:
    loose = CanaryOptions(margins=Margins(ttft_ratio=1.5))
    analysis = begun(25, loose)
    verdict = told(analysis, stream(25, Defect(time_to_first_token=1.25)), 4_500)
    slow = verdict.evidence[3]
    assert slow.log_e > slow.threshold and verdict.kind is not Kind.ROLLBACK


# ---- what decides nothing ----


def test_before_a_step_nothing_is_decided() -> None:
    assert Analysis(CanaryOptions()).verdict(1e9).kind is Kind.HOLD


def test_without_traffic_it_holds_and_a_person_decides_in_the_end() -> None:
    analysis = begun(1)
    assert analysis.verdict(3_599.0).kind is Kind.HOLD
    late = analysis.verdict(3_600.0)
    assert late.kind is Kind.INCONCLUSIVE and late.reason == "0 of 300 requests of the canary at this step"
    assert all(one.log_e == pytest.approx(0) for one in late.evidence)


def test_harm_that_cannot_be_ruled_out_yet_holds_and_says_so() -> None:
    verdict = told(begun(50), stream(50), 1_500)
    assert verdict.kind is Kind.HOLD
    assert (
        "errors: up to +" in verdict.reason and "points are not ruled out, +1.0 have to be" in verdict.reason
    )
    assert begun(50).verdict(nan).kind is Kind.HOLD


@pytest.mark.parametrize(
    "odd", [{"share": nan}, {"share": 0.0}, {"share": -1.0}, {"share": 2.0}, {"at": nan}, {"at": inf}]
)
def test_observations_that_cannot_be_true_never_promote(odd: dict[str, float]) -> None:
    analysis = begun(25)
    told(analysis, stream(25), 4_000, lambda one: one._replace(**odd) if one.unit % 5 == 0 else one)
    verdict = told(analysis, stream(25, seed=2), 6_000)
    assert verdict.kind is Kind.HOLD and "observations of this step cannot be true" in verdict.reason


def test_times_that_are_no_numbers_never_promote() -> None:
    def unmeasured(one: Observation) -> Observation:
        return one._replace(time_to_first_token_s=nan, inter_token_s=None) if one.canary else one

    verdict = told(begun(25), stream(25), 8_000, unmeasured)
    assert verdict.kind is Kind.HOLD and "time to first token: nothing to compare yet" in verdict.reason


def test_traffic_without_streams_is_judged_by_the_rest() -> None:
    verdict = told(
        begun(25), stream(25), 9_000, lambda one: one._replace(time_to_first_token_s=None, inter_token_s=None)
    )
    assert verdict.kind is Kind.PROMOTE


def test_where_stable_fails_too_nothing_is_promoted_and_nobody_is_blamed() -> None:
    """An outage that both share, after quiet requests."""
    analysis = begun(25)
    told(analysis, stream(25), 2_000)
    verdict = told(
        analysis,
        stream(25, seed=2),
        2_000,
        lambda one: one._replace(bad=frozenset({Bad.ERROR})) if one.unit % 2 else one,
    )
    assert verdict.kind is Kind.HOLD and "stable itself fails: " in verdict.reason


def test_an_outage_of_everything_is_no_run_of_the_canary() -> None:
    analysis = begun(50)
    told(analysis, stream(50), 500)
    down = told(analysis, stream(50, seed=2), 200, lambda one: one._replace(bad=frozenset({Bad.TIMEOUT})))
    assert down.kind is Kind.HOLD


def test_a_share_of_units_that_is_wrong_holds_with_an_alarm() -> None:
    def lost(one: Observation) -> Observation:
        return one._replace(share=0.1)

    verdict = told(begun(10), stream(20, Defect(errors=0.05)), 4_000, lost)
    assert verdict.kind is Kind.HOLD and verdict.alarm and verdict.evidence[-1].metric == "sample_ratio"
    assert "the canary has " in verdict.reason
    analysis = begun(10)
    dead = told(analysis, stream(20, Defect(errors=1.0)), 4_000, lost)
    assert dead.kind is Kind.ROLLBACK and not dead.alarm


def test_a_tenant_that_sends_garbage_to_the_canary_does_not_end_it() -> None:
    """300 sessions of one tenant fail; where the tenant is the unit they are one witness."""
    analysis = begun(10, CanaryOptions(per_tenant=True))
    seen = stream(10)

    def some(one: Observation) -> Observation:
        return one._replace(tenant=one.unit, bad=frozenset())

    for number in range(300):
        told(analysis, seen, 10, some)
        analysis.observe(next(seen)._replace(canary=True, tenant=7, unit=number, bad=frozenset({Bad.ERROR})))
        assert analysis.verdict(1.0).kind is Kind.HOLD


# ---- the last step ----


def test_with_all_traffic_errors_are_compared_with_what_stable_had() -> None:
    analysis = begun(50)
    told(analysis, stream(50), 3_000)
    analysis.begin_step(100, 0.0)
    verdict = told(analysis, stream(100, Defect(errors=0.15)), 800)
    assert verdict.kind is Kind.ROLLBACK and "stable had " in verdict.reason
    assert analysis.verdict(0.0).evidence[0].canary_n > 1_500


# ---- going on after a restart, and repeating a decision ----


def test_a_restored_analysis_goes_on_with_the_same_evidence() -> None:
    """Through JSON, in the middle of a step: from there on every verdict is the same."""
    for witness in Witness:
        whole, seen = begun(20), stream(20, Defect(errors=0.004, time_to_first_token=1.05), witness)
        for _ in range(1_500):
            whole.observe(next(seen))
        stored = msgspec.json.encode(whole.snapshot())
        copy = Analysis(CanaryOptions())
        copy.restore(msgspec.json.decode(stored, type=Snapshot))
        assert copy.snapshot() == whole.snapshot()
        for number in range(1_200):
            one = next(seen)
            assert copy.observe(one) == whole.observe(one)
            if number % 100 == 0:
                assert copy.verdict(one.at) == whole.verdict(one.at)
        whole.begin_step(25, 60.0)
        copy.begin_step(25, 60.0)
        assert copy.snapshot() == whole.snapshot()


def test_evidence_of_another_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="begin the step anew"):
        begun(1).restore(begun(1).snapshot()._replace(layout=0))


def test_every_decision_can_be_repeated_from_what_was_observed() -> None:
    """A log of observations and steps; each verdict says how many observations it rests on."""
    log: list[Observation | float] = []
    decisions: list[tuple[float, Verdict]] = []
    analysis, steps = Analysis(CanaryOptions(min_requests=100)), [10.0, 50.0]
    for percent in steps:
        analysis.begin_step(percent, 0.0)
        log.append(percent)
        for number, one in enumerate(stream(percent, Defect(errors=0.03), seed=3)):
            log.append(one)
            if analysis.observe(one) or number % 50 == 0:
                decisions.append((one.at, analysis.verdict(one.at)))
            if number == 1_500 or (decisions and decisions[-1][1].kind is Kind.ROLLBACK):
                break
    again, entries, heard = Analysis(CanaryOptions(min_requests=100)), iter(log), 0
    for now, verdict in decisions:
        while heard < verdict.observed:
            entry = next(entries)
            if isinstance(entry, float):
                again.begin_step(entry, 0.0)
            else:
                again.observe(entry)
                heard += 1
        assert again.verdict(now) == verdict
    assert len(decisions) > 20


# ---- how much it remembers ----


def test_what_it_remembers_is_bounded() -> None:
    """Everything is new and everything is bad: nothing grows beyond its bound, and it fits into 200 KiB."""
    analysis, chance = begun(50), Random(1)
    everything = frozenset(Bad)
    for number in range(9_000):
        prompt = 1 << chance.randrange(20)
        analysis.observe(
            Observation(
                chance.random() < 0.4, 0.5, number / 7, chance.getrandbits(64), chance.getrandbits(64), 99,
                everything if number % 3 else frozenset(), chance.random(), chance.random(), prompt,
                int(prompt * chance.random()), chance.randrange(1, 9_999),
            )
        )  # fmt: skip
    samples = analysis.snapshot().samples
    assert all(len(events.marked) == 2048 * 5 for events in samples.events)
    assert len(samples.strata) <= 57 and all(len(rows) <= 8 for _, _, rows in samples.strata)
    assert len(msgspec.json.encode(analysis.snapshot())) < 200 * 1024


def test_evidence_names_what_was_compared() -> None:
    verdict = told(begun(25), stream(25), 3_000)
    by_name = {one.metric: one for one in verdict.evidence}
    assert list(by_name) == [
        "error",
        "quality",
        "finish",
        "time_to_first_token",
        "inter_token",
        "completion_tokens",
        "sample_ratio",
    ]
    assert verdict.observed == 3_000 and by_name["error"].canary_n + by_name["error"].stable_n == 3_000
    between = by_name["inter_token"]
    assert between.stable_value == pytest.approx(0.02, rel=0.1) and between.canary_value == pytest.approx(
        0.02, rel=0.15
    )
    assert by_name["sample_ratio"].stable_value == pytest.approx(0.25)
    assert replace(CanaryOptions(), min_requests=5).min_requests == 5
