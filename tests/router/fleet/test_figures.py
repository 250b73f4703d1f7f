from dataclasses import fields
from math import inf, nan

import pytest

from router.engines.engine import ReplicaLoad
from router.engines.telemetry import TELEMETRY
from router.fleet.figures import Figure, FigureRules, Figures, History, Reading, figures
from router.fleet.own_measurements import OwnMeasurements
from tests.support.wire import recorded

IDLE = OwnMeasurements()
RULES = FigureRules(scrape_period_s=5.0, window_s=15.0)
START = 7_000.0
NAMES = [field.name for field in fields(Figures) if field.name not in ("stale", "restarted")]


def engine(value: float) -> Figure:
    return Figure(pytest.approx(value), "engine")  # type: ignore[arg-type]


def router(value: float) -> Figure:
    return Figure(pytest.approx(value), "router")  # type: ignore[arg-type]


def known(found: Figures) -> dict[str, Figure]:
    return {name: getattr(found, name) for name in NAMES if getattr(found, name) is not None}


def history(*readings: tuple[float, ReplicaLoad | None] | tuple[float, ReplicaLoad | None, OwnMeasurements],
            rules: FigureRules = RULES) -> History:  # fmt: skip
    """Readings at seconds after `START`."""
    past = History()
    for after_s, load, *own in readings:
        past = past.add(Reading(START + after_s, own[0] if own else IDLE, load), rules)
    return past


def edited(content: bytes, *edits: tuple[str, str]) -> bytes:
    """An exposition a little later."""
    for old, new in edits:
        assert old.encode() in content
        content = content.replace(old.encode(), new.encode())
    return content


def test_vllm() -> None:
    """Five seconds apart: 1,000 tokens decoded and 5,000 computed; 6,000 of 8,000 hit; 12 requests waited 3 s."""
    telemetry = TELEMETRY["vllm"](max_running=28)
    first = recorded("vllm/metrics_v0.27.prom")
    second = edited(
        first,
        (" 204800.0", " 205800.0"),
        ('local_compute"} 288768.0', 'local_compute"} 293768.0'),
        (" 612352.0", " 618352.0"),
        (" 918273.0", " 926273.0"),
        (" 61.25", " 64.25"),
        ('time_seconds_count{engine="0",model_name="demo-8b"} 856.0',
         'time_seconds_count{engine="0",model_name="demo-8b"} 868.0'),
    )  # fmt: skip
    past = history((0, telemetry.load_from("/metrics", first)), (5, telemetry.load_from("/metrics", second)))
    found = figures(past, IDLE, START + 6, RULES)
    assert known(found) == {
        "running_requests": engine(7),
        "waiting_requests": engine(2),
        "prefill_tokens_per_s": engine(1_000),
        "decode_tokens_per_s": engine(200),
        "batch_utilisation": engine(0.25),
        "kv_usage_ratio": engine(0.4217687),
        "prefix_hit_ratio": engine(0.75),
        "queue_wait_s": engine(0.25),
    }
    assert not found.stale
    assert not found.restarted


def test_tgi() -> None:
    """Its lump of 3,000 finished tokens in 5 s yields to 4 streams of 25 tokens/s each, which the router sees."""
    rules = FigureRules(scrape_period_s=5.0, lagging=TELEMETRY["tgi"]().lagging)
    telemetry = TELEMETRY["tgi"](kv_capacity_tokens=56_320)
    text = recorded("tgi/metrics.prom")
    later = edited(
        text,
        ("generated_tokens_sum 204800", "generated_tokens_sum 207800"),
        ("input_length_sum 901120", "input_length_sum 903120"),
        ("queue_duration_sum 73.5", "queue_duration_sum 75.5"),
        ("queue_duration_count 851", "queue_duration_count 855"),
    )
    busy = OwnMeasurements(in_flight=4, streamed_tokens=100, completion_tokens=100, streaming_s=4.0)
    past = history(
        (0, telemetry.load_from("/metrics", text), busy), (5, telemetry.load_from("/metrics", later), busy)
    )
    assert known(figures(past, busy, START + 5, rules)) == {
        "running_requests": engine(16),
        "waiting_requests": engine(4),
        "prefill_tokens_per_s": engine(400),
        "decode_tokens_per_s": router(100),
        "batch_utilisation": engine(0.5),
        "kv_usage_ratio": engine(0.5),
        "queue_wait_s": engine(0.5),
    }
    # Traffic of other routers only: the lumps are all there is.
    assert figures(past, IDLE, START + 5, rules).decode_tokens_per_s == engine(600)


def test_trtllm_text() -> None:
    """Gauges that stand still yield to what the router has there; the rest is the engine's."""
    telemetry = TELEMETRY["trtllm"]()
    rules = FigureRules(scrape_period_s=5.0, lagging=telemetry.lagging)
    text = recorded("trtllm/prometheus_2026.prom")
    later = edited(
        text,
        (" 901120.0", " 911120.0"),
        (" 612352.0", " 619352.0"),
        (" 73.5", " 74.5"),
        ('time_seconds_count{engine_type="pytorch",model_name="demo-8b"} 851.0',
         'time_seconds_count{engine_type="pytorch",model_name="demo-8b"} 861.0'),
    )  # fmt: skip
    own = OwnMeasurements(in_flight=12, waiting_for_first_token=3)
    path = telemetry.metrics_paths[0]
    past = history((0, telemetry.load_from(path, text), own), (5, telemetry.load_from(path, later), own))
    assert known(figures(past, own, START + 5, rules)) == {
        "running_requests": router(9),
        "waiting_requests": router(3),
        "prefill_tokens_per_s": engine(600),
        "decode_tokens_per_s": engine(0),
        "batch_utilisation": router(12 / 64),
        "kv_usage_ratio": engine(0.375),
        "prefix_hit_ratio": engine(0.7),
        "queue_wait_s": engine(0.1),
    }
    # Nothing of ours is there: others' requests are known from the engine alone.
    quiet = figures(past, IDLE, START + 5, rules)
    assert quiet.running_requests == engine(7)
    assert quiet.batch_utilisation == engine(7 / 64)


def test_trtllm_records() -> None:
    """Each reading drains two iterations: 512 tokens computed and 13 made, over 5 s."""
    telemetry = TELEMETRY["trtllm"]()
    content = recorded("trtllm/metrics_iteration_stats.json")
    past = history(*((5.0 * n, telemetry.load_from("/metrics", content)) for n in range(3)))
    found = figures(past, IDLE, START + 10, RULES)
    assert found.prefill_tokens_per_s == engine(512 / 5)
    assert found.decode_tokens_per_s == engine(13 / 5)
    assert found.prefix_hit_ratio == engine(0.6125)
    assert not found.restarted


def test_triton() -> None:
    """Requests, cache, GPU and queue are the engine's; tokens, which it does not count, are the router's."""
    telemetry = TELEMETRY["triton"]()
    text = recorded("triton/metrics.prom")
    later = edited(text, (" 48211\n", " 548211\n"), ('version="1"} 851', 'version="1"} 861'))
    before = OwnMeasurements(answers=10, prompt_tokens=1_000, completion_tokens=500)
    after = OwnMeasurements(answers=20, prompt_tokens=6_000, completion_tokens=1_500)
    past = history(
        (0, telemetry.load_from("/metrics", text), before), (5, telemetry.load_from("/metrics", later), after)
    )
    assert known(figures(past, after, START + 5, RULES)) == {
        "running_requests": engine(7),
        "waiting_requests": engine(2),
        "prefill_tokens_per_s": router(1_000),
        "decode_tokens_per_s": router(200),
        "batch_utilisation": engine(7 / 64),
        "gpu_utilisation": engine(0.87),
        "kv_usage_ratio": engine(0.375),
        "queue_wait_s": engine(0.05),
    }


def test_a_silent_engine_is_measured_from_outside() -> None:
    """All by hand, over 10 s: 4 in flight of 16, 400 + 200/2 tokens each in a cache of 8,000."""
    rules = FigureRules(scrape_period_s=5.0, max_running=16, kv_capacity_tokens=8_000)
    before = OwnMeasurements(in_flight=4, waiting_for_first_token=1, answers=10, prompt_tokens=4_000,
                             completion_tokens=2_000, streamed_tokens=2_000, streaming_s=50.0)  # fmt: skip
    now = OwnMeasurements(
        in_flight=4,
        waiting_for_first_token=1,
        answers=15,
        prompt_tokens=6_000,
        completion_tokens=3_000,
        cached_tokens=500,
        cache_told_prompt_tokens=1_000,
        streamed_tokens=3_000,
        streaming_s=70.0,
        first_token_s=2.0,
        first_tokens=5,
    )
    past = history((0, None, before), (5, None, before))
    found = figures(past, now, START + 10, rules)
    assert known(found) == {
        "running_requests": router(3),
        "waiting_requests": router(1),
        "prefill_tokens_per_s": router(150),  # (2,000 - 500) / 10
        "decode_tokens_per_s": router(150),  # three streams of 1,000 tokens / 20 s
        "batch_utilisation": router(0.25),
        "kv_usage_ratio": router(0.25),
        "prefix_hit_ratio": router(0.5),
        "queue_wait_s": router(0.4),
    }
    assert found.stale


def test_streams_are_seen_while_they_run() -> None:
    """Ten long streams, none of which ends: their speed is known from before, so the rate is not zero."""
    before = OwnMeasurements(streamed_tokens=500, completion_tokens=500, streaming_s=10.0)
    now = OwnMeasurements(in_flight=10, streamed_tokens=500, completion_tokens=500, streaming_s=10.0)
    past = history((0, None, before), (1, None, now), (2, None, now))
    # Ten, of which none was there at the first of four moments: 7.5 on average, of 50 tokens/s.
    assert figures(past, now, START + 9, RULES).decode_tokens_per_s == router(375)


def test_prompts_that_nobody_counts_are_no_prefill_of_0() -> None:
    """Streams ended without usage: what was decoded is known from their pieces, what was prefilled is not."""
    ended = OwnMeasurements(
        completion_tokens=40, streamed_tokens=40, streaming_s=2.0, first_token_s=0.5, first_tokens=1
    )
    found = figures(history((0.0, None), (10.0, None, ended)), ended, START + 10.0, RULES)
    assert found.prefill_tokens_per_s is None
    assert found.decode_tokens_per_s is not None


def test_the_first_streams_are_unknown_until_one_ends() -> None:
    """Nothing is known of their speed; zero would be wrong."""
    now = OwnMeasurements(in_flight=2)
    assert figures(history((0, None, now)), now, START + 5, RULES).decode_tokens_per_s is None


def test_one_reading_has_gauges_and_no_rates() -> None:
    """A rate needs two."""
    past = history((0, ReplicaLoad(running_requests=3, decode_tokens=100, prefix_hit_ratio=0.5)))
    assert known(figures(past, IDLE, START + 1, RULES)) == {
        "running_requests": engine(3),
        "waiting_requests": router(0),
        "prefix_hit_ratio": engine(0.5),
    }


def test_a_restart_begins_anew() -> None:
    """A counter fell: no rate over the gap, then rates from the new beginning, and the flag once."""
    tokens = [(0, 9_000), (5, 9_500), (10, 100), (15, 300)]
    loads = [(float(at), ReplicaLoad(decode_tokens=count)) for at, count in tokens]
    before, fallen, after = (
        figures(history(*loads[:n]), IDLE, START + loads[n - 1][0], RULES) for n in (2, 3, 4)
    )
    assert (before.restarted, fallen.restarted, after.restarted) == (False, True, False)
    assert before.decode_tokens_per_s == engine(100)
    assert fallen.decode_tokens_per_s is None
    assert after.decode_tokens_per_s == engine(40)


@pytest.mark.parametrize("counter", ["prefill_tokens", "prefix_hit_tokens", "queue_wait_count", "heartbeat"])
def test_any_counter_tells_a_restart(counter: str) -> None:
    """Even if another has already overtaken its old value, or was not told for a while."""
    past = history(
        (0, ReplicaLoad(**{counter: 50.0}, decode_tokens=10)),
        (5, ReplicaLoad(decode_tokens=11)),
        (10, ReplicaLoad(**{counter: 49.0}, decode_tokens=20)),
    )
    assert past.restarted
    assert len(past.readings) == 1


def test_a_restart_that_took_its_time_is_one_too() -> None:
    """No reading is left in the window, and none of what it told of rates is used."""
    silent = history((0, ReplicaLoad(decode_tokens=500)), (5, None), (60, None), (120, None))
    assert [reading.load for reading in silent.readings] == [None]
    back = silent.add(Reading(START + 180, IDLE, ReplicaLoad(decode_tokens=20)), RULES)
    assert back.restarted
    went_on = silent.add(Reading(START + 180, IDLE, ReplicaLoad(decode_tokens=500)), RULES)
    assert not went_on.restarted
    assert figures(went_on, IDLE, START + 180, RULES).decode_tokens_per_s is None


@pytest.mark.parametrize(
    "gauge", ["preemptions", "prefill_tokens_computed", "running_requests", "kv_usage_ratio"]
)
def test_what_may_fall_tells_no_restart(gauge: str) -> None:
    """Gauges do, and so does what is computed of two counters that move one after the other."""
    assert not history((0, ReplicaLoad(**{gauge: 0.5})), (5, ReplicaLoad(**{gauge: 0.4}))).restarted


@pytest.mark.parametrize(("age_s", "stale"), [(15.0, False), (15.1, True), (9_000.0, True)])
def test_old_readings_say_nothing(age_s: float, stale: bool) -> None:
    """After three scrape periods the engine is as silent as if it had never spoken: not idle, unknown."""
    past = history((0, ReplicaLoad(running_requests=0, kv_usage_ratio=0.0, gpu_utilisation=0.1)))
    own = OwnMeasurements(in_flight=6)
    found = figures(past, own, START + age_s, RULES)
    assert found.stale is stale
    assert found.running_requests == (router(6) if stale else engine(0))
    assert found.gpu_utilisation == (None if stale else engine(0.1))


def test_no_reading_at_all() -> None:
    """A replica that nobody has asked yet, or whose metrics are off."""
    assert known(figures(History(), IDLE, START, RULES)) == {
        "running_requests": router(0), "waiting_requests": router(0),
    }  # fmt: skip


@pytest.mark.parametrize("lie", [nan, inf, -inf, -1.0, 1e30])
def test_lies_are_ignored(lie: float) -> None:
    """NaN, infinite, negative and absurd values, in every field: no error, and no figure made of them."""
    lies = ReplicaLoad(**{field.name: lie for field in fields(ReplicaLoad) if field.name != "sleeping"})
    past = history(
        (0, lies), (5, lies), (10, ReplicaLoad(decode_tokens=100)), (15, ReplicaLoad(decode_tokens=600))
    )
    assert not past.restarted
    assert known(figures(history((0, lies)), IDLE, START, RULES)) == {
        "running_requests": router(0), "waiting_requests": router(0),
    }  # fmt: skip
    assert figures(past, IDLE, START + 15, RULES).decode_tokens_per_s == engine(100)


def test_an_absurd_rate_is_ignored() -> None:
    """A counter that jumps by a thousand billion did not decode them."""
    past = history((0, ReplicaLoad(decode_tokens=10)), (5, ReplicaLoad(decode_tokens=1e12)))
    assert figures(past, IDLE, START + 5, RULES).decode_tokens_per_s == router(0)


@pytest.mark.parametrize(
    "field", ["kv_usage_ratio", "batch_utilisation", "gpu_utilisation", "prefix_hit_ratio"]
)
def test_ratios_above_1_are_ignored(field: str) -> None:
    """Per cent where a ratio should be would look like a full replica."""
    found = figures(history((0, ReplicaLoad(**{field: 42.0}))), IDLE, START, RULES)
    assert getattr(found, field) is None


def test_rates_are_means_over_the_window() -> None:
    """Lumps of 500 tokens every second reading are smooth over 15 s; what is older has no say."""
    counts = [90_000, 90_500, 90_500, 91_000, 91_000, 91_500]
    past = history(
        (-60, ReplicaLoad(decode_tokens=0)),
        *((5.0 * n, ReplicaLoad(decode_tokens=c)) for n, c in enumerate(counts)),
    )
    assert [reading.at - START for reading in past.readings] == [10, 15, 20, 25]
    assert figures(past, IDLE, START + 25, RULES).decode_tokens_per_s == engine(1_000 / 15)


def test_slow_scrapes_still_make_rates() -> None:
    """With a period longer than the window two readings are kept."""
    rules = FigureRules(scrape_period_s=30.0, window_s=15.0)
    past = history(*((30.0 * n, ReplicaLoad(decode_tokens=300.0 * n)) for n in range(4)), rules=rules)
    assert figures(past, IDLE, START + 90, rules).decode_tokens_per_s == engine(10)


def test_a_missed_reading_is_bridged() -> None:
    """One visit failed: the rate spans it, and the figures do not blink."""
    past = history(
        (0, ReplicaLoad(decode_tokens=100)), (5, None), (10, ReplicaLoad(decode_tokens=600)), (15, None)
    )
    found = figures(past, IDLE, START + 16, RULES)
    assert found.decode_tokens_per_s == engine(50)
    assert not found.stale


def test_a_family_that_appears_counts_from_then_on() -> None:
    """Its first value is everything since the engine's start, not the growth of five seconds."""
    past = history(
        (0, ReplicaLoad()), (5, ReplicaLoad(decode_tokens=50_000)), (10, ReplicaLoad(decode_tokens=50_100))
    )
    assert figures(past, IDLE, START + 10, RULES).decode_tokens_per_s == engine(20)


def test_no_request_started_leaves_the_wait_unknown() -> None:
    """Nobody waited, nobody measured: neither zero nor a division by it."""
    load = ReplicaLoad(queue_wait_seconds_sum=5.0, queue_wait_count=9)
    assert figures(history((0, load), (5, load)), IDLE, START + 5, RULES).queue_wait_s is None


def test_own_rates_wait_for_half_a_period() -> None:
    """An answer a moment after the only reading would be millions of tokens a second."""
    past = history((0, None))
    own = OwnMeasurements(answers=1, prompt_tokens=4_000)
    assert figures(past, own, START + 0.001, RULES).prefill_tokens_per_s is None
    assert figures(past, own, START + 4.0, RULES).prefill_tokens_per_s == router(1_000)
