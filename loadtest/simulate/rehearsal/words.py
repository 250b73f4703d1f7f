"""What a rehearsal gave, in sentences and in cells of tables."""

from collections.abc import Sequence
from typing import Final

from loadtest.simulate.rehearsal.defects import in_words
from loadtest.simulate.rehearsal.results import Rehearsed
from policies.release.lifecycle import Phase

_ENDS: Final = {
    Phase.PROMOTED: "is promoted",
    Phase.ROLLED_BACK: "is rolled back",
    Phase.INCONCLUSIVE: "is left to people: the step took its longest time",
    Phase.PAUSED: "is paused",
}
MOVE_HEADINGS: Final = ("at", "move", "share", "requests", "canary's", "because")
EVIDENCE_HEADINGS: Final = ("evidence against it", "so far", "canary", "stable", "canary n", "stable n")


def title_of(one: Rehearsed) -> str:
    return f"{one.model}: {one.version} instead of {one.stable}, {in_words(one.defects)}"


def sentences(one: Rehearsed) -> list[str]:
    """The verdict, how far it came, and what clients noticed."""
    return [_verdict(one), _way(one), _clients(one)]


def _verdict(one: Rehearsed) -> str:
    canary = f"{one.observed[True]:,} requests of its own"
    if one.decided:
        after = f"after {span(one.ended_s - one.starts_s)} and {canary}, at {one.percent:g} %"
        return f"{one.version} {_ENDS[one.phase]} {after}: {one.finding}"
    return (
        f"the trace ends before a decision, {span(one.ended_s - one.starts_s)} after the start, "
        f"at {one.percent:g} % with {canary}; the next move still needs: {one.finding}"
    )


def _way(one: Rehearsed) -> str:
    steps = ", ".join(
        f"{share:g} % at {span(move.at_s)}" for share, move in zip(one.shares, one.moves, strict=False)
    )
    return f"{one.version} had {steps}"


def _clients(one: Rehearsed) -> str:
    seen = sum(one.errors.values())
    whose = f", {one.errors[one.version]:,} of them from {one.version}" if seen else ""
    return (
        f"clients saw {seen:,} errors in {sum(one.assigned.values()):,} requests{whose}; "
        f"{one.stable} answered {one.covered:,} that had failed at {one.version}"
    )


def move_rows(one: Rehearsed) -> list[Sequence[str]]:
    """In the order of `MOVE_HEADINGS`."""
    return [
        (
            span(move.at_s),
            move.verb.replace("_", " "),
            f"{move.weights[one.version]:g} %",
            f"{move.requests:,}",
            f"{move.canary_requests:,}",
            move.reason,
        )
        for move in one.moves
    ]


def evidence_rows(one: Rehearsed) -> list[Sequence[str]]:
    """In the order of `EVIDENCE_HEADINGS`, as `turnout release status` has them."""
    return [
        (
            found.metric,
            f"{max(0.0, found.log_e / found.threshold):.0%}",
            _value(found.canary),
            _value(found.stable),
            f"{found.canary_n:,}",
            f"{found.stable_n:,}",
        )
        for found in one.evidence
    ]


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def span(seconds: float) -> str:
    """`3:07`, `1:02:03`: minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
