"""What a finished request says of a release: an event becomes an observation, or nothing."""

from hashlib import blake2b
from typing import Final

from policies.outcome import Ending
from policies.release.observation import Bad, Observation
from router.fleet.routes import Arm
from router.observe.events import Finished

_OF_FINISH: Final = {"length": Bad.LENGTH, "content_filter": Bad.CONTENT_FILTER}
_BROKEN: Final = frozenset({Ending.FAILED.word, Ending.CLIENT_ERROR.word})
_NEVER_ASKED: Final = ""
_SAYS_NOTHING: Final = frozenset({Ending.SATURATED.word, _NEVER_ASKED})
_SIGNS: Final = {
    Ending.TIMED_OUT.word: frozenset({Bad.TIMEOUT}),
    Ending.CLIENT_LEFT.word: frozenset({Bad.CLIENT_LEFT}),
    Ending.SATURATED.word: None,
}
_TIMEOUTS: Final = frozenset({"first_token_timeout", "total_timeout"})


def observation_of(event: Finished) -> Observation | None:
    """None for what no release compares, and for what says nothing of a version: a full fleet, a limit."""
    arm = event.arm
    if arm is None:
        return None
    bad = _bad(event, arm)
    if bad is None:
        return None
    # Who answered in another's place says nothing of how fast that one is.
    own = event.version == arm.version and len(event.attempts) <= 1
    usage = event.usage if own else None
    gaps = sum(event.gaps)
    return Observation(
        canary=arm.canary,
        share=arm.share,
        at=event.at,
        unit=_hash(event.unit),
        tenant=_hash(event.tenant),
        ordinal=event.ordinal,
        bad=bad,
        time_to_first_token_s=event.time_to_first_token_s if own and event.stream else None,
        inter_token_s=event.gap_sum_s / gaps if own and gaps else None,
        prompt_tokens=None if usage is None else usage.prompt_tokens,
        cached_tokens=None if usage is None else usage.cached_tokens,
        completion_tokens=None if usage is None else usage.completion_tokens,
    )


def _bad(event: Finished, arm: Arm) -> frozenset[Bad] | None:
    """Judged by the first attempt: what was repaired by another was a failure all the same."""
    ending = event.attempts[0].ending if event.attempts else _NEVER_ASKED
    if ending in _SAYS_NOTHING and event.outcome != "no_healthy_replica" and event.version == arm.version:
        return None
    if ending in _SIGNS:
        return _SIGNS[ending]
    if event.version != arm.version or ending == _NEVER_ASKED:
        # Another version answered: this one failed, or had no replica that could be asked.
        return frozenset({Bad.ERROR})
    if ending in _BROKEN:
        begun = len(event.attempts) == 1 and event.status == 200
        return frozenset({Bad.STREAM_ERROR if begun else Bad.ERROR})
    return _of_answer(event)


def _of_answer(event: Finished) -> frozenset[Bad]:
    if event.outcome in _TIMEOUTS:
        return frozenset({Bad.TIMEOUT})
    bad = set(event.signs)
    if event.finish_reason in _OF_FINISH:
        bad.add(_OF_FINISH[event.finish_reason])
    if event.usage is not None and event.usage.completion_tokens == 0:
        bad.add(Bad.EMPTY)
    return frozenset(bad)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
