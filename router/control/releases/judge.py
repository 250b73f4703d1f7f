"""One release and its evidence: what the analysis makes of it, and the move that follows."""

import logging
from typing import Final

import msgspec

from policies.release.canary import Analysis, CanaryOptions, Kind, Snapshot, Verdict
from policies.release.lifecycle import Command, Phase, Release, Verb, next_step
from policies.release.margins import Margins
from policies.release.observation import Observation
from router.config.model import CanaryConfig, ModelConfig
from router.control.releases.records import Evidence, percent_of

log = logging.getLogger("turnout.releases")

MISSED: Final = 3
"""Evaluations in a row that failed, and the release is paused."""


class Judge:
    """Of one release, known by its salt. `kept` is what another one of the same release had found out."""

    def __init__(self, model: ModelConfig, release: Release, now: float, kept: bytes | None = None) -> None:
        self.salt = release.salt
        self._steps = (model.canary or CanaryConfig()).steps
        self._analysis = Analysis(options_of(model))
        self._step_at: float | None = None
        self._missed = 0
        self.verdict: Verdict | None = None
        if kept is not None:
            self._restore(kept)
        self._follow(release, now)

    def observe(self, observation: Observation) -> None:
        self._analysis.observe(observation)

    def decide(self, release: Release, now: float) -> tuple[Command, str] | None:
        """The next move and its reason; None: it stays as it is. Failed evaluations never move it up."""
        self._follow(release, now)
        try:
            self.verdict = verdict = self._analysis.verdict(now)
        except Exception:
            log.exception("the evidence for %s cannot be evaluated", release.canary)
            return self._missed_one(release, now)
        self._missed = 0
        verb = None if release.manual else self._verb(release, verdict.kind)
        return None if verb is None else (Command(verb=verb, at=now), verdict.reason)

    def _verb(self, release: Release, kind: Kind) -> Verb | None:
        if kind is Kind.ROLLBACK:
            return Verb.ROLL_BACK
        if release.phase is not Phase.CANARY or kind is Kind.HOLD:
            return None
        if kind is Kind.INCONCLUSIVE:
            return Verb.GIVE_UP
        return Verb.PROMOTE if next_step(release.share, self._steps) is None else Verb.STEP

    def evidence(self) -> tuple[Evidence, ...]:
        """Of the last evaluation."""
        found = () if self.verdict is None else self.verdict.evidence
        return tuple(
            Evidence(
                metric=one.metric,
                log_e=one.log_e,
                threshold=one.threshold,
                canary_n=one.canary_n,
                stable_n=one.stable_n,
                canary=one.canary_value,
                stable=one.stable_value,
            )
            for one in found
        )

    def keep(self) -> bytes:
        """For the next one."""
        return msgspec.json.encode((self.salt, self._step_at, self._analysis.snapshot()))

    def _follow(self, release: Release, now: float) -> None:
        if release.step_at != self._step_at:
            self._step_at = release.step_at
            self._analysis.begin_step(percent_of(release), now)

    def _missed_one(self, release: Release, now: float) -> tuple[Command, str] | None:
        self._missed += 1
        if self._missed < MISSED or release.phase is not Phase.CANARY:
            return None
        return Command(
            verb=Verb.PAUSE, at=now
        ), f"the evidence could not be evaluated {MISSED} times in a row"

    def _restore(self, kept: bytes) -> None:
        """What cannot be read, or is of another release, is left: the evidence is gathered anew."""
        try:
            salt, step_at, snapshot = msgspec.json.decode(kept, type=tuple[str, float | None, Snapshot])
            if salt == self.salt:
                self._analysis.restore(snapshot)
                self._step_at = step_at
        except ValueError as error:
            log.warning("evidence that was kept cannot be used (%s): it is gathered anew", error)


def options_of(model: ModelConfig) -> CanaryOptions:
    canary = model.canary or CanaryConfig()
    return CanaryOptions(
        steps=canary.steps,
        min_requests=canary.min_requests,
        max_step_s=canary.max_step_s,
        false_rollback=canary.false_rollback,
        margins=Margins(
            error=canary.margins.error,
            ttft_ratio=canary.margins.ttft_ratio,
            inter_token_ratio=canary.margins.inter_token_ratio,
        ),
        per_tenant=model.split_by == "api_key",
    )
