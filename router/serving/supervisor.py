"""Several processes as one router: starts them, replaces those that die, renews them one by one, ends them.

A plain process without an event loop, which forks: a replacement serves within a fraction of a second, and
shares the memory of what was loaded. No request passes through it. Number 0 is the overview with the admin
listener, the others are workers.

SIGTERM or SIGINT goes on to every worker, and to the overview when they are done; a second one ends all at
once. SIGHUP goes on to the overview, which reads the configuration anew; if that has not changed the workers
are renewed, each new one ready before its predecessor drains.
"""

import logging
import os
import selectors
import signal
from collections import deque
from collections.abc import Callable
from time import monotonic

from router.serving.children import STOP, Child, Nursery, Run, SignalQueue

log = logging.getLogger("turnout.supervisor")

OVERVIEW = 0
STARTS = 5
"""So many failed starts in a row of one process, and the router gives up."""
LONGEST_PAUSE_S = 5.0
SOUND_S = 10.0
"""A process that lived so long was sound: its death is the first again."""
KILL_AFTER_S = 3.0
"""After a second signal, which asks for an end within about a second."""


def pause_s(failures: int) -> float:
    """Before a process is started again: none after the first death, then 0.1 s, 0.2 s, 0.4 s ..."""
    return 0.0 if failures <= 1 else min(LONGEST_PAUSE_S, 0.1 * 2 ** (failures - 2))


class Supervisor:
    """Keeps one overview and `workers` workers running. `announce` is called when all are ready.

    `changed`: there is another configuration than the one in force, so that a SIGHUP is about that.
    """

    def __init__(
        self,
        run: Run,
        workers: int,
        announce: Callable[[], None],
        changed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._numbers = range(workers + 1)
        self._announce: Callable[[], None] | None = announce
        self._changed = changed
        self._nursery = Nursery(run)
        self._signals = SignalQueue()
        self._selector = selectors.DefaultSelector()
        self._children: list[Child] = []
        self._failures = dict.fromkeys(self._numbers, 0)
        self._due: dict[int, float] = {}
        self._renewing: deque[int] = deque()
        self._stops = 0
        self._kill_at: float | None = None
        self._code = 0

    def run(self) -> int:
        """Until everything has ended. Returns the exit code."""
        with self._signals.caught():
            self._selector.register(self._signals, selectors.EVENT_READ)
            for number in self._numbers:
                self._start(number)
            while self._children or self._due:
                self._turn()
        self._selector.close()
        self._nursery.close()
        return 130 if self._stops > 1 else self._code

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._patience_s()):
            if isinstance(key.data, Child):
                self._hear(key.data)
        for number in self._signals.take():
            self._obey(number)
        for child in list(self._children):
            code = child.ended()
            if code is not None:
                self._buried(child, code)
        self._start_due()

    def _patience_s(self) -> float | None:
        times = [*self._due.values(), *([] if self._kill_at is None else [self._kill_at])]
        return max(0.0, min(times) - monotonic()) if times else None

    # ---- births ----

    def _start(self, number: int) -> None:
        child = self._nursery.fork(number, self._let_go)
        self._children.append(child)
        self._selector.register(child.ears, selectors.EVENT_READ, child)

    def _let_go(self) -> None:
        """In the child: what is the supervisor's alone."""
        self._selector.close()
        self._signals.forget()
        for each in self._children:
            os.close(each.ears)

    def _start_due(self) -> None:
        now = monotonic()
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number)
        if self._kill_at is not None and self._kill_at <= now:
            self._kill_at = None
            for child in self._children:
                child.send(signal.SIGKILL)

    def _hear(self, child: Child) -> None:
        if not child.listen():
            self._selector.unregister(child.ears)
        elif child.ready:
            self._became_ready(child)

    def _became_ready(self, child: Child) -> None:
        for older in self._children:
            if older.number == child.number and older is not child and not older.retiring:
                log.info("%s has its successor and drains", _name(older))
                older.retiring = True
                older.send(STOP)
        if self._announce is not None and all(self._ready(number) for number in self._numbers):
            self._announce()
            self._announce = None
        if self._renewing and self._renewing[0] == child.number:
            self._renewing.popleft()
            self._renew()

    def _ready(self, number: int) -> bool:
        return any(child.ready for child in self._children if child.number == number)

    # ---- deaths ----

    def _buried(self, child: Child, code: int) -> None:
        while child.listen():
            pass
        if child.ears in self._selector.get_map():
            self._selector.unregister(child.ears)
        os.close(child.ears)
        self._children.remove(child)
        if self._stops:
            self._code = self._code or (1 if code and child.ready else 0)
            self._end_overview()
        elif not child.retiring:
            self._mourn(child, code)

    def _mourn(self, child: Child, code: int) -> None:
        """It died before its time."""
        log.error("%s %s%s", _name(child), _cause(code), f": {child.said.strip()}" if child.said else "")
        number = child.number
        sound = child.ready and monotonic() - child.born_at >= SOUND_S
        self._failures[number] = 1 if sound else self._failures[number] + 1
        if any(each.number == number for each in self._children):
            if not child.ready:
                log.error("the workers are not renewed any further")
                self._renewing.clear()
        elif not child.ready and self._failures[number] >= STARTS:
            log.error("%s failed to start %d times; the router ends", _name(child), STARTS)
            self._code = 1
            self._stop()
        else:
            self._due[number] = monotonic() + pause_s(self._failures[number])

    # ---- signals ----

    def _obey(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number is signal.SIGHUP and not self._stops:
            self._reload()

    def _reload(self) -> None:
        for child in self._children:
            if child.number == OVERVIEW:
                child.send(signal.SIGHUP)
        if self._changed():
            log.info("the configuration has changed: it is read anew, and the workers stay")
        elif not self._renewing:
            log.info("renewing the workers, one by one")
            self._renewing.extend(self._numbers[1:])
            self._renew()

    def _renew(self) -> None:
        """Start the successor of the next one; when it is ready, this goes on."""
        if self._renewing and self._renewing[0] not in self._due:
            self._start(self._renewing[0])

    def _stop(self) -> None:
        """The first time let everybody finish, the second time end at once."""
        self._stops += 1
        self._due.clear()
        self._renewing.clear()
        if self._stops == 2:
            self._kill_at = monotonic() + KILL_AFTER_S
        for child in self._children:
            if child.number != OVERVIEW or self._stops > 1:
                child.send(STOP)
        self._end_overview()

    def _end_overview(self) -> None:
        """It goes last, so that a drain can be watched to its end."""
        if all(child.number == OVERVIEW for child in self._children):
            for child in self._children:
                child.send(STOP)


def _name(child: Child) -> str:
    role = "the overview" if child.number == OVERVIEW else f"worker {child.number}"
    return f"{role} (process {child.pid})"


def _cause(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
