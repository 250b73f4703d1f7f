"""Small releases of short requests: the same split, lifecycle and judge, in a fraction of a second."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest

from loadtest.simulate.plan import Plan
from loadtest.simulate.rehearsal.defects import NONE, Defects
from loadtest.simulate.rehearsal.plan import Rehearsal, rehearsal_of
from loadtest.simulate.rehearsal.results import Rehearsed
from loadtest.simulate.rehearsal.run import NothingArrives, rehearse
from loadtest.simulate.results import Slo
from loadtest.simulate.workload import Call, Session, Workload
from policies.release.lifecycle import Phase
from policies.routing.events import Prompt
from router.config.decode import decode
from tests.support.rehearsing import CONFIG, PLAN, workload

SPLIT = "[models.m.split]\nweights = { v1 = 3, v3 = 1 }\n"
V3 = '[models.m.versions.v3]\nserved_name = "m"\nreplicas = [ { url = "http://10.0.3.1:8000", engine = "vllm" } ]\n'


def planned(
    defects: Defects = NONE,
    text: str = CONFIG,
    plan: Plan = PLAN,
    starts_s: float = 0.0,
    target: str = "m@v2",
) -> Rehearsal:
    return rehearsal_of(decode(text, {}), "turnout.toml", target, plan, defects, starts_s)


def rehearsed(plan: Rehearsal, work: Workload) -> Rehearsed:
    return rehearse(plan, work, Slo())


@cache
def of(defects: Defects, seed: int = 0, sessions: int = 2500) -> Rehearsed:
    return rehearsed(planned(defects, plan=replace(PLAN, seed=seed)), workload(sessions))


def test_a_canary_that_fails_is_caught_early_and_clients_see_nothing() -> None:
    found = of(Defects(errors=0.3))
    assert found.phase is Phase.ROLLED_BACK and found.finding.startswith("errors: ")
    assert found.observed[True] < 100, found.observed
    assert found.percent == 20 and found.moves[-1].weights["v2"] == 0
    assert found.covered >= 5 and sum(found.errors.values()) == 0
    stable, canary = found.results
    assert len(stable.served) == found.assigned["v1"] + found.covered
    assert len(canary.served) == found.assigned["v2"] - found.covered


def test_one_that_is_as_good_climbs_as_configured() -> None:
    found = of(NONE)
    assert found.phase is Phase.PROMOTED, found.finding
    assert [move.verb for move in found.moves] == ["start", "step", "promote"]
    assert list(found.shares) == [20, 100]
    assert [move.weights["v2"] for move in found.moves] == [20, 100, 100]
    assert all(later.at_s > earlier.at_s for earlier, later in pairwise(found.moves))
    assert found.covered == 0 and sum(found.errors.values()) == 0
    assert {replica for result in found.results for replica in result.replicas} == {
        "v1-1",
        "v1-2",
        "v2-1",
        "v2-2",
    }


def test_it_is_not_rolled_back_by_chance() -> None:
    assert of(NONE, 1, 800).phase is not Phase.ROLLED_BACK


@pytest.mark.parametrize(
    ("defects", "why"),
    [
        (Defects(slow=1.5), "time to first token"),
        (Defects(truncated=0.5), "cut-off answers"),
        (Defects(longer=2.0), "length of answers"),
        (Defects(broken=0.4), "errors"),
    ],
)
def test_each_defect_is_what_it_is_rolled_back_for(defects: Defects, why: str) -> None:
    found = of(defects)
    assert found.phase is Phase.ROLLED_BACK, found.finding
    assert found.finding.startswith((why, "time between tokens" if defects.slow > 1 else why))
    assert found.percent == 20


def test_clients_see_the_streams_that_break() -> None:
    found = of(Defects(broken=0.4))
    assert found.errors["v2"] >= 5 and found.errors["v1"] == 0
    assert sum(not one.ok for one in found.results[1].served) == found.errors["v2"]


def test_the_same_seed_gives_the_same_release_and_another_one_another() -> None:
    defects = Defects(errors=0.3)
    first, again = (rehearsed(planned(defects, plan=replace(PLAN, seed=3)), workload(400)) for _ in range(2))
    assert first.moves == again.moves and first.evidence == again.evidence
    assert first.assigned == again.assigned
    assert first.moves != of(defects, 4, 400).moves


def test_a_trace_that_is_too_short_says_what_is_missing() -> None:
    found = rehearsed(planned(), workload(200))
    assert found.phase is Phase.CANARY and not found.decided
    assert found.finding == f"{found.observed[True]} of 100 requests of the canary at this step"
    assert sum(found.observed) == 200


def test_a_step_that_takes_too_long_is_left_to_people() -> None:
    found = rehearsed(planned(text=CONFIG.replace("max_step_s = 1000", "max_step_s = 3")), workload(400))
    assert found.phase is Phase.INCONCLUSIVE and found.moves[-1].verb == "give_up"
    assert found.ended_s == pytest.approx(3.0, abs=0.3)


def test_it_begins_when_it_is_told_to() -> None:
    found = rehearsed(planned(starts_s=5.0), workload(200))
    assert found.moves[0].at_s == 5.0
    assert sum(found.observed) < 150 < sum(found.assigned.values())
    with pytest.raises(NothingArrives, match="after all of the trace: begin before"):
        rehearsed(planned(starts_s=1e6), workload(20))


def test_requests_that_no_replica_holds() -> None:
    long = Session(0.0, [Call(Prompt((), 40_000, 16), 1)])
    with pytest.raises(NothingArrives, match="see --profile"):
        rehearsed(planned(), Workload("long", [long], 16))
    work = workload(30)
    found = rehearsed(planned(), replace(work, sessions=[long, *work.sessions]))
    assert found.left_out == 1 and sum(found.observed) == 30


def test_a_session_stays_on_its_version_unless_requests_are_split() -> None:
    by_session = rehearsed(planned(), workload(50, calls=4))
    by_request = rehearsed(
        planned(text=CONFIG.replace('stable = "v1"', 'stable = "v1"\nsplit_by = "request"')),
        workload(50, calls=4),
    )
    assert sum(by_session.observed) == sum(by_request.observed) == 200
    assert by_session.observed[True] % 4 == 0
    ratio = next(one for one in by_request.evidence if one.metric == "sample_ratio")
    assert ratio.canary_n + ratio.stable_n == 200
    ratio = next(one for one in by_session.evidence if one.metric == "sample_ratio")
    assert ratio.canary_n + ratio.stable_n == 50


def test_sessions_without_names_are_told_apart() -> None:
    found = rehearsed(planned(), workload(300, named=False))
    assert 0 < found.observed[True] < 300


def test_a_version_of_the_split_keeps_its_share() -> None:
    found = rehearsed(planned(text=CONFIG + V3 + SPLIT), workload(400))
    assert found.moves[0].weights == {"v1": 60, "v2": 15, "v3": 25}
    assert found.assigned["v3"] == pytest.approx(100, abs=40)
    assert sum(found.observed) == 400 - found.assigned["v3"], "it is not compared"


def test_faults_strike_stable_the_canary_and_workers() -> None:
    """Replicas are counted over both versions; a worker that dies takes requests of both with it."""
    faults = ("restart@3:2", "slow@3:0", "crash@4:0")
    plan = replace(PLAN, faults=faults, workers=2)
    found = rehearsed(planned(plan=plan), workload(300))
    assert sum(found.errors.values()) > 0, "of the worker's clients"
    assert max(one.dispatched_at for one in found.results[1].served if one.replica == "v2-1") < 3
    assert max(one.dispatched_at for one in found.results[1].served if one.replica == "v2-2") > 3
    with pytest.raises(ValueError, match="there is no number 4"):
        planned(plan=replace(PLAN, faults=("restart@3:4",)))


@pytest.mark.parametrize(
    ("target", "text", "complaint"),
    [
        ("v2", CONFIG, "MODEL@VERSION is expected, such as llama-8b@v2"),
        ("mm@v2", CONFIG, "there is no model 'mm'; did you mean 'm'?"),
        ("m@v9", CONFIG, "there is no version 'v9'; there are: v1, v2"),
        ("m@v1", CONFIG, "v1 is stable already"),
        ("m@v3", CONFIG + V3 + SPLIT, "v3 has a share of its own in `split`: remove it there first"),
        ("m@v2", CONFIG[: CONFIG.index("[models.m.canary]")], "has no [models.m.canary] table"),
    ],
)  # fmt: skip
def test_what_cannot_be_released_is_said(target: str, text: str, complaint: str) -> None:
    with pytest.raises(ValueError) as raised:
        planned(text=text, target=target)
    assert complaint in str(raised.value)
