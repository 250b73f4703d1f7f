"""The life of a release: every move of the table, every other refused, and invariants over random lives."""

import itertools
from dataclasses import replace
from random import Random

import pytest

from policies.release.lifecycle import MOVES, Command, Ground, Phase, Refused, Release, Verb, moved
from policies.release.split import WHOLE, Split

STEPS = (1.0, 5.0, 25.0, 50.0, 100.0)
GROUND = Ground(STEPS, {"v1", "v2", "v3"}, {"v1", "v2", "v3"})
IDLE = Release(stable="v1", declared="v1")
STARTED = moved(IDLE, Command(verb=Verb.START, at=1.0, version="v2", salt="s"), GROUND)


def after(*verbs: Verb, release: Release = IDLE) -> Release:
    for at, verb in enumerate(verbs):
        version = "v2" if verb is Verb.START else None
        release = moved(release, Command(verb=verb, at=at, version=version, share=777), GROUND)
    return release


def test_a_release_climbs_its_steps_and_is_promoted() -> None:
    release, shares = STARTED, [STARTED.share]
    for at in range(4):
        release = moved(release, Command(verb=Verb.STEP, at=10.0 + at), GROUND)
        shares.append(release.share)
    assert shares == [100, 500, 2500, 5000, WHOLE]
    with pytest.raises(Refused, match="v2 has all of it: promote it"):
        moved(release, Command(verb=Verb.STEP, at=20.0), GROUND)
    done = moved(release, Command(verb=Verb.PROMOTE, at=20.0), GROUND)
    assert (done.stable, done.previous, done.ramp, done.phase) == ("v2", "v1", None, Phase.PROMOTED)
    assert done.generation == 6
    back = moved(done, Command(verb=Verb.ROLL_BACK, at=30.0), GROUND)
    assert (back.stable, back.ramp, back.quarantined) == ("v1", None, ("v2",))


PATHS = {
    Phase.IDLE: (),
    Phase.CANARY: (Verb.START,),
    Phase.PAUSED: (Verb.START, Verb.PAUSE),
    Phase.INCONCLUSIVE: (Verb.START, Verb.GIVE_UP),
    Phase.PROMOTED: (Verb.START, Verb.PROMOTE),
    Phase.ROLLED_BACK: (Verb.START, Verb.ROLL_BACK),
}


@pytest.mark.parametrize(("phase", "verb"), list(itertools.product(Phase, Verb)))
def test_what_is_not_in_the_table_is_refused(phase: Phase, verb: Verb) -> None:
    """And what is there leads to where it says; a quarantined version starts by force only."""
    release = after(*PATHS[phase])
    assert release.phase is phase
    version = {Phase.PROMOTED: "v1"}.get(phase, "v2") if verb is Verb.START else None
    command = Command(
        verb=verb, at=9.0, version=version, share=None if verb is Verb.START else 50, force=True
    )
    if (phase, verb) == (Phase.CANARY, Verb.RESUME):
        with pytest.raises(Refused, match="it goes on already"):
            moved(release, command, GROUND)
    elif phase in MOVES[verb]:
        result = moved(release, command, GROUND)
        assert result.phase is MOVES[verb][phase]
        assert result.generation == release.generation + 1
    else:
        with pytest.raises(Refused):
            moved(release, command, GROUND)


@pytest.mark.parametrize(
    ("command", "ground", "why"),
    [
        ({"version": "v9"}, GROUND, "there is no version 'v9'; there are: v1, v2, v3"),
        ({"version": None}, GROUND, "there is no version None"),
        ({"version": "v1"}, GROUND, "v1 is stable already"),
        ({"version": "v2"}, replace(GROUND, ready={"v1"}), "v2 has no replica that is ready; `--force`"),
        ({"version": "v2"}, replace(GROUND, split={"v2"}), "v2 has a share of its own in `split`"),
    ],
)
def test_a_start_that_cannot_be(command: dict[str, str], ground: Ground, why: str) -> None:
    with pytest.raises(Refused, match=why):
        moved(IDLE, Command(verb=Verb.START, at=0.0, **command), ground)  # type: ignore[arg-type]


def test_a_version_that_was_rolled_back_starts_by_force_only() -> None:
    release = after(Verb.START, Verb.ROLL_BACK)
    start = Command(verb=Verb.START, at=1.0, version="v2")
    with pytest.raises(Refused, match="v2 was rolled back and is quarantined; `--force`"):
        moved(release, start, GROUND)
    assert moved(release, replace(start, force=True), GROUND).quarantined == ()
    assert moved(release, replace(start, version="v3"), GROUND).quarantined == ("v2",)


def test_a_share_set_by_hand_is_left_alone_until_it_resumes() -> None:
    release = moved(STARTED, Command(verb=Verb.WEIGHT, at=2.0, share=3000), GROUND)
    assert (release.share, release.step, release.manual) == (3000, None, True)
    release = moved(release, Command(verb=Verb.PAUSE, at=3.0), GROUND)
    release = moved(release, Command(verb=Verb.RESUME, at=4.0), GROUND)
    assert (release.share, release.step, release.manual) == (3000, 2, False)
    assert moved(release, Command(verb=Verb.STEP, at=5.0), GROUND).share == 5000


def test_the_release_of_another_version_is_not_touched() -> None:
    with pytest.raises(Refused, match="the release under way is of v2, not of v3"):
        moved(STARTED, Command(verb=Verb.ROLL_BACK, at=2.0, version="v3"), GROUND)


def test_the_way_back_is_refused_where_it_has_gone() -> None:
    done = after(Verb.START, Verb.PROMOTE)
    with pytest.raises(Refused, match="v1, which was stable before, is not there any more"):
        moved(done, Command(verb=Verb.ROLL_BACK, at=3.0), replace(GROUND, versions={"v2", "v3"}))


@pytest.mark.parametrize("seed", range(8))
def test_invariants_hold_over_random_lives(seed: int) -> None:
    """One stable version that exists, weights that add up, shares of a step or of a person, numbers that rise."""
    random, release, made = Random(seed), IDLE, 0
    for at in range(2500):
        ready = {version for version in GROUND.versions if random.random() < 0.8}
        command = Command(
            verb=random.choice(list(Verb)),
            at=float(at),
            version=random.choice(["v1", "v2", "v3", None]),
            share=random.choice([None, random.randrange(WHOLE + 1)]),
            manual=random.random() < 0.2,
            force=random.random() < 0.3,
            salt=str(at),
        )
        try:
            after = moved(release, command, replace(GROUND, ready=ready))
        except Refused as refusal:
            assert str(refusal)
            continue
        assert after.generation == release.generation + 1
        assert after.stable in GROUND.versions
        if after.stable != release.stable:
            assert command.verb in (Verb.PROMOTE, Verb.ROLL_BACK)
            assert command.verb is Verb.ROLL_BACK or command.force or after.stable in ready
        assert sum(Split("m", after.stable, {"v1": 1.0, "v9": 1.0}, after.ramp).weights.values()) == WHOLE
        assert (after.ramp is None) != after.under_way
        assert after.step is None or after.share >= STEPS[after.step] * 100
        release, made = after, made + 1
    assert made > 100
