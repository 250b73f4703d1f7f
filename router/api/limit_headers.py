"""What limits say in the headers of an answer, in two families that agree.

OpenAI's `x-ratelimit-*` (platform.openai.com/docs/guides/rate-limits) tell of the tightest limit of a kind;
`ratelimit` and `ratelimit-policy` (draft-ietf-httpapi-ratelimit-headers-10) of every one. A bucket refills
all the time: a reset is when it is full again, not when a request may come; that is `retry-after`, and
clients believe it first (section 7 of the draft).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from policies.limits.gcra import Rate
from policies.limits.rules import Kind

Header = tuple[bytes, bytes]

_LONG_US: Final = 5_000_000
_JITTER: Final = 0.1
_LARGEST: Final = 10**15 - 1
"""No integer of a structured field is larger (RFC 9651, 3.3.1)."""
_FRACTIONS: Final = (b"", *(b".%b" % (b"%03d" % ms).rstrip(b"0") for ms in range(1, 1000)))
"""Of a second, by its milliseconds."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One budget of a limit as clients see it. `name` is a label: it needs no escapes.

    Raises ValueError for a bucket so large that its number cannot be told.
    """

    name: str
    kind: Kind
    rate: Rate

    def __post_init__(self) -> None:
        if self.rate.capacity > _LARGEST:
            raise ValueError(f"limit {self.name!r} holds more than {_LARGEST} {self.kind}")


class LimitHeaders:
    """Made once for the budgets that apply together to a request; `of` is called for every answer."""

    __slots__ = ("_items", "_kinds", "_policy", "_rates")

    def __init__(self, quotas: Sequence[Quota]) -> None:
        self._rates = tuple(quota.rate for quota in quotas)
        self._items = b", ".join(_item(quota) for quota in quotas)
        self._policy: Header = (b"ratelimit-policy", b", ".join(_policy(quota) for quota in quotas))
        kinds = dict.fromkeys(quota.kind for quota in quotas)
        self._kinds = tuple(_KindHeaders(kind, quotas) for kind in kinds)

    def of(self, backlogs_us: Sequence[int], wait_us: int = 0) -> tuple[Header, ...]:
        """`backlogs_us`: of each budget in turn, how long until it is full again (`Verdict.backlogs_us`).

        `wait_us`: of a refusal, when to ask again. No `t` is later than that: a client may believe either
        (section 6.3 of the draft).
        """
        if not self._kinds:
            return ()
        values: list[int] = []
        resets_ms: list[int] = []
        for rate, backlog_us in zip(self._rates, backlogs_us, strict=True):
            left_us = rate.window_us - backlog_us
            soonest_us = min(backlog_us, wait_us) if wait_us else backlog_us
            values += (rate.units(left_us) if left_us > 0 else 0, -(-soonest_us // 1_000_000))
            resets_ms.append(-(-backlog_us // 1000))
        headers: list[Header] = []
        for kind in self._kinds:
            index = kind.only
            if index is None:
                index = kind.tightest(values, resets_ms)
            headers += (
                kind.limits[index],
                (kind.remaining_name, b"%d" % values[2 * index]),
                (kind.reset_name, duration(resets_ms[index])),
            )
        return (*headers, (b"ratelimit", self._items % tuple(values)), self._policy)


class _KindHeaders:
    """OpenAI's headers of one kind, as far as they are always the same, by the number of a quota.

    `only` is that of a kind's single quota.
    """

    __slots__ = ("limits", "only", "remaining_name", "reset_name")

    def __init__(self, kind: Kind, quotas: Sequence[Quota]) -> None:
        name = kind.encode()
        self.remaining_name = b"x-ratelimit-remaining-" + name
        self.reset_name = b"x-ratelimit-reset-" + name
        self.limits: dict[int, Header] = {
            number: (b"x-ratelimit-limit-" + name, b"%d" % quota.rate.capacity)
            for number, quota in enumerate(quotas)
            if quota.kind == kind
        }
        self.only = next(iter(self.limits)) if len(self.limits) == 1 else None

    def tightest(self, values: Sequence[int], resets_ms: Sequence[int]) -> int:
        """Where least remains or, of equals, where it takes longest to be full."""
        return min(self.limits, key=lambda number: (values[2 * number], -resets_ms[number]))


def jittered_us(time_us: int, jitter: float) -> int:
    """Up to a tenth later, never sooner, if it is a while until then. `jitter` is 0 to 1."""
    return time_us if time_us <= _LONG_US else time_us + int(time_us * _JITTER * jitter)


def duration(time_ms: int) -> bytes:
    """As OpenAI writes it, which is as Go does: `120ms`, `1s`, `8.64s`, `6m0s`, `1h0m0.5s`."""
    if 0 < time_ms < 1000:
        return b"%dms" % time_ms
    fraction = _FRACTIONS[time_ms % 1000]
    seconds = time_ms // 1000
    if seconds < 60:
        return b"%d%bs" % (seconds, fraction)
    minutes = seconds // 60
    if minutes < 60:
        return b"%dm%d%bs" % (minutes, seconds % 60, fraction)
    return b"%dh%dm%d%bs" % (minutes // 60, minutes % 60, seconds % 60, fraction)


def _item(quota: Quota) -> bytes:
    return b'"%b-%b";r=%%d;t=%%d' % (quota.name.encode(), quota.kind.encode())


def _policy(quota: Quota) -> bytes:
    """The draft's registry has no unit for tokens; the prefix says that this one is ours."""
    unit = b"" if quota.kind == "requests" else b';qu="turnout-tokens"'
    window_s = -(-quota.rate.window_us // 1_000_000)
    name = b"%b-%b" % (quota.name.encode(), quota.kind.encode())
    return b'"%b";q=%d%b;w=%d' % (name, quota.rate.capacity, unit, window_s)
