"""Reads the samples that matter out of Prometheus text or OpenMetrics, and skips the thousands of others.

Samples are asked for by full name; no suffix is guessed. What cannot be read is as if it were not there.
"""

import re
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Final, NamedTuple

from router.engines.unknown import total

# Possessive throughout: a hostile body costs no more than its length.
_LABELS: Final = rb'\{((?:[^"}\n]++|"(?:[^"\\\n]++|\\[^\n])*+")*+)\}'
_LABEL: Final = re.compile(rb'([a-zA-Z_][a-zA-Z0-9_]*+)[ \t]*+=[ \t]*+"((?:[^"\\]++|\\.)*+)"')
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"n": "\n", '"': '"', "\\": "\\"}

_ROUNDING: Final = 1.01
"""Ratios up to here are 1 with an error; above it they are something else, such as per cent."""


class Sample(NamedTuple):
    labels: Mapping[str, str]
    value: float

    @property
    def usable(self) -> bool:
        """Not NaN, infinite or negative: no figure of an engine is."""
        return isfinite(self.value) and self.value >= 0


class Exposition:
    """The samples of one scrape, by name. Every method returns None for what the engine does not say."""

    def __init__(self, samples: Mapping[str, list[Sample]]) -> None:
        self._samples = samples

    def total(self, name: str, **labels: str) -> float | None:
        """The sum over ranks, models and whatever else divides a family; `labels` narrow it down.

        None if a part of the sum is unusable: a sum without it would look like a counter that restarted.
        """
        return total(self._series(name, labels))

    def mean(self, name: str, **labels: str) -> float | None:
        """The mean over ranks: what a ratio or a constant is for the whole replica."""
        series = self._series(name, labels)
        summed = total(series)
        return None if summed is None else summed / len(series)

    def ratio(self, name: str, **labels: str) -> float | None:
        """The mean over ranks of what should be from 0 to 1, and None if it is not."""
        mean = self.mean(name, **labels)
        return None if mean is None or mean > _ROUNDING else min(mean, 1.0)

    def labels(self, name: str) -> list[Mapping[str, str]]:
        """The label sets of a family, as in `…_info` families whose values are in the labels."""
        return [sample.labels for sample in self._samples.get(name, ())]

    def _series(self, name: str, labels: Mapping[str, str]) -> list[float | None]:
        """One value per rank. Processes that share a rank (`pid`) report the same thing, the largest is live.

        See prometheus_client, "Multiprocess Mode": each process writes its own copy of a gauge.
        """
        found = [s for s in self._samples.get(name, ()) if labels.items() <= s.labels.items()]
        if not any("pid" in sample.labels for sample in found):
            return [sample.value if sample.usable else None for sample in found]
        by_rank: dict[frozenset[tuple[str, str]], float] = {}
        for sample in found:
            rank = frozenset(item for item in sample.labels.items() if item[0] != "pid")
            if sample.usable:
                by_rank[rank] = max(by_rank.get(rank, 0.0), sample.value)
        return list(by_rank.values())


class Families:
    """What one engine's reader asks for, compiled once."""

    def __init__(self, engine: str, prefixes: Iterable[str], names: Iterable[str]) -> None:
        """`prefixes` begin the names of this engine's families; no other engine's families begin so."""
        any_name = b"|".join(re.escape(name.encode()) for name in sorted(names))
        any_prefix = b"|".join(re.escape(prefix.encode()) for prefix in prefixes)
        self._engine = engine
        # A line feed first: the search then jumps from line to line.
        self._sample = re.compile(
            rb"\n[ \t]*+(" + any_name + rb")(?=[{ \t])[ \t]*+(?:" + _LABELS + rb")?[ \t]*+([^\s]++)"
        )
        self._own_line = re.compile(rb"\n[ \t]*+(?:" + any_prefix + rb")")

    def read(self, content: bytes) -> Exposition:
        """One scrape; an empty one is fine: families appear with their first use.

        Raises `ValueError` for what is not an exposition, or is one of something else.
        """
        text = b"\n" + content
        samples: dict[str, list[Sample]] = {}
        for name, labels, value in self._sample.findall(text):
            try:
                sample = Sample(_read_labels(labels), float(value))
            except ValueError:
                continue
            samples.setdefault(name.decode(), []).append(sample)
        if not samples and not self._own_line.search(text) and not _says_nothing(content):
            raise ValueError(f"not the metrics of {self._engine}: none of its families is there")
        return Exposition(samples)


def _says_nothing(content: bytes) -> bool:
    """Blank lines and comments only, OpenMetrics' `# EOF` among them."""
    return all(not line or line.startswith(b"#") for line in map(bytes.strip, content.splitlines()))


def _read_labels(text: bytes) -> dict[str, str]:
    """Raises `UnicodeDecodeError`, a `ValueError`, for a value that is not UTF-8."""
    return {name.decode(): _unescape(value.decode()) for name, value in _LABEL.findall(text)}


def _unescape(value: str) -> str:
    if "\\" not in value:
        return value
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[0]), value)
