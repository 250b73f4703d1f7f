"""What came of copies, counted and read back the way Prometheus reads it."""

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from policies.release.pairs import Answered, Pair
from router.observe.events import Copied
from router.observe.exposition import render
from router.observe.shadow import ShadowCounts, ShadowKey, ShadowMetrics, ShadowTally, summed

SERVED = Answered(status=200, prompt_tokens=10, time_to_first_token_s=0.1)
COPY = Answered(status=200, prompt_tokens=12, time_to_first_token_s=0.2)


def compared(at: float = 1.0, against: str = "v1") -> Copied:
    return Copied("m", against, "v2", "compared", pair=Pair("r", at, SERVED, COPY))


def counted(*events: Copied) -> ShadowCounts:
    counts = ShadowCounts()
    for event in events:
        counts(event)
    return counts


def samples(counts: ShadowCounts) -> dict[tuple[str, ...], float]:
    text = render(ShadowMetrics(lambda: counts.tallies).collect()).decode()
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_results_and_differences_are_counters_by_version() -> None:
    """Whichever version they were compared with."""
    counts = counted(
        Copied("m", "v1", "v2", "sent"),
        compared(),
        compared(against="v3"),
        Copied("m", "v1", "v2", "failed", "x"),
    )
    assert samples(counts) == {
        ("turnout_shadow_requests_total", "m", "sent", "v2"): 1,
        ("turnout_shadow_requests_total", "m", "compared", "v2"): 2,
        ("turnout_shadow_requests_total", "m", "failed", "v2"): 1,
        ("turnout_shadow_differences_total", "prompt_tokens", "m", "v2"): 2,
    }


def test_without_copies_the_names_are_there_and_no_series() -> None:
    counts = counted()
    assert samples(counts) == {}
    text = render(ShadowMetrics(lambda: counts.tallies).collect()).decode()
    assert "# TYPE turnout_shadow_requests_total counter" in text


def test_what_processes_counted_adds_up_after_a_journey() -> None:
    """As it does in one process; what was added stays as it was, so that it can be added again."""
    whole = counted(compared(1), Copied("m", "v1", "v2", "failed", "upstream_reset"), compared(2))
    parts = [counted(compared(1)), counted(Copied("m", "v1", "v2", "failed", "upstream_reset"), compared(2))]
    kind = list[tuple[ShadowKey, ShadowTally]]
    for _ in range(2):
        reports = [
            msgspec.msgpack.decode(msgspec.msgpack.encode(list(part.tallies.items())), type=kind)
            for part in parts
        ]
        sums = summed(reports)
        assert sums == whole.tallies
        assert sums["m", "v1", "v2"].codes.counts == {"upstream_reset": 1}
        summed([sums.items(), *reports])  # type: ignore[list-item]
    assert summed([list(part.tallies.items()) for part in parts]) == whole.tallies
    assert summed([list(part.tallies.items()) for part in parts]) == whole.tallies
