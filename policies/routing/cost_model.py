"""What a request costs on a replica, learned from what earlier ones took: no configured speeds.

What prefills and decodes cost is one linear model for the whole fleet, and how fast each replica is at it one
factor of its own: every answer teaches all of them, and equal replicas are not told apart by noise. A Kalman
filter follows the models (Ljung, "System Identification", 2nd edition, 11.3: recursive least squares whose
forgetting is the drift of the coefficients, so that what no sample tells of is not forgotten). Samples are
clipped and coefficients bounded: a stall, a retry or a client that pauses cannot poison them.
"""

from collections.abc import Sequence
from typing import Final

_NOISE: Final = 0.04
"""Variance of a sample relative to the square of what it is or was expected to be: 20 % off is nothing."""
_UNCERTAIN: Final = 25.0
"""Variance of a coefficient relative to its prior's square, before the first sample."""
_ACQUAINTED: Final = 20
"""Samples after which an outlier is one."""
_CLIP_NEW: Final = 50.0
_CLIP: Final = 4.0
"""Most that a sample counts for, in expectations: before and after that."""
_SURPRISE: Final = 1.5
_STREAK: Final = 8
"""So many surprises of one direction in a row are no chance."""
_FLOOR_S: Final = 0.0005
_LEAST: Final = 0.05
_MOST: Final = 50.0


class LinearModel:
    """`y = sum(coefficient * feature)`. Coefficients are kept relative to their priors, all 1 at first.

    In that scale every feature is about equally large, and the bounds mean the same for all. `drift` is the
    variance that a coefficient gains per sample; its square root, times 5, is about a new sample's weight.
    """

    __slots__ = ("_drift", "_spread", "prior", "relative", "samples")

    def __init__(self, prior: Sequence[float], drift: float) -> None:
        self.prior = tuple(prior)
        self.relative = [1.0] * len(self.prior)
        self.samples = 0
        self._drift = drift
        size = range(len(self.prior))
        self._spread = [[_UNCERTAIN * (row == column) for column in size] for row in size]

    @property
    def coefficients(self) -> list[float]:
        return [one * prior for one, prior in zip(self.relative, self.prior, strict=True)]

    def adopt(self, coefficients: Sequence[float]) -> None:
        """Begin with what another has learned; its samples are none of this one's."""
        if not self.samples:
            self.relative = [one / prior for one, prior in zip(coefficients, self.prior, strict=True)]

    def learn(self, features: Sequence[float], value: float, expected: float, requests: int = 1) -> None:
        """One sample, of so many requests together, and what the model expected of it."""
        expected = max(expected, _FLOOR_S)
        counted = min(value, expected * (_CLIP if self.samples >= _ACQUAINTED else _CLIP_NEW))
        # One far above is as noisy as it is large: else the first would fix what all others only correct.
        scale = 1.0 / max(expected, counted)
        ratio = counted * scale
        self.samples += 1
        x = [feature * prior * scale for feature, prior in zip(features, self.prior, strict=True)]
        spread = self._spread
        gains = [sum(map(_times, row, x)) for row in spread]
        surprise = ratio - sum(map(_times, self.relative, x))
        noise = _NOISE / requests + sum(map(_times, gains, x))
        for row, gain in enumerate(gains):
            moved = self.relative[row] + gain * surprise / noise
            self.relative[row] = min(max(moved, _LEAST), _MOST)
            spread[row] = [old - gain * other / noise for old, other in zip(spread[row], gains, strict=True)]
            spread[row][row] = min(spread[row][row] + self._drift, _UNCERTAIN)


def _times(one: float, other: float) -> float:
    return one * other


class PrefillModel:
    """Seconds from the start of a prefill to its first token: `w0 + w1 u + w2 u (L - u/2)`.

    `u` tokens are computed of a prompt of `L`; `u (L - u/2)` are the pairs that attention looks at. The
    coefficients are `base_s`, `token_s` and `pair_s`; their priors an H100's with a model of 8 billion.
    """

    __slots__ = ("_fit", "base_s", "pair_s", "token_s")

    def __init__(self, drift: float) -> None:
        self._fit = LinearModel((0.01, 1 / 16_000, 1e-9), drift)
        self.base_s, self.token_s, self.pair_s = self._fit.prior

    @property
    def coefficients(self) -> list[float]:
        return self._fit.coefficients

    def adopt(self, coefficients: Sequence[float]) -> None:
        self._fit.adopt(coefficients)
        self.base_s, self.token_s, self.pair_s = self._fit.coefficients

    def seconds(self, uncached: float, length: float) -> float:
        return self.base_s + uncached * (self.token_s + self.pair_s * (length - uncached / 2))

    def together_s(self, steps: int, uncached: float, pairs: float) -> float:
        """Of several prompts, which took so many steps of the engine."""
        return self.base_s * steps + self.token_s * uncached + self.pair_s * pairs

    def learn(self, steps: int, uncached: float, pairs: float, took_s: float, requests: int = 1) -> None:
        """One sample, of so many requests together."""
        expected_s = self.together_s(steps, uncached, pairs)
        self._fit.learn((steps, uncached, pairs), took_s, expected_s, requests)
        self.base_s, self.token_s, self.pair_s = self._fit.coefficients


class DecodeModel:
    """Seconds between two tokens of one answer, with `b` requests in the batch: `a + c b`.

    Of undisturbed decoding: what prefills take in between is theirs.
    """

    __slots__ = ("_fit", "alone_s", "neighbour_s")

    def __init__(self, drift: float) -> None:
        self._fit = LinearModel((0.01, 0.0002), drift)
        self.alone_s, self.neighbour_s = self._fit.prior

    @property
    def coefficients(self) -> list[float]:
        return self._fit.coefficients

    def adopt(self, coefficients: Sequence[float]) -> None:
        self._fit.adopt(coefficients)
        self.alone_s, self.neighbour_s = self._fit.coefficients

    def seconds(self, batch: float) -> float:
        return self.alone_s + self.neighbour_s * batch

    def learn(self, batch: float, took_s: float) -> None:
        self._fit.learn((1.0, batch), took_s, self.seconds(batch))
        self.alone_s, self.neighbour_s = self._fit.coefficients


class Paces:
    """Those of a fleet, as far as they are known. Their mean is the model's own business."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0

    @property
    def mean(self) -> float:
        return self._total / self._count if self._count else 1.0

    def join(self, factor: float) -> None:
        self._total += factor
        self._count += 1

    def leave(self, factor: float) -> None:
        self._total -= factor
        self._count -= 1

    def move(self, by: float) -> None:
        self._total += by


class Pace:
    """How much longer than the model says one replica takes: what it took over what was expected.

    At first it is that of the others, times `slowness`, and as sure as `_PRIOR` samples.
    """

    __slots__ = ("_expected", "_factor", "_fleet", "_slowness", "_streak", "_took", "samples")

    _FADING: Final = 0.995
    _PRIOR: Final = 3.0
    _DOUBT: Final = 0.5

    def __init__(self, fleet: Paces, slowness: float) -> None:
        self._fleet = fleet
        self._slowness = slowness
        self._factor = slowness
        """In multiples of the mean until the first sample, of the model from then on."""
        self.samples = 0
        self._expected = 0.0
        self._took = 0.0
        self._streak = 0

    @property
    def factor(self) -> float:
        """What the model's seconds are multiplied by here."""
        return self.own / self._fleet.mean

    @property
    def own(self) -> float:
        """The same in multiples of the fleet's mean, which moves with every sample of anybody."""
        return self._factor if self.samples else self._factor * self._fleet.mean

    def learn(self, took: float, expected: float, requests: int = 1) -> float:
        """One sample, of so many requests; `expected` is the model's.

        Returns what it teaches the model: clipped, set right.
        """
        if self.samples == 0:
            self._factor *= self._fleet.mean
            self._fleet.join(self._factor)
            self._expected = self._PRIOR * expected / requests
            self._took = self._expected * self._factor
        self.samples += 1
        own = self._factor * expected
        counted = min(took, own * (_CLIP if self.samples > _ACQUAINTED else _CLIP_NEW))
        self._note(took / own, expected)
        self._expected = self._FADING * self._expected + expected
        self._took = self._FADING * self._took + counted
        before, self._factor = self._factor, self._took / self._expected
        self._fleet.move(self._factor - before)
        return counted / self.factor

    def fade(self) -> bool:
        """Nobody knows any more: half the way back to what it was at first. False: it still is that.

        Whoever was slow, or seemed so, gets nothing and could never show that it is not.
        """
        if not self.samples:
            return False
        before = self._factor
        self._factor += self._DOUBT * (self._slowness * self._fleet.mean - before)
        self._expected *= self._DOUBT
        self._took = self._expected * self._factor
        self._fleet.move(self._factor - before)
        return True

    def leave(self) -> None:
        """The replica is gone."""
        if self.samples:
            self._fleet.leave(self._factor)

    def _note(self, ratio: float, expected: float) -> None:
        """Count surprises of one direction; a streak of them is a change, and the past is no guide."""
        direction = (ratio > _SURPRISE) - (ratio < 1 / _SURPRISE)
        self._streak = self._streak + direction if direction * self._streak > 0 else direction
        if abs(self._streak) >= _STREAK:
            self._streak = 0
            self._expected, self._took = expected, expected * self._factor


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
