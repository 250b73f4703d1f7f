"""The life of a release as a table: what may follow what, and what each move does to the traffic.

A release replaces the stable version of one model. Its state says where traffic is; the configuration says
what exists. Every state is a value with a number; a move makes the next one, and whoever stores it compares
the number, so that of two who move at once one is refused. At any time exactly one version is stable, and
what it and the canary get together is what stable would get alone.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from policies.release.split import WHOLE, Ramp


class Phase(enum.Enum):
    """Where a release is."""

    IDLE = "idle"
    """There was none yet, or it is over and forgotten."""
    CANARY = "canary"
    PAUSED = "paused"
    INCONCLUSIVE = "inconclusive"
    """A step took its longest time, and the evidence is not enough: a person has to decide."""
    PROMOTED = "promoted"
    """The canary is stable; the version before it is kept for a way back."""
    ROLLED_BACK = "rolled_back"


class Verb(enum.Enum):
    """What can be done to a release."""

    START = "start"
    STEP = "step"
    WEIGHT = "weight"
    PAUSE = "pause"
    RESUME = "resume"
    GIVE_UP = "give_up"
    """End a step without a decision."""
    PROMOTE = "promote"
    ROLL_BACK = "rollback"


UNDER_WAY: Final = frozenset({Phase.CANARY, Phase.PAUSED, Phase.INCONCLUSIVE})
"""There is a canary, and it may have traffic."""

MOVES: Final[Mapping[Verb, Mapping[Phase, Phase]]] = {
    Verb.START: dict.fromkeys((Phase.IDLE, Phase.PROMOTED, Phase.ROLLED_BACK), Phase.CANARY),
    Verb.STEP: {Phase.CANARY: Phase.CANARY},
    Verb.WEIGHT: {phase: phase for phase in UNDER_WAY},
    Verb.PAUSE: {Phase.CANARY: Phase.PAUSED},
    Verb.RESUME: dict.fromkeys(UNDER_WAY, Phase.CANARY),
    Verb.GIVE_UP: {Phase.CANARY: Phase.INCONCLUSIVE},
    Verb.PROMOTE: dict.fromkeys(UNDER_WAY, Phase.PROMOTED),
    Verb.ROLL_BACK: dict.fromkeys((*UNDER_WAY, Phase.PROMOTED), Phase.ROLLED_BACK),
}
"""From which phase to which; what is not here is refused."""


class Refused(Exception):
    """A move that cannot be made; its text says why, and what could be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Where the traffic of one model is. Times are wall clock, seconds since the epoch.

    `share` is the canary's, of stable's traffic, in hundredths of a per cent. `step` is its place in the
    configured steps, None where a person has set the share. `manual`: only people move it. `previous` was
    stable before the last promotion. `declared`: what the configuration called stable when this was made.
    """

    stable: str
    declared: str
    generation: int = 0
    phase: Phase = Phase.IDLE
    canary: str | None = None
    previous: str | None = None
    share: int = 0
    step: int | None = None
    manual: bool = False
    salt: str = ""
    started_at: float = 0.0
    step_at: float = 0.0
    quarantined: tuple[str, ...] = ()
    """Versions that were rolled back: they start again only by force."""

    @property
    def under_way(self) -> bool:
        return self.phase in UNDER_WAY

    @property
    def ramp(self) -> Ramp | None:
        """What it means for a split."""
        if self.canary is None or not self.under_way:
            return None
        return Ramp(self.canary, self.share, self.salt.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One wish. `share` is for `weight`, and for `start` instead of the first step. `salt` is fresh chance.

    `force`: also a quarantined version, and one without a ready replica.
    """

    verb: Verb
    at: float
    version: str | None = None
    share: int | None = None
    manual: bool = False
    force: bool = False
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """What a move stands on: the configured steps, the versions that exist, those with a ready replica.

    `split` are the versions that have a share of their own.
    """

    steps: Sequence[float]
    versions: Collection[str]
    ready: Collection[str]
    split: Collection[str] = field(default=())


def moved(release: Release, command: Command, ground: Ground) -> Release:
    """The state after `command`. Raises `Refused`."""
    phase = MOVES[command.verb].get(release.phase)
    if phase is None:
        raise Refused(_why_not(release, command.verb))
    if command.version is not None and command.verb is not Verb.START and command.version != release.canary:
        raise Refused(f"the release under way is of {release.canary}, not of {command.version}")
    after = _EFFECTS[command.verb](release, command, ground)
    return replace(after, phase=phase, generation=release.generation + 1)


def _why_not(release: Release, verb: Verb) -> str:
    if verb is Verb.START:
        return f"a release of {release.canary} is under way: promote it or roll it back first"
    if release.phase is Phase.PROMOTED and verb is Verb.PROMOTE:
        return f"{release.stable} is promoted already"
    if not release.under_way:
        return f"no release is under way (it is {release.phase.value}); begin with `start`"
    return f"a release that is {release.phase.value} cannot {verb.value.replace('_', ' ')}"


# ---- what each verb does ----


def _start(release: Release, command: Command, ground: Ground) -> Release:
    version = command.version
    if version is None or version not in ground.versions:
        there = ", ".join(sorted(ground.versions))
        raise Refused(f"there is no version {version!r}; there are: {there}")
    if version == release.stable:
        raise Refused(f"{version} is stable already")
    if version in ground.split:
        raise Refused(f"{version} has a share of its own in `split`: remove it there first")
    if version in release.quarantined and not command.force:
        raise Refused(f"{version} was rolled back and is quarantined; `--force` releases it all the same")
    _must_be_ready(version, command, ground)
    share, step = (_share_of(ground.steps[0]), 0) if command.share is None else (command.share, None)
    return Release(
        stable=release.stable,
        declared=release.declared,
        generation=release.generation,
        canary=version,
        share=share,
        step=step,
        manual=command.manual,
        salt=command.salt,
        started_at=command.at,
        step_at=command.at,
        quarantined=tuple(one for one in release.quarantined if one != version),
    )


def _step(release: Release, command: Command, ground: Ground) -> Release:
    step = next_step(release.share, ground.steps)
    if step is None:
        raise Refused(f"{release.canary} has all of it: promote it")
    return replace(release, share=_share_of(ground.steps[step]), step=step, step_at=command.at)


def _weight(release: Release, command: Command, ground: Ground) -> Release:  # noqa: ARG001
    if command.share is None:
        raise Refused("say which share it is to have, in per cent")
    return replace(release, share=command.share, step=None, manual=True, step_at=command.at)


def _stop(release: Release, command: Command, ground: Ground) -> Release:  # noqa: ARG001
    return release


def _resume(release: Release, command: Command, ground: Ground) -> Release:
    if release.phase is Phase.CANARY and not release.manual:
        raise Refused("it is not paused, and nobody has set its share by hand: it goes on already")
    step = release.step
    if step is None:
        # From a share that a person has set it goes on at the step that it has reached.
        passed = [at for at, percent in enumerate(ground.steps) if _share_of(percent) <= release.share]
        step = passed[-1] if passed else None
    return replace(release, manual=command.manual, step=step, step_at=command.at)


def _promote(release: Release, command: Command, ground: Ground) -> Release:
    assert release.canary is not None
    _must_be_ready(release.canary, command, ground)
    return replace(release, stable=release.canary, previous=release.stable, share=0, step=None)


def _roll_back(release: Release, command: Command, ground: Ground) -> Release:  # noqa: ARG001
    """From a canary, or from the version that was promoted last."""
    bad = release.canary
    stable = release.stable
    if release.phase is Phase.PROMOTED:
        assert release.previous is not None
        if release.previous not in ground.versions:
            raise Refused(f"{release.previous}, which was stable before, is not there any more")
        stable = release.previous
    quarantined = release.quarantined if bad is None else (*release.quarantined, bad)
    return replace(release, stable=stable, previous=None, share=0, step=None, quarantined=quarantined)


_EFFECTS: Final = {
    Verb.START: _start,
    Verb.STEP: _step,
    Verb.WEIGHT: _weight,
    Verb.PAUSE: _stop,
    Verb.RESUME: _resume,
    Verb.GIVE_UP: _stop,
    Verb.PROMOTE: _promote,
    Verb.ROLL_BACK: _roll_back,
}


def next_step(share: int, steps: Sequence[float]) -> int | None:
    """The first step with a greater share; None from all of it on."""
    return next((at for at, percent in enumerate(steps) if _share_of(percent) > share), None)


def _must_be_ready(version: str, command: Command, ground: Ground) -> None:
    if version not in ground.ready and not command.force:
        raise Refused(f"{version} has no replica that is ready; `--force` moves traffic there all the same")


def _share_of(percent: float) -> int:
    return round(percent * WHOLE / 100)
