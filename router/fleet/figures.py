"""The production figures of one replica, alike for every engine: what it says, completed by the router.

Readings over a few seconds make a figure; `now` is handed in. Silence is never taken for idleness: where the
engine says nothing, or nothing fresh, a figure is the router's own measurement, or it is unknown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from router.engines.engine import ReplicaLoad
from router.engines.unknown import first, product, share, total
from router.fleet.own_measurements import OwnMeasurements

# Above these a value is a lie, not a load.
_MOST_REQUESTS: Final = 1e6
_MOST_COUNTED: Final = 1e16
_MOST_TOKENS_PER_S: Final = 1e7
_LONGEST_WAIT_S: Final = 86_400.0

_STALE_AFTER_PERIODS: Final = 3

_RESTART_TELLERS: Final = (
    "decode_tokens",
    "prefill_tokens",
    "prefix_query_tokens",
    "prefix_hit_tokens",
    "queue_wait_count",
    "heartbeat",
)
"""Counters as engines keep them. Derived ones may dip, and `preemptions` is a gauge of some engines."""

Source = Literal["engine", "router"]


@dataclass(frozen=True, slots=True)
class Figure:
    value: float
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """One replica at one moment; None is unknown.

    `stale`: nothing that the engine said is fresh. `restarted`: its newest reading shows that it began anew.
    """

    running_requests: Figure | None
    waiting_requests: Figure | None
    prefill_tokens_per_s: Figure | None
    """Prompt tokens computed, without the cached ones if the engine tells them apart (TGI does not)."""
    decode_tokens_per_s: Figure | None
    batch_utilisation: Figure | None
    gpu_utilisation: Figure | None
    kv_usage_ratio: Figure | None
    prefix_hit_ratio: Figure | None
    queue_wait_s: Figure | None
    """Mean over the window. The router's own is the time to the first token, an upper bound."""
    stale: bool
    restarted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureRules:
    """What is the same for a replica at all times.

    Rates are means over `window_s`, long enough to be smooth. `lagging` is the engine's, see
    `router.engines.telemetry`; the last two are the replica's options, for what the engine does not say.
    """

    scrape_period_s: float = 1.0
    window_s: float = 15.0
    lagging: frozenset[str] = frozenset()
    max_running: float | None = None
    kv_capacity_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """One visit to a replica's metrics, `at` seconds; `load` is None if they could not be read."""

    at: float
    own: OwnMeasurements
    load: ReplicaLoad | None = None


@dataclass(frozen=True, slots=True)
class History:
    """The readings of one replica within the window, oldest first.

    `before`: the last in which the engine spoke, of those that are too old: to begin anew may take minutes.
    """

    readings: tuple[Reading, ...] = ()
    restarted: bool = False
    before: Reading | None = None

    def add(self, reading: Reading, rules: FigureRules) -> "History":
        """With one more reading, without those too old, and without any from before a restart."""
        ever = self.readings if self.before is None else (self.before, *self.readings)
        if reading.load is not None and any(_fell(name, ever, reading) for name in _RESTART_TELLERS):
            return History((reading,), restarted=True)
        span_s = max(rules.window_s, 2 * rules.scrape_period_s)
        kept = tuple(old for old in self.readings if reading.at - old.at <= span_s)
        gone = [old for old in self.readings[: len(self.readings) - len(kept)] if old.load is not None]
        return History((*kept, reading), before=gone[-1] if gone else self.before)


def figures(history: History, own: OwnMeasurements, now: float, rules: FigureRules) -> Figures:
    """The figures at `now`; `own` is what the router has measured until now.

    A reading older than three scrape periods says nothing of the present any more.
    """
    heard = [reading for reading in history.readings if reading.load is not None]
    stale = not heard or now - heard[-1].at > _STALE_AFTER_PERIODS * rules.scrape_period_s
    said = _Side() if stale else _said_by_engine(heard, rules)
    seen = _seen_by_router((*history.readings, Reading(now, own)), heard[-1].load if heard else None, rules)

    def figure(name: str) -> Figure | None:
        engine, router = getattr(said, name), getattr(seen, name)
        # A lagging figure knows nothing yet of requests that the router sees running now.
        if router is not None and (engine is None or (name in rules.lagging and own.in_flight)):
            return Figure(router, "router")
        return None if engine is None else Figure(engine, "engine")

    return Figures(
        running_requests=figure("running_requests"),
        waiting_requests=figure("waiting_requests"),
        prefill_tokens_per_s=figure("prefill_tokens_per_s"),
        decode_tokens_per_s=figure("decode_tokens_per_s"),
        batch_utilisation=figure("batch_utilisation"),
        gpu_utilisation=figure("gpu_utilisation"),
        kv_usage_ratio=figure("kv_usage_ratio"),
        prefix_hit_ratio=figure("prefix_hit_ratio"),
        queue_wait_s=figure("queue_wait_s"),
        stale=stale,
        restarted=history.restarted,
    )


class _Side(NamedTuple):
    """One side's answer to every figure."""

    running_requests: float | None = None
    waiting_requests: float | None = None
    prefill_tokens_per_s: float | None = None
    decode_tokens_per_s: float | None = None
    batch_utilisation: float | None = None
    gpu_utilisation: float | None = None
    kv_usage_ratio: float | None = None
    prefix_hit_ratio: float | None = None
    queue_wait_s: float | None = None


Measure = Callable[[Reading], float | None]


def _said_by_engine(heard: Sequence[Reading], rules: FigureRules) -> _Side:
    """Rates are counters over time, ratios and waits one counter over another, the rest the newest gauge."""
    load = heard[-1].load
    assert load is not None
    running = _within(load.running_requests, _MOST_REQUESTS)
    prefill = "prefill_tokens" if load.prefill_tokens_computed is None else "prefill_tokens_computed"
    hit_ratio = _growth(heard, _counter("prefix_hit_tokens"), _counter("prefix_query_tokens"))
    wait_s = _growth(heard, _counter("queue_wait_seconds_sum"), _counter("queue_wait_count"))
    return _Side(
        running_requests=running,
        waiting_requests=_within(load.waiting_requests, _MOST_REQUESTS),
        prefill_tokens_per_s=_rate(heard, _counter(prefill), rules),
        decode_tokens_per_s=_rate(heard, _counter("decode_tokens"), rules),
        batch_utilisation=first(_ratio(load.batch_utilisation), share(running, _slots(load, rules))),
        gpu_utilisation=_ratio(load.gpu_utilisation),
        kv_usage_ratio=_ratio(load.kv_usage_ratio),
        prefix_hit_ratio=first(_ratio(hit_ratio), _ratio(load.prefix_hit_ratio)),
        queue_wait_s=_within(wait_s, _LONGEST_WAIT_S),
    )


def _seen_by_router(readings: Sequence[Reading], load: ReplicaLoad | None, rules: FigureRules) -> _Side:
    """The same from outside; what only the engine can know (its GPU) stays unknown."""
    own = readings[-1].own
    load = load or ReplicaLoad()
    # An answer in progress holds its prompt and, on average, half of its completion.
    # Streams ended, and none said how long its prompt was: no count is not a count of 0.
    uncounted = own.first_tokens > 0 and not own.answers
    prefill = _rate(readings, lambda r: r.own.prompt_tokens - r.own.cached_tokens, rules)
    tokens_each = (own.prompt_tokens + own.completion_tokens / 2) / own.answers if own.answers else None
    return _Side(
        running_requests=max(0.0, own.in_flight - own.waiting_for_first_token),
        waiting_requests=float(own.waiting_for_first_token),
        prefill_tokens_per_s=None if uncounted else prefill,
        decode_tokens_per_s=_relayed_tokens_per_s(readings, rules),
        batch_utilisation=share(own.in_flight, _slots(load, rules)),
        kv_usage_ratio=share(
            product(own.in_flight, tokens_each),
            first(_within(load.kv_capacity_tokens, _MOST_COUNTED), rules.kv_capacity_tokens),
        ),
        prefix_hit_ratio=_growth(
            readings, lambda r: r.own.cached_tokens, lambda r: r.own.cache_told_prompt_tokens
        ),
        queue_wait_s=_growth(readings, lambda r: r.own.first_token_s, lambda r: r.own.first_tokens),
    )


def _slots(load: ReplicaLoad, rules: FigureRules) -> float | None:
    return first(_within(load.max_running_requests, _MOST_REQUESTS), rules.max_running)


def _relayed_tokens_per_s(readings: Sequence[Reading], rules: FigureRules) -> float | None:
    """Streams, by Little's law: streams running (mean) times the speed of one; and answers that came whole.

    Streams are counted when they end, so counting alone would come in lumps as late as they are long.
    """
    own = readings[-1].own
    streams = sum(max(0, r.own.in_flight - r.own.waiting_for_first_token) for r in readings) / len(readings)
    speed = first(
        _growth(readings, lambda r: r.own.streamed_tokens, lambda r: r.own.streaming_s),
        own.streamed_tokens / own.streaming_s if own.streaming_s else None,
    )
    streamed = product(streams, speed) if streams else 0.0
    whole = _rate(readings, lambda r: r.own.completion_tokens - r.own.streamed_tokens, rules)
    return total([streamed, whole])


def _counter(name: str) -> Measure:
    return lambda reading: _within(getattr(reading.load, name), _MOST_COUNTED)


def _rate(readings: Sequence[Reading], counter: Measure, rules: FigureRules) -> float | None:
    """Per second; unknown until half a scrape period has passed."""
    per_s = _growth(readings, counter, lambda reading: reading.at, least=rules.scrape_period_s / 2)
    return _within(per_s, _MOST_TOKENS_PER_S)


def _growth(readings: Sequence[Reading], of: Measure, over: Measure, least: float = 0.0) -> float | None:
    """What `of` grew for each one that `over` grew, from the first reading that has both to the last.

    Unknown if `of` fell, or `over` grew no more than `least`.
    """
    known = [
        (a, b) for reading in readings if (a := of(reading)) is not None if (b := over(reading)) is not None
    ]
    if not known:
        return None
    rise, run = known[-1][0] - known[0][0], known[-1][1] - known[0][1]
    return rise / run if rise >= 0 and run > least else None


def _fell(name: str, readings: Sequence[Reading], newest: Reading) -> bool:
    """Whether a counter is below the last that was heard of it: the engine has started anew."""
    counter = _counter(name)
    now = counter(newest)
    if now is None:
        return False
    heard = (counter(reading) for reading in reversed(readings) if reading.load is not None)
    before = next((value for value in heard if value is not None), None)
    return before is not None and now < before


def _within(value: float | None, most: float) -> float | None:
    """Unknown if NaN, negative or absurd."""
    return value if value is not None and 0 <= value <= most else None


def _ratio(value: float | None) -> float | None:
    return _within(value, 1.0)
