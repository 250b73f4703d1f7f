"""Virtual time: what is due, in order. Nothing here waits."""

import heapq
from collections.abc import Callable
from typing import Any


class Timeline:
    """Calls what is due at its time, ties in the order in which they were asked for. Seconds from 0."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._asked = 0
        self._stopped = False

    def at(self, when: float, action: Callable[..., object], *arguments: Any) -> None:
        """Call `action(*arguments)` at `when`, or at once if that is past."""
        self._asked += 1
        heapq.heappush(self._due, (max(when, self.now), self._asked, action, arguments))

    def after(self, delay_s: float, action: Callable[..., object], *arguments: Any) -> None:
        self.at(self.now + delay_s, action, *arguments)

    def every(self, interval_s: float, phase_s: float, action: Callable[[], object]) -> None:
        """Call `action` at `phase_s` from now and then every `interval_s`, as long as time runs."""

        def again() -> None:
            action()
            self.after(interval_s, again)

        self.after(phase_s, again)

    def run(self) -> None:
        """Let time pass until nothing is due any more, or somebody has called `stop`."""
        due, pop = self._due, heapq.heappop
        while due and not self._stopped:
            self.now, _, action, arguments = pop(due)
            action(*arguments)

    def stop(self) -> None:
        self._stopped = True
