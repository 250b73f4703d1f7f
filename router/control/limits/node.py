"""One server: whether it is there, and that nobody waits long for one that is not.

Away it is tried four times a second on a fresh connection. It is here again when it takes a beat in time.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from router.control.limits.failures import Failure, Kind
from router.control.limits.members import BEAT_S, Members
from router.control.limits.redis_link import Call, Endpoint, Link, Pending
from router.control.limits.scripts import Scripts, pack

log = logging.getLogger("turnout.control.limits")

PROBE_S = 0.25
SETUP_S = 1.0
MOST_DELAYED = 3
"""So many requests may find out that a server is not there; the others are decided without it."""

Returned = Callable[["Node"], None]
Learned = Callable[["Node", Sequence[Any], bytes], None]
_DISTRUSTED = Failure(Kind.LATE, "others wait for it already")
_LATE = Failure(Kind.LATE, "it did not answer in time")


class NotCounting(Exception):
    """The server is there and says that it cannot count."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.text)
        self.failure = failure


class Node:
    """`returned` is called when it is there, before anybody else may use it.

    `learned` is called before that, of a node of a cluster: with what it says of all, and its own id.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        scripts: Scripts,
        timeout_s: float,
        members: Members,
        *,
        returned: Returned,
        learned: Learned,
        patient: bool,
    ) -> None:
        """`patient`: everybody waits for the whole timeout, as nothing else can answer."""
        self.here = False
        self.stale = False
        """Its oldest command has been on its way for longer than is usual."""
        self.failures = 0
        """Calls in a row that were not answered in time."""
        self.lost = 0
        self.tag = "turnout:{turnout}"
        """Where it keeps who counts with it."""
        self.members = members
        self.clustered = False
        self.arrived = asyncio.Event()
        self._endpoint = endpoint
        self._scripts = scripts
        self._timeout_s = timeout_s
        self._returned = returned
        self._learned = learned
        self._patient = patient
        self._link = Link(self._heard, self._lost)
        self._gone = asyncio.Event()
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._complained = ""
        self._warned = False

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        if self.here:
            leaving = self.call(self.members.beat(self.tag, leaves=True))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._timeout_s):
                    await leaving
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def address(self) -> tuple[str, int]:
        return self._endpoint.host, self._endpoint.port

    @property
    def ready(self) -> bool:
        """Whether to wait for it is worth it."""
        if not self.stale:
            return self.here
        return self.here and (self._patient or len(self._link.waiting) < MOST_DELAYED)

    @property
    def steady(self) -> bool:
        return self.here and not self.stale

    def call(self, command: bytes) -> Call:
        """Ends within the timeout, with a `Failure` if need be."""
        call = Call()
        self.post(command, call)
        return call

    def post(self, command: bytes, pending: Pending) -> None:
        """Nobody waits for this one: it ends with the connection at the latest."""
        pending.tick = self._ticks
        pending.sent_at = monotonic()
        self._link.send(command, pending)
        if self._timer is None and self._link.waiting:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s / 10, self._tick)

    def failed(self, failure: Failure) -> None:
        """Somebody was told so instead of an answer."""
        if failure.kind in (Kind.LATE, Kind.AGAIN):
            return
        if failure.kind is Kind.DEFECT:
            self.failures += 1
        if failure.kind is not Kind.DEFECT or self.failures >= MOST_DELAYED:
            self._go(failure)

    # ---- the clock of those who wait ----

    def _tick(self) -> None:
        """Counted in looks at the socket too: what this process has slept through is nobody's delay."""
        self._timer = None
        self._ticks += 1
        waiting = self._link.waiting
        if not waiting:
            return
        now = monotonic()
        waited_s = now - waiting[0].sent_at
        looks = self._ticks - waiting[0].tick
        if looks >= 2 and waited_s >= self._timeout_s / 5:
            self.stale = True
            self._spare(now)
        if self.failures >= MOST_DELAYED or (looks >= 10 and waited_s >= 10 * self._timeout_s):
            self._go(_LATE)
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s / 10, self._tick)

    def _spare(self, now: float) -> None:
        latest = now - self._timeout_s * 0.95
        for index, pending in enumerate(list(self._link.waiting)):
            if self._ticks - pending.tick >= 2 and pending.sent_at <= latest:
                self.failures += pending.expire(_LATE)
            elif index >= MOST_DELAYED and not self._patient:
                pending.expire(_DISTRUSTED)

    def _heard(self) -> None:
        self.stale = False

    # ---- coming and going ----

    def _lost(self, failure: Failure) -> None:
        self._go(failure)

    def _go(self, failure: Failure) -> None:
        if not self.here:
            return
        self.here = False
        self.lost += 1
        self.arrived.clear()
        self._complain(failure)
        self._gone.set()
        self._link.end(failure.text)

    def _complain(self, failure: Failure) -> None:
        """One line for each reason in a row."""
        if failure.text == self._complained:
            return
        self._complained = failure.text
        level = logging.ERROR if failure.kind is Kind.MISCONFIGURED else logging.WARNING
        text = "limits are not counted at %s:%d: %s (%s)"
        log.log(level, text, *self.address, failure.kind.value, failure.text)

    async def _keep(self) -> None:
        while True:
            try:
                await self._stay()
            except (OSError, TimeoutError) as error:
                self._complain(Failure(Kind.AWAY, str(error) or "it does not answer"))
            except NotCounting as error:
                self._complain(error.failure)
            await asyncio.sleep(PROBE_S)

    async def _stay(self) -> None:
        """From a fresh connection until it is lost. Raises `OSError`, `TimeoutError` or `NotCounting`."""
        link = Link(self._heard, self._lost)
        try:
            async with asyncio.timeout(SETUP_S):
                await self._endpoint.connect(link)
                await self._greet(link)
            async with asyncio.timeout(self._timeout_s):
                await self._beat(link)
            self._come(link)
            while self.here:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_S):
                        await self._gone.wait()
                if self.here:
                    self._hear(await self._call(self.members.beat(self.tag)))
        finally:
            self.here = False
            link.end("this process has closed it")

    async def _greet(self, link: Link) -> None:
        commands = [*self._endpoint.greeting(), *(script.load() for script in self._scripts.all)]
        calls = [_send(link, command) for command in commands]
        own_id, slots = _send(link, pack(("CLUSTER", "MYID"))), _send(link, pack(("CLUSTER", "SLOTS")))
        memory = _send(link, pack(("INFO", "memory")))
        for call in calls:
            await call
            if isinstance(call.reply, Failure):
                raise NotCounting(call.reply)
        await memory
        if not isinstance(memory.reply, Failure):
            self._check_memory(memory.reply)
        self.clustered = not isinstance(slots.reply, Failure)
        if self.clustered:
            self._learned(self, slots.reply, own_id.reply)

    def _check_memory(self, info: bytes) -> None:
        fields = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
        policy = fields.get("maxmemory_policy", "noeviction")
        warned, self._warned = self._warned, True
        if policy != "noeviction" and fields.get("maxmemory", "0") != "0" and not warned:
            text = "maxmemory-policy %s of %s:%d may drop limits; noeviction keeps them"
            log.warning(text, policy, *self.address)

    async def _beat(self, link: Link) -> None:
        call = _send(link, self.members.beat(self.tag))
        await call
        if isinstance(call.reply, Failure):
            raise NotCounting(call.reply)
        self._hear(call.reply)

    async def _call(self, command: bytes) -> Any:
        call = self.call(command)
        await call
        return call.reply

    def _hear(self, reply: Any) -> None:
        if isinstance(reply, Failure):
            self.failed(reply)
        else:
            self.members.read(*reply)

    def _come(self, link: Link) -> None:
        self._link = link
        self._gone.clear()
        self.here, self.stale, self.failures = True, False, 0
        if self._complained:
            log.info("limits are counted at %s:%d again", *self.address)
            self._complained = ""
        self._returned(self)
        self.arrived.set()


def _send(link: Link, command: bytes) -> Call:
    call = Call()
    link.send(command, call)
    return call
