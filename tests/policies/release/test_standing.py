"""A stored release under a configuration that has changed, and the state of each version."""

import pytest

from policies.release.lifecycle import Phase, Release
from policies.release.standing import VersionState, standing, state_of

RUNNING = Release(stable="v1", declared="v1", phase=Phase.CANARY, canary="v2", share=500, salt="s")
PROMOTED = Release(stable="v2", declared="v1", phase=Phase.PROMOTED, canary="v2", previous="v1")


def test_without_a_release_the_configuration_says_what_is_stable() -> None:
    assert standing(None, "v1", {"v1"}).release == Release(stable="v1", declared="v1")


def test_a_reload_that_agrees_warns_of_nothing() -> None:
    for release, declared in ((RUNNING, "v1"), (PROMOTED, "v1"), (PROMOTED, "v2")):
        assert standing(release, declared, {"v1", "v2"}) == standing(release, release.declared, {"v1", "v2"})
        assert standing(release, declared, {"v1", "v2"}).warnings == ()


def test_a_reload_that_names_another_stable_undoes_nothing() -> None:
    stands = standing(PROMOTED, "v3", {"v1", "v2", "v3"})
    assert stands.release == PROMOTED
    assert stands.warnings == ("the configuration says that v3 is stable; by its release v2 is",)


def test_a_canary_that_is_gone_gets_nothing() -> None:
    stands = standing(RUNNING, "v1", {"v1"})
    assert (stands.release.share, stands.release.under_way) == (0, True)
    assert stands.warnings == ("the canary v2 is not there any more: roll it back",)


@pytest.mark.parametrize(("canary", "phase"), [("v2", Phase.CANARY), ("v9", Phase.IDLE), (None, Phase.IDLE)])
def test_a_stable_that_is_gone_gives_way_to_the_declared_one(canary: str | None, phase: Phase) -> None:
    """A canary that is still there goes on."""
    release = Release(stable="v0", declared="v0", phase=Phase.CANARY, canary=canary, share=500)
    stands = standing(release, "v1", {"v1", "v2"})
    assert (stands.release.stable, stands.release.phase) == ("v1", phase)
    assert "v0, which a release made stable, is not there any more: v1 is stable" in stands.warnings


@pytest.mark.parametrize(
    ("version", "release", "facts", "state"),
    [
        ("v1", RUNNING, {"ready": False}, VersionState.STABLE),
        ("v2", RUNNING, {"ready": True}, VersionState.CANARY),
        ("v2", RUNNING, {"ready": False}, VersionState.WARMING),
        ("v2", RUNNING, {"ready": False, "mismatched": True}, VersionState.VERIFY_FAILED),
        ("v3", RUNNING, {"ready": True}, VersionState.READY),
        ("v3", RUNNING, {"ready": True, "split": True}, VersionState.SPLIT),
        ("v1", PROMOTED, {"ready": True}, VersionState.DEPRECATED),
    ],
)
def test_the_state_of_a_version(
    version: str, release: Release, facts: dict[str, bool], state: VersionState
) -> None:
    assert state_of(version, release, **{"ready": False, **facts}) is state


def test_what_was_rolled_back_is_quarantined() -> None:
    release = Release(stable="v1", declared="v1", phase=Phase.ROLLED_BACK, quarantined=("v2",))
    assert state_of("v2", release, ready=True) is VersionState.QUARANTINED
