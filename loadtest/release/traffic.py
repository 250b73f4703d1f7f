"""Requests of a release, drawn from what is known to be true: independent ones, sessions, tenants.

Errors of one session come together, and a tenant is slow as a whole: where the arm is a session's or a
tenant's, requests are no independent witnesses, and an analysis must not take them for such.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import exp
from random import Random
from typing import Final

from policies.release.observation import Bad, Observation

BASE_ERRORS: Final = 0.01
BASE_CUT: Final = 0.05
"""Answers that are cut off by their token limit."""
REQUESTS_PER_S: Final = 100.0
_PROMPTS: Final = (128, 512, 1024, 2048, 6144)
_CACHED: Final = (0.0, 0.0, 0.5, 0.9)
"""What share of its prompt an independent request finds cached."""
_SIGMA: Final = 0.6
_PREFILL_S: Final = 2e-4
"""Per uncached prompt token."""
_QUEUE_S: Final = 0.05
_BETWEEN_S, _BETWEEN_SIGMA = 0.02, 0.3
_TOKENS, _TOKENS_SIGMA = 200, 0.8
_ACTIVE: Final = 100
_TURNS: Final = 6
"""Mean number of requests in a session."""
_TENANTS: Final = 400
_SLOWNESS: Final = 0.3
"""Sigma of what all requests of a session, or of a tenant, have in common."""
_BAD_SESSIONS, _THEIR_ERRORS = 0.01, 0.7
_BAD_TENANTS, _TENANTS_ERRORS = 0.03, 0.3
_WARM: Final = 1_000_000
_FILLED_AFTER: Final = 2_000
"""Requests after which a cold cache is as full as the others."""
_HASHES: Final = 64
_ERROR, _CUT, _FINE = frozenset({Bad.ERROR}), frozenset({Bad.LENGTH}), frozenset[Bad]()


class Witness(enum.Enum):
    """What has its arm, and fails or is slow as a whole."""

    REQUEST = "request"
    SESSION = "session"
    TENANT = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """What the canary does worse: added share of errors, ratios of times, share of answers cut off."""

    errors: float = 0.0
    time_to_first_token: float = 1.0
    inter_token: float = 1.0
    cut: float = BASE_CUT
    cold: bool = False
    """Its one replica begins with an empty cache, as fast as the others."""


class _Source:
    """A session or a tenant."""

    __slots__ = ("errors", "hash", "point", "slowness", "tenant", "turns")

    def __init__(self, chance: Random, tenant: int, errors: float, slowness: float) -> None:
        self.hash = chance.getrandbits(_HASHES)
        self.point = chance.random()
        self.tenant = tenant
        self.errors = errors
        self.slowness = slowness
        self.turns = 0


class Traffic:
    """One request after the other. About 1 % of stable's fail, whatever they come from."""

    def __init__(self, witness: Witness, defect: Defect, chance: Random) -> None:
        self._witness = witness
        self._defect = defect
        self._chance = chance
        self._number = 0
        self._served = 0
        self._sources = self._drawn()
        self._weights: Sequence[float] = list(accumulate(1 / rank for rank in range(1, _TENANTS + 1)))

    def next(self, share: float) -> Observation:
        """The request that comes next, while the canary has `share`, 0 to 1."""
        self._number += 1
        source = self._source()
        canary = source.point < share
        prompt, cached = self._prompt(source, canary)
        bad = self._bad(source, canary)
        noise, defect = self._chance.gauss, self._defect
        slow = source.slowness * exp(noise(0, _SIGMA)) * (_QUEUE_S + _PREFILL_S * (prompt - cached))
        between = _BETWEEN_S * exp(noise(0, _BETWEEN_SIGMA))
        answered = bad is not _ERROR
        ordinal = _WARM
        if canary:
            slow *= defect.time_to_first_token
            between *= defect.inter_token
            ordinal = self._served if defect.cold else _WARM
            self._served += 1
        return Observation(
            canary,
            share,
            self._number / REQUESTS_PER_S,
            source.hash,
            source.tenant,
            ordinal,
            bad,
            slow if answered else None,
            between if answered else None,
            prompt,
            cached,
            int(_TOKENS * exp(noise(0, _TOKENS_SIGMA))) + 1 if answered else None,
        )

    def _drawn(self) -> list[_Source]:
        if self._witness is Witness.REQUEST:
            return []
        if self._witness is Witness.SESSION:
            return [self._session() for _ in range(_ACTIVE)]
        return [self._tenant(number) for number in range(_TENANTS)]

    def _source(self) -> _Source:
        chance = self._chance
        if self._witness is Witness.REQUEST:
            return _Source(chance, 0, BASE_ERRORS, 1.0)
        if self._witness is Witness.TENANT:
            return chance.choices(self._sources, cum_weights=self._weights)[0]
        at = int(chance.random() * _ACTIVE)
        source = self._sources[at]
        source.turns += 1
        if chance.random() < 1 / _TURNS:
            self._sources[at] = self._session()
        return source

    def _session(self) -> _Source:
        chance = self._chance
        bad = chance.random() < _BAD_SESSIONS
        rest = (BASE_ERRORS - _BAD_SESSIONS * _THEIR_ERRORS) / (1 - _BAD_SESSIONS)
        slowness = exp(chance.gauss(0, _SLOWNESS))
        return _Source(chance, chance.getrandbits(5), _THEIR_ERRORS if bad else rest, slowness)

    def _tenant(self, number: int) -> _Source:
        chance = self._chance
        bad = chance.random() < _BAD_TENANTS
        rest = (BASE_ERRORS - _BAD_TENANTS * _TENANTS_ERRORS) / (1 - _BAD_TENANTS)
        slowness = exp(chance.gauss(0, _SLOWNESS))
        source = _Source(chance, number, _TENANTS_ERRORS if bad else rest, slowness)
        source.tenant = source.hash
        return source

    def _prompt(self, source: _Source, canary: bool) -> tuple[int, int]:
        chance = self._chance
        if self._witness is Witness.SESSION:
            prompt = 400 * source.turns + int(chance.random() * 200)
            cached = 400.0 * (source.turns - 1)
        else:
            prompt = _PROMPTS[int(chance.random() * len(_PROMPTS))]
            cached = prompt * _CACHED[int(chance.random() * len(_CACHED))]
        if canary and self._defect.cold and chance.random() * _FILLED_AFTER > self._served:
            cached = 0.0
        return prompt, int(cached)

    def _bad(self, source: _Source, canary: bool) -> frozenset[Bad]:
        defect, chance = self._defect, self._chance
        errors, cut = (source.errors + defect.errors, defect.cut) if canary else (source.errors, BASE_CUT)
        if chance.random() < errors:
            return _ERROR
        return _CUT if chance.random() < cut else _FINE
