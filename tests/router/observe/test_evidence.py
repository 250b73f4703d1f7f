"""What a finished request says of a release: judged by its first attempt, whoever answered in the end."""

from typing import Any

import pytest

from policies.release.observation import Bad
from router.api.request import Usage
from router.fleet.routes import Arm
from router.observe.events import Attempt, Finished
from router.observe.evidence import observation_of

CANARY = Arm("salt", "v2", canary=True, share=0.05)


def tried(*endings: str) -> tuple[Attempt, ...]:
    return tuple(Attempt(f"r{at}", "first", ending, 0.1) for at, ending in enumerate(endings))


def finished(**more: Any) -> Finished:
    given: dict[str, Any] = {
        "at": 7.0, "request_id": "r", "path": "/v1/chat/completions", "model": "m", "version": "v2", "status": 200,
        "outcome": "ok", "duration_s": 1.0, "overhead_s": 0.0, "attempts": tried("completed"), "arm": CANARY,
        "unit": "t\x00s", "tenant": "t", "stream": True, "time_to_first_token_s": 0.2, "finish_reason": "stop",
        "gaps": [0, 4], "gap_sum_s": 0.08, "usage": Usage(100, 5, 64), "ordinal": 9, **more,
    }  # fmt: skip
    return Finished(**given)


def test_a_good_answer() -> None:
    seen = observation_of(finished())
    assert seen is not None
    assert (seen.canary, seen.share, seen.at, seen.ordinal, seen.bad) == (True, 0.05, 7.0, 9, frozenset())
    assert (seen.time_to_first_token_s, seen.inter_token_s) == (0.2, 0.02)
    assert (seen.prompt_tokens, seen.cached_tokens, seen.completion_tokens) == (100, 64, 5)
    again = observation_of(finished(unit="t\x00other"))
    assert again is not None
    assert again.unit != seen.unit
    assert again.tenant == seen.tenant


NOTHING: frozenset[Bad] = frozenset()


@pytest.mark.parametrize(
    ("more", "bad"),
    [
        ({"attempts": tried("failed"), "status": 502, "outcome": "upstream_error"}, {Bad.ERROR}),
        ({"attempts": tried("client_error"), "status": 400, "outcome": "invalid_request"}, {Bad.ERROR}),
        ({"attempts": tried("failed", "completed"), "version": "v1"}, {Bad.ERROR}),
        ({"attempts": tried("timed_out", "completed"), "version": "v1"}, {Bad.TIMEOUT}),
        ({"attempts": tried("completed"), "version": "v1"}, {Bad.ERROR}),
        ({"attempts": tried("failed"), "outcome": "upstream_reset"}, {Bad.STREAM_ERROR}),
        ({"attempts": (), "status": 503, "outcome": "no_healthy_replica"}, {Bad.ERROR}),
        ({"attempts": tried("client_left"), "outcome": "client_left"}, {Bad.CLIENT_LEFT}),
        ({"outcome": "total_timeout", "attempts": tried("client_left")}, {Bad.CLIENT_LEFT}),
        ({"finish_reason": "length"}, {Bad.LENGTH}),
        ({"finish_reason": "content_filter"}, {Bad.CONTENT_FILTER}),
        ({"usage": Usage(9, 0)}, {Bad.EMPTY}),
        ({"signs": frozenset({Bad.TOOL_JSON})}, {Bad.TOOL_JSON}),
    ],
)
def test_what_is_bad(more: dict[str, Any], bad: set[Bad]) -> None:
    seen = observation_of(finished(**more))
    assert seen is not None
    assert seen.bad == bad
    if more.get("version") == "v1":
        assert (seen.time_to_first_token_s, seen.inter_token_s, seen.prompt_tokens) == (None, None, None)


@pytest.mark.parametrize(
    "more",
    [
        {"arm": None},
        {"attempts": tried("saturated"), "outcome": "overloaded", "status": 503},
        {"attempts": (), "outcome": "rate_limit_exceeded", "status": 429},
        {"attempts": (), "outcome": "queue_full", "status": 429},
    ],
)
def test_what_says_nothing_of_a_version(more: dict[str, Any]) -> None:
    assert observation_of(finished(**more)) is None
