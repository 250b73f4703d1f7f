"""The options of who may call, and how much."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Literal

from policies.limits.gcra import Rate
from policies.limits.priority import Priority
from router.config import checks
from router.config.option import option, section
from router.config.scalars import nearest
from router.config.source import KeyPath

# Within these a bucket's microseconds, a hundred thousand tokens of debt included, are exact in Redis (2^53),
# and its size is a number that a header can tell (10^15).
_PER_MINUTE = checks.between(0.001, 1_000_000_000)
_BURST_S = checks.between(0.001, 366 * 24 * 3600)

Subject = Literal["tenant", "api_key", "user", "model", "version"]


@section
class KeyConfig:
    """`[[keys]]`: one client key. No keys at all: everyone may call."""

    id: str = option("Its name in logs and limits; never secret.", checks.label, example="team-search-1")
    digest: str = option(
        "The key's digest; `turnout keys new` prints this entry.", checks.digest, example=f"sha256:{'0' * 64}"
    )
    tenant: str = option("Whom its use is counted for.", checks.label, example="search")
    models: tuple[str, ...] | None = option(
        "Models it may use; absent: all.", default=None, example=["llama-8b"]
    )
    priority: Priority = option(
        "Who is served first when the fleet is full: 'high', then 'normal', then 'low'.", default="normal"
    )
    expires: datetime | None = option(
        "When it stops being valid, with its offset from UTC; absent: never.",
        default=None,
        example=datetime(2030, 1, 1, tzinfo=UTC),
    )


@section
class LimitConfig:
    """`[[limits]]`: how much may be used, counted separately for each `per`."""

    name: str = option("Its name in answers and metrics.", checks.label, example="per-tenant")
    per: tuple[Subject, ...] = option(
        "What has a budget of its own: each tenant, api_key, user, model, version; [] is one budget for all.",
        default=(),
        example=["tenant", "model"],
    )
    match: Mapping[Subject, str] = option(
        "Whom it applies to; absent: everyone.", default_factory=dict, example={"tenant": "search"}
    )
    requests_per_minute: float | None = option(
        "Requests started in a minute.", _PER_MINUTE, default=None, example=600
    )
    tokens_per_minute: float | None = option(
        "Prompt and completion tokens, reserved before the request and settled after it.",
        _PER_MINUTE,
        default=None,
        example=200_000,
    )
    burst_s: float = option("How much of it may be used at once, in seconds' worth.", _BURST_S, default=60.0)
    concurrency: int | None = option(
        "Requests open at a time.", checks.between(1, 1_000_000), default=None, example=64
    )
    output_reserve: Literal["expected", "strict", "post"] = option(
        "Completion tokens reserved before: those 'expected', the most possible ('strict'), none ('post').",
        default="expected",
    )
    cached_weight: float = option(
        "What a cached prompt token counts: 1 in full, 0 nothing; lower it to reward prompts that repeat.",
        checks.between(0, 1),
        default=1.0,
    )
    stream_overrun: Literal["debt", "stop"] = option(
        "A stream that outgrows its reserve when nothing is left: runs into 'debt', or is ended: 'stop'.",
        default="debt",
    )


def limit_mistakes(limit: LimitConfig) -> Iterator[tuple[KeyPath, str]]:
    """What makes a limit useless: where in it, and what would be right."""
    if limit.requests_per_minute is limit.tokens_per_minute is limit.concurrency is None:
        yield (), "limits nothing; write requests_per_minute, tokens_per_minute or concurrency"
    for name in ("requests_per_minute", "tokens_per_minute"):
        per_minute = getattr(limit, name)
        if per_minute and limit.burst_s and Rate(per_minute, limit.burst_s).capacity < 1:
            text = f"is too short for {name} = {per_minute:g}: a full bucket holds less than one"
            yield ("burst_s",), f"{text}; write at least {ceil(60 / per_minute)}"


def match_mistakes(
    limit: LimitConfig, known: Mapping[Subject, Sequence[str]]
) -> Iterator[tuple[KeyPath, str]]:
    """Where it is for somebody that is not there, and so counts nothing. Where nobody is known all may be."""
    for subject, names in known.items():
        wanted = limit.match.get(subject)
        if wanted and names and wanted not in names:
            noun = subject.removeprefix("api_")
            yield ("match", subject), f"there is no {noun} {wanted!r}; {nearest(wanted, sorted(set(names)))}"
