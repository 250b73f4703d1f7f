"""What a request costs on a replica, learned from what earlier ones took: no configured speeds.

Each model is a linear one with coefficients that drift, followed by a Kalman filter (Ljung, "System
Identification", 2nd edition, 11.3: recursive least squares whose forgetting is that drift, so that what no
sample tells of is not forgotten). Samples are clipped and coefficients bounded, so that a stall, a retry or a
client that pauses cannot poison them; a streak of surprises in one direction is a change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

_NOISE: Final = 0.04
"""Variance of a sample relative to its expectation's square: 20 % off is nothing."""
_UNCERTAIN: Final = 25.0
"""Variance of a coefficient relative to its prior's square, before the first sample."""
_DOUBTFUL: Final = 1.0
"""The same after a change."""
_ACQUAINTED: Final = 20
"""Samples after which an outlier is one."""
_CLIP_NEW: Final = 50.0
_CLIP: Final = 4.0
"""Most that a sample counts for, in expectations: before and after that."""
_SURPRISE: Final = 1.5
_STREAK: Final = 8
_FLOOR_S: Final = 0.0005
_LEAST: Final = 0.05
_MOST: Final = 50.0


class LinearModel:
    """`y = sum(coefficient * feature)`. Coefficients are kept relative to their priors, all 1 at first.

    In that scale every feature is about equally large, and the bounds mean the same for all. `drift` is the
    variance that a coefficient gains per sample; its square root, times 5, is about a new sample's weight.
    """

    __slots__ = ("_drift", "_spread", "_streak", "prior", "relative", "samples")

    def __init__(self, prior: Sequence[float], drift: float) -> None:
        self.prior = tuple(prior)
        self.relative = [1.0] * len(self.prior)
        self.samples = 0
        self._drift = drift
        self._streak = 0
        self._spread = self._diagonal(_UNCERTAIN)

    @property
    def coefficients(self) -> list[float]:
        return [one * prior for one, prior in zip(self.relative, self.prior, strict=True)]

    def learn(self, features: Sequence[float], value: float, expected: float) -> None:
        """One sample, and what the model expected of it."""
        scale = 1.0 / max(expected, _FLOOR_S)
        ratio = min(value * scale, _CLIP if self.samples >= _ACQUAINTED else _CLIP_NEW)
        self.samples += 1
        self._note(ratio)
        x = [feature * prior * scale for feature, prior in zip(features, self.prior, strict=True)]
        spread = self._spread
        gains = [sum(map(_times, row, x)) for row in spread]
        surprise = ratio - sum(map(_times, self.relative, x))
        noise = _NOISE + sum(map(_times, gains, x))
        for row, gain in enumerate(gains):
            moved = self.relative[row] + gain * surprise / noise
            self.relative[row] = min(max(moved, _LEAST), _MOST)
            spread[row] = [old - gain * other / noise for old, other in zip(spread[row], gains, strict=True)]
            spread[row][row] = min(spread[row][row] + self._drift, _UNCERTAIN)

    def _note(self, ratio: float) -> None:
        """Count surprises of one direction; so many in a row are no chance."""
        direction = (ratio > _SURPRISE) - (ratio < 1 / _SURPRISE)
        self._streak = self._streak + direction if direction * self._streak >= 0 and direction else direction
        if abs(self._streak) >= _STREAK and self.samples >= _ACQUAINTED:
            self._streak = 0
            self._spread = self._diagonal(_DOUBTFUL)

    def _diagonal(self, variance: float) -> list[list[float]]:
        size = range(len(self.prior))
        return [[variance * (row == column) for column in size] for row in size]


def _times(one: float, other: float) -> float:
    return one * other


@dataclass(frozen=True, slots=True)
class Speeds:
    """What is believed of a replica before anything is known: an H100 with a model of 8 billion parameters.

    Whatever it says is off by a factor soon learned; it decides the first requests only.
    """

    base_s: float = 0.01
    prefill_token_s: float = 1 / 16_000
    attention_pair_s: float = 1e-9
    decode_s: float = 0.01
    decode_neighbour_s: float = 0.0002

    def slower(self, factor: float) -> "Speeds":
        return Speeds(
            self.base_s * factor,
            self.prefill_token_s * factor,
            self.attention_pair_s * factor,
            self.decode_s * factor,
            self.decode_neighbour_s * factor,
        )


class PrefillModel:
    """Seconds from the start of a prefill to its first token: `w0 + w1 u + w2 u (L - u/2)`.

    `u` tokens are computed of a prompt of `L`; `u (L - u/2)` are the pairs that attention looks at. The
    coefficients are `base_s`, `token_s` and `pair_s`.
    """

    __slots__ = ("_fit", "base_s", "pair_s", "token_s")

    def __init__(self, speeds: Speeds, drift: float) -> None:
        self.base_s, self.token_s = speeds.base_s, speeds.prefill_token_s
        self.pair_s = speeds.attention_pair_s
        self._fit = LinearModel((self.base_s, self.token_s, self.pair_s), drift)

    def seconds(self, uncached: float, length: float) -> float:
        return self.base_s + uncached * (self.token_s + self.pair_s * (length - uncached / 2))

    def learn(self, uncached: float, length: float, took_s: float) -> None:
        features = 1.0, uncached, uncached * (length - uncached / 2)
        self._fit.learn(features, took_s, self.seconds(uncached, length))
        self.base_s, self.token_s, self.pair_s = self._fit.coefficients

    @property
    def samples(self) -> int:
        return self._fit.samples

    @property
    def tokens_per_second(self) -> float:
        """Of a prompt of 1,000 tokens, none of them cached."""
        return 1_000 / self.seconds(1_000, 1_000)


class DecodeModel:
    """Seconds between two tokens of one answer, with `b` requests in the batch: `a + c b`."""

    __slots__ = ("_fit", "alone_s", "neighbour_s")

    def __init__(self, speeds: Speeds, drift: float) -> None:
        self.alone_s, self.neighbour_s = speeds.decode_s, speeds.decode_neighbour_s
        self._fit = LinearModel((self.alone_s, self.neighbour_s), drift)

    def seconds(self, batch: float) -> float:
        return self.alone_s + self.neighbour_s * batch

    def learn(self, batch: float, took_s: float) -> None:
        self._fit.learn((1.0, batch), took_s, self.seconds(batch))
        self.alone_s, self.neighbour_s = self._fit.coefficients

    @property
    def samples(self) -> int:
        return self._fit.samples


class Average:
    """An exponentially weighted mean; the first values weigh as in a plain mean, so that no prior lingers."""

    __slots__ = ("_count", "_window", "value")

    def __init__(self, prior: float, window: int) -> None:
        self.value = prior
        self._window = window
        self._count = 0

    def add(self, value: float) -> None:
        self._count = min(self._count + 1, self._window)
        self.value += (value - self.value) / self._count
