"""What a stored release means for a configuration that may have changed since, and what each version is.

A reload adds and removes versions and may name another stable; it never undoes a release silently. Where the
two disagree the release stands as long as its versions exist, and a sentence says so.
"""

import enum
from collections.abc import Collection
from dataclasses import dataclass, replace

from policies.release.lifecycle import Phase, Release


class VersionState(enum.Enum):
    """Where a version is in its life."""

    VERIFY_FAILED = "verify_failed"
    """Some replica serves something else than was expected, and none is ready."""
    WARMING = "warming"
    """No replica is ready yet."""
    READY = "ready"
    """It could get traffic, and has none but from those who ask for it."""
    SPLIT = "split"
    CANARY = "canary"
    PAUSED = "paused"
    INCONCLUSIVE = "inconclusive"
    STABLE = "stable"
    DEPRECATED = "deprecated"
    """It was stable before the last promotion, and is kept for the way back."""
    QUARANTINED = "quarantined"
    """It was rolled back."""


_OF_CANARY = {
    Phase.CANARY: VersionState.CANARY,
    Phase.PAUSED: VersionState.PAUSED,
    Phase.INCONCLUSIVE: VersionState.INCONCLUSIVE,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """A release as it is in force, and what disagrees with the configuration."""

    release: Release
    warnings: tuple[str, ...] = ()


def standing(release: Release | None, declared: str, versions: Collection[str]) -> Standing:
    """`declared` is the configuration's stable, `versions` are those that it has."""
    if release is None:
        return Standing(Release(stable=declared, declared=declared))
    if release.stable not in versions:
        text = f"{release.stable}, which a release made stable, is not there any more: {declared} is stable"
        lost = release.canary if release.canary in versions and release.canary != declared else None
        phase = release.phase if lost is not None and release.under_way else Phase.IDLE
        return Standing(replace(release, stable=declared, previous=None, canary=lost, phase=phase), (text,))
    warnings: tuple[str, ...] = ()
    if declared not in (release.stable, release.declared):
        warnings = (f"the configuration says that {declared} is stable; by its release {release.stable} is",)
    if release.under_way and release.canary not in versions:
        warnings += (f"the canary {release.canary} is not there any more: roll it back",)
        release = replace(release, share=0)
    return Standing(release, warnings)


def state_of(
    version: str, release: Release, *, ready: bool, mismatched: bool = False, split: bool = False
) -> VersionState:
    """`ready`: one of its replicas is. `mismatched`: one serves something else. `split`: it has a share."""
    if version == release.stable:
        return VersionState.STABLE
    if not ready:
        return VersionState.VERIFY_FAILED if mismatched else VersionState.WARMING
    if version == release.canary and release.under_way:
        return _OF_CANARY[release.phase]
    if split:
        return VersionState.SPLIT
    if version in release.quarantined:
        return VersionState.QUARANTINED
    return VersionState.DEPRECATED if version == release.previous else VersionState.READY
