from collections import Counter, deque
from dataclasses import MISSING, FrozenInstanceError, fields
from random import Random

import pytest

from policies.outcome import Ending, Outcome
from policies.routing import POLICIES
from policies.routing.events import Dispatched, Done, Event, FirstToken, Forgotten
from policies.routing.policy import Policy
from tests.support.routing import NOW, FakeReplica, FakeRequest, prompt_of, replicas

EVERY_KIND = pytest.mark.parametrize("kind", sorted(POLICIES))


def build(kind: str, seed: int = 7) -> Policy:
    return POLICIES[kind](POLICIES[kind].Options(), Random(seed))


def some_request(rng: Random) -> FakeRequest:
    text = "".join(rng.choices("ab", k=rng.randrange(6)))
    return FakeRequest(
        rng.choice([None, f"session-{rng.randrange(500)}"]), rng.choice([None, prompt_of(text)])
    )


def choices(policy: Policy, seed: int, times: int, *, weighing: bool = False) -> list[str]:
    """What comes out of a fleet whose load and membership change between any two choices."""
    rng = Random(seed)
    fleet = replicas(1, 1, 2, 0.5, 4, 1)
    chosen = []
    for ticket in range(times):
        for replica in fleet:
            replica.in_flight = rng.randrange(8)
        candidates = rng.sample(fleet, rng.randint(1, len(fleet)))
        request = some_request(rng)
        if weighing:
            weighed = policy.weigh(request, candidates, NOW + ticket)
            assert [each.replica for each in weighed] == [replica.id for replica in candidates]
        choice = policy.choose(request, candidates, NOW + ticket)
        assert any(choice is candidate for candidate in candidates)
        chosen.append(choice.id)
        for event in life(request, choice.id, ticket, rng):
            policy.observe(event)
    return chosen


def life(request: FakeRequest, replica: str, ticket: int, rng: Random) -> list[Event]:
    """What is told of a request: in its order or not, some of it twice and some never."""
    at = NOW + ticket
    outcome = Outcome(Ending.COMPLETED, at, at + 1, at + 2, 32, 16, 20)
    events: list[Event] = [
        Dispatched(replica, ticket, at, request.prompt),
        FirstToken(replica, ticket, at + 1),
        Done(replica, ticket, at + 2, rng.choice([None, outcome])),
        Forgotten(replica, at + 3),
    ]
    return rng.choices(events, weights=(6, 4, 4, 1), k=rng.randint(0, 4))


@EVERY_KIND
def test_the_choice_is_one_of_the_candidates(kind: str) -> None:
    """The object itself comes back, whatever the load and whoever came or left since the last choice."""
    assert len(choices(build(kind), seed=1, times=2_000)) == 2_000


@EVERY_KIND
def test_a_lone_candidate_is_chosen(kind: str) -> None:
    """However busy it is."""
    policy = build(kind)
    alone = FakeReplica("alone", weight=0.1, in_flight=1_000)
    for session in (None, "a", "b"):
        assert policy.choose(FakeRequest(session), [alone], NOW) is alone


@EVERY_KIND
def test_equal_seeds_give_equal_choices(kind: str) -> None:
    """All chance comes from the generator that was handed in, so a simulation can be repeated."""
    assert choices(build(kind, 11), seed=2, times=1_000) == choices(build(kind, 11), seed=2, times=1_000)


@EVERY_KIND
def test_candidates_are_left_as_they_were(kind: str) -> None:
    """A policy decides; leasing is somebody else's."""
    fleet = replicas(1, 2, 3)
    for replica, in_flight in zip(fleet, (3, 1, 2), strict=True):
        replica.in_flight = in_flight
    before = [(replica.id, replica.weight, replica.in_flight) for replica in fleet]
    policy = build(kind)
    for session in (None, "a", "b", "c"):
        policy.choose(FakeRequest(session), fleet, NOW)
    assert [(replica.id, replica.weight, replica.in_flight) for replica in fleet] == before


@EVERY_KIND
def test_to_weigh_changes_nothing(kind: str) -> None:
    """Each candidate is weighed, in its order, and choices are those of a policy that was never asked why."""
    asked = choices(build(kind, 5), seed=4, times=1_000, weighing=True)
    assert asked == choices(build(kind, 5), seed=4, times=1_000)


@EVERY_KIND
def test_no_replica_starves(kind: str) -> None:
    """Under steady traffic each of eight gets its share, between a half and two times of it."""
    policy = build(kind)
    rng = Random(3)
    fleet = replicas(*[1.0] * 8)
    running: deque[FakeReplica] = deque()
    counts: Counter[str] = Counter()
    for number in range(10_000):
        if len(running) == 40:
            finished = running[0] if number % 2 else running[rng.randrange(len(running))]
            running.remove(finished)
            finished.in_flight -= 1
        chosen = policy.choose(FakeRequest(f"session-{rng.randrange(2_000)}"), fleet, NOW)
        chosen.in_flight += 1
        running.append(chosen)
        counts[chosen.id] += 1
    assert min(counts[replica.id] for replica in fleet) > 10_000 / 8 / 2
    assert max(counts.values()) < 10_000 / 8 * 2


@EVERY_KIND
def test_a_newcomer_gets_its_share(kind: str) -> None:
    """Neither left out nor flooded when it joins a fleet that has long been at work."""
    policy = build(kind)
    fleet = replicas(*[1.0] * 8)
    for number in range(5_000):
        policy.choose(FakeRequest(f"session-{number}"), fleet[:7], NOW)
    counts = Counter(
        policy.choose(FakeRequest(f"session-{number}"), fleet, NOW).id for number in range(2_000)
    )
    assert 150 < counts[fleet[7].id] < 350


@EVERY_KIND
def test_options_are_frozen_and_explained(kind: str) -> None:
    """Each option has a default, and one line of advice where it is declared."""
    options = POLICIES[kind].Options()
    for option in fields(options):
        assert option.kw_only
        assert option.default is not MISSING or option.default_factory is not MISSING
        advice = option.metadata["advice"]
        assert advice.endswith(".")
        assert "\n" not in advice
        with pytest.raises(FrozenInstanceError):
            setattr(options, option.name, getattr(options, option.name))
