"""Which version a unit of traffic gets: by a keyed hash, so that it is the same everywhere and stays so.

Two layers, each a line of length 1 on which a unit has its point. On the first the versions of a split own
ranges side by side, stable the last; on the second a canary owns the beginning of what is stable's. So a
canary that grows takes from stable alone, and gives nothing back (assignment by contiguous ranges: Kohavi,
Tang and Xu, "Trustworthy Online Controlled Experiments", 2020, chapters 4 and 14).
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

WHOLE: Final = 10_000
"""All of the traffic, in hundredths of a per cent: what weights add up to."""
_POINTS: Final = 1 << 64


class Arm(NamedTuple):
    """A version that a unit was assigned to. `compared`: it is the canary or what it is compared with."""

    version: str
    canary: bool = False
    compared: bool = False


class Ramp(NamedTuple):
    """A canary, and the share of stable's traffic that it has, in hundredths of a per cent.

    `salt` is this release's own: who gets the canary first is drawn anew for each.
    """

    version: str
    share: int
    salt: bytes


class Split:
    """How the traffic of one model is divided now. It does not change; another one takes its place.

    `weights` are any positive numbers; those of `stable` and of versions that are not named are what is left.
    """

    __slots__ = ("_bounds", "_canary_until", "_ramp", "_salt", "_single", "stable", "weights")

    def __init__(
        self, model: str, stable: str, weights: Mapping[str, float] | None = None, ramp: Ramp | None = None
    ) -> None:
        base = apportion(weights) if weights else {stable: WHOLE}
        self.stable = stable
        self._salt = f"split:{model}".encode()[:64]
        self._ramp = None if ramp is None else ramp._replace(salt=ramp.salt[:64])
        self._canary_until = 0 if ramp is None else _POINTS * ramp.share // WHOLE
        self._bounds = _ranges(base, stable)
        self.weights = _in_force(base, stable, ramp)
        """Hundredths of a per cent by version; they add up to `WHOLE`."""
        # Nobody is hashed where all go to the same place.
        self._single = Arm(stable) if not self._bounds and ramp is None else None

    @property
    def single(self) -> Arm | None:
        """The one arm that there is, if there is but one."""
        return self._single

    @property
    def canary_share(self) -> float:
        """The canary's share of the compared traffic, 0 to 1: the chance that such a unit gets it."""
        return 0.0 if self._ramp is None else self._ramp.share / WHOLE

    def arm_of(self, unit: str) -> Arm:
        """The arm of a session, user, key or request."""
        if self._single is not None:
            return self._single
        data = unit.encode("utf-8", "surrogatepass")
        if self._bounds:
            point = _point(self._salt, data)
            for version, until in self._bounds:
                if point < until:
                    return Arm(version)
        ramp = self._ramp
        if ramp is None:
            return Arm(self.stable)
        canary = _point(ramp.salt, data) < self._canary_until
        return Arm(ramp.version if canary else self.stable, canary, compared=True)


def apportion(weights: Mapping[str, float]) -> dict[str, int]:
    """Positive numbers as parts that add up to `WHOLE`, by the largest remainder (Hamilton's method)."""
    total = sum(weights.values())
    exact = {version: weight / total * WHOLE for version, weight in weights.items()}
    parts = {version: int(part) for version, part in exact.items()}
    by_remainder = sorted(exact, key=lambda version: parts[version] - exact[version])
    for version in by_remainder[: WHOLE - sum(parts.values())]:
        parts[version] += 1
    return parts


def _ranges(parts: Mapping[str, int], stable: str) -> Sequence[tuple[str, int]]:
    """Where each version's range ends; stable's is the rest and not among them."""
    ranges: list[tuple[str, int]] = []
    begun = 0
    for version in sorted(parts):
        if version != stable and parts[version]:
            begun += parts[version]
            ranges.append((version, _POINTS * begun // WHOLE))
    return ranges


def _in_force(parts: Mapping[str, int], stable: str, ramp: Ramp | None) -> dict[str, int]:
    weights = {stable: 0, **parts}
    if ramp is not None:
        moved = (weights[stable] * ramp.share + WHOLE // 2) // WHOLE
        weights[stable] -= moved
        weights[ramp.version] = weights.get(ramp.version, 0) + moved
    return weights


def _point(salt: bytes, data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8, key=salt).digest(), "big")
