"""Prometheus text as the engines' different exporters write it.

Three exporters, three habits: Rust's `metrics-exporter-prometheus` (TGI), Python's `prometheus_client`
(trtllm-serve) and prometheus-cpp (Triton). A family exists only once something was recorded in it.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import accumulate
from math import inf

from prometheus_client.utils import floatToGoString

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """`buckets` are (upper bound, cumulative count), the last bound is infinity."""

    buckets: tuple[tuple[float, int], ...]
    total: float
    count: int


@dataclass(frozen=True, slots=True)
class Summary:
    """`quantiles` are (quantile, value)."""

    quantiles: tuple[tuple[float, float], ...]
    total: float
    count: int


Value = float | Histogram | Summary


@dataclass(frozen=True, slots=True)
class Family:
    """One metric with all its series. `about` becomes the HELP line; None: no such line."""

    name: str
    kind: str
    about: str | None
    series: tuple[tuple[Labels, Value], ...]


@dataclass(frozen=True, slots=True)
class Style:
    """What differs between exporters: numbers, label order, order after the buckets, blank lines."""

    number: Callable[[float], str]
    sorts_labels: bool
    tail: tuple[str, str]
    blank_after_family: bool


def rust_number(value: float) -> str:
    """Rust's `Display`: whole numbers without a point, never an exponent."""
    if value == inf:
        return "+Inf"
    return str(int(value)) if float(value).is_integer() else format(Decimal(repr(value)), "f")


def cpp_number(value: float) -> str:
    """prometheus-cpp: as few digits as say it, 16 at most."""
    return "+Inf" if value == inf else f"{value:.16g}"


RUST = Style(rust_number, sorts_labels=False, tail=("sum", "count"), blank_after_family=True)
PYTHON = Style(floatToGoString, sorts_labels=True, tail=("count", "sum"), blank_after_family=False)
CPP = Style(cpp_number, sorts_labels=True, tail=("count", "sum"), blank_after_family=False)


def exposition(families: Iterable[Family], style: Style) -> bytes:
    """All families as text, in the given order."""
    end = "\n" if style.blank_after_family else ""
    return "".join(
        "".join(f"{line}\n" for line in _lines(family, style)) + end for family in families
    ).encode()


def _lines(family: Family, style: Style) -> Iterable[str]:
    if family.about is not None:
        yield f"# HELP {family.name} {family.about}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.series:
        for suffix, extra, number in _samples(value, style):
            yield f"{family.name}{suffix}{_labels(labels + extra, style)} {style.number(number)}"


def _samples(value: Value, style: Style) -> Iterable[tuple[str, Labels, float]]:
    if not isinstance(value, Histogram | Summary):
        yield "", (), value
        return
    if isinstance(value, Histogram):
        for bound, count in value.buckets:
            yield "_bucket", (("le", style.number(bound)),), count
    else:
        for quantile, at in value.quantiles:
            yield "", (("quantile", style.number(quantile)),), at
    for name in style.tail:
        yield f"_{name}", (), value.total if name == "sum" else value.count


def _labels(labels: Labels, style: Style) -> str:
    if not labels:
        return ""
    shown = sorted(labels) if style.sorts_labels else labels
    return "{" + ",".join(f'{name}="{value}"' for name, value in shown) + "}"


@dataclass(frozen=True, slots=True)
class Metric:
    """What a family is; `bounds` (without infinity) make it a histogram."""

    kind: str
    about: str | None = None
    bounds: Sequence[float] = ()


@dataclass(slots=True)
class _Tally:
    """One histogram series while it grows: counts per bucket, infinity last."""

    counts: list[int]
    total: float = 0.0

    def frozen(self, bounds: Sequence[float]) -> Histogram:
        cumulative = tuple(accumulate(self.counts))
        return Histogram(tuple(zip((*bounds, inf), cumulative, strict=True)), self.total, cumulative[-1])


@dataclass(slots=True)
class Registry:
    """The metrics of one engine process. Families come out in the order of their first use."""

    catalogue: Mapping[str, Metric]
    common: Labels = ()
    """Labels that every series carries."""
    _series: dict[str, dict[Labels, "float | _Tally"]] = field(default_factory=dict)

    def add(self, name: str, amount: float = 1, **labels: str) -> None:
        """Count."""
        series, key = self._at(name, labels)
        before = series.get(key, 0.0)
        assert not isinstance(before, _Tally), f"{name} is a histogram"
        series[key] = before + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        series, key = self._at(name, labels)
        series[key] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Record one value in a histogram."""
        bounds = self.catalogue[name].bounds
        series, key = self._at(name, labels)
        tally = series.setdefault(key, _Tally([0] * (len(bounds) + 1)))
        assert isinstance(tally, _Tally), f"{name} is no histogram"
        tally.total += value
        tally.counts[bisect_left(bounds, value)] += 1

    def families(self) -> tuple[Family, ...]:
        """What was recorded so far."""
        return tuple(self._family(name) for name in self._series)

    def _at(self, name: str, labels: Mapping[str, str]) -> tuple[dict[Labels, "float | _Tally"], Labels]:
        return self._series.setdefault(name, {}), (*self.common, *labels.items())

    def _family(self, name: str) -> Family:
        metric = self.catalogue[name]
        series = tuple(
            (labels, value.frozen(metric.bounds) if isinstance(value, _Tally) else value)
            for labels, value in self._series[name].items()
        )
        return Family(name, metric.kind, metric.about, series)
