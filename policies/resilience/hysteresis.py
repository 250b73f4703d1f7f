"""Whether a replica is up, from probes that may flap: slow to change its mind, slower when it keeps changing.

Rule 1: only a streak changes the verdict, `up_after` good probes or `down_after` bad ones.
Rule 2: a replica that keeps flipping is held down for a while, whatever its probes say.
"""

import enum
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from types import MappingProxyType
from typing import Final


class State(enum.Enum):
    UP = "up"
    DOWN = "down"
    HELD = "held"
    """Down for flapping, until the hold is over."""


class Event(enum.Enum):
    ROSE = "rose"
    """Enough good probes in a row."""
    FELL = "fell"
    """Enough bad probes in a row."""
    FLAPPED = "flapped"
    """It rose or fell once too often within the window."""
    RELEASED = "released"
    """The hold is over."""


TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = MappingProxyType(
    {
        (State.DOWN, Event.ROSE): State.UP,
        (State.UP, Event.FELL): State.DOWN,
        (State.DOWN, Event.FLAPPED): State.HELD,
        (State.UP, Event.FLAPPED): State.HELD,
        (State.HELD, Event.RELEASED): State.DOWN,
    }
)
"""Every change there is; any other pair changes nothing."""


class Hysteresis:
    """The verdict on one replica. `good` and `bad` are the lengths of the present streak, one of them 0."""

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        up_after: int = field(
            default=2, metadata={"advice": "Good probes in a row before a replica gets traffic."}
        )
        down_after: int = field(
            default=3, metadata={"advice": "Bad probes in a row before a replica gets none."}
        )
        max_flips: int = field(
            default=5,
            metadata={"advice": "Changes within flip_window_s after which a replica is held down."},
        )
        flip_window_s: float = field(
            default=60.0, metadata={"advice": "How long a change counts towards max_flips."}
        )
        hold_s: float = field(
            default=30.0, metadata={"advice": "How long a flapping replica is held down, in seconds."}
        )

        def __post_init__(self) -> None:
            for name in ("up_after", "down_after", "max_flips"):
                if getattr(self, name) < 1:
                    raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
            for name in ("flip_window_s", "hold_s"):
                if not 0 < getattr(self, name) < inf:
                    raise ValueError(f"{name} must be more than 0 seconds, got {getattr(self, name)}")

    def __init__(self, options: Options, *, up: bool = True) -> None:
        self._options = options
        self._flips: deque[float] = deque(maxlen=options.max_flips)
        self._held_until = 0.0
        self.state = State.UP if up else State.DOWN
        self.good = 0
        self.bad = 0

    @property
    def up(self) -> bool:
        return self.state is State.UP

    def observe(self, good: bool, now: float) -> State:
        """One probe's result; `now` in seconds, never less than before. The state after it."""
        self.good = self.good + 1 if good else 0
        self.bad = 0 if good else self.bad + 1
        if self.state is State.HELD and now >= self._held_until:
            self._apply(Event.RELEASED)
        if self.good >= self._options.up_after:
            self._flip(Event.ROSE, now)
        elif self.bad >= self._options.down_after:
            self._flip(Event.FELL, now)
        return self.state

    def _flip(self, event: Event, now: float) -> None:
        if (self.state, event) not in TRANSITIONS:
            return
        self._flips.append(now)
        flips = self._flips
        if len(flips) == flips.maxlen and now - flips[0] <= self._options.flip_window_s:
            flips.clear()
            self._held_until = now + self._options.hold_s
            event = Event.FLAPPED
        self._apply(event)

    def _apply(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
