"""Shadow traffic: copies of requests for a version under test; their answers are compared and thrown away.

A copy is sent when the client of its request has everything. So it cannot delay that client, none is made of
a request that failed, and there is something to compare with. Whatever becomes of it, no client, no limit and
no metric of clients hears of it; and wherever there is too little of something, copies are what goes first.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random
from time import time
from typing import Final, Protocol

from policies.release.pairs import Agreement, Answered, Pair, agreement
from router.api.errors import Fault, RouterDraining, TotalTimeout, TurnoutError, VersionRetired
from router.api.request import InferenceRequest
from router.fleet.pools import Pool
from router.fleet.routes import Fleet, Route
from router.flow.call import Call, Limits
from router.flow.shadow_copy import GENERATES, NobodysExchange, answered, is_comparable, is_greedy
from router.flow.transcript import Transcript
from router.observe.events import Copied

log = logging.getLogger("turnout.flow.shadow")

KEPT_BYTES: Final = 256 * 1024
"""Of each of two greedy answers: well over a thousand tokens of a stream. They part early, or not at all."""
_ANSWER_SHARE: Final = 2
"""A copy's whole answer may be so many times as long as the client's was."""


class Dispatches(Protocol):
    """Answers calls; `router.flow.dispatch.Dispatcher` does."""

    async def dispatch(self, call: Call) -> None: ...


@dataclass(frozen=True, slots=True)
class ShadowPlan:
    """`[models.M.shadow]`. `limits` are those of a copy: they bound its whole answer too."""

    version: str
    fraction: float
    max_open: int
    max_bytes: int
    timeout_s: float
    limits: Limits


class Lane:
    """The copies of one model: where they go, and the room they take."""

    __slots__ = ("dispatcher", "held_bytes", "open", "plan")

    def __init__(self, plan: ShadowPlan, dispatcher: Dispatches) -> None:
        self.plan = plan
        self.dispatcher = dispatcher
        self.open = 0
        self.held_bytes = 0
        """What copies hold or may come to hold, and what is kept of answers that will be copied."""

    def hold(self, size: int) -> bool:
        """Take room, if there is as much."""
        if self.held_bytes + size > self.plan.max_bytes:
            return False
        self.held_bytes += size
        return True

    def needs(self, request: InferenceRequest, most: int) -> int:
        """Bytes that a copy of it may come to hold, `most` of them of its answer's text."""
        return len(request.body) + most + (0 if request.stream else self.plan.limits.max_answer_bytes)


@dataclass(frozen=True, slots=True)
class _Copy:
    """What is left of a request that was answered: enough to send it again and to compare."""

    request: InferenceRequest
    route: Route
    against: str
    served: Answered
    transcript: Transcript
    held_bytes: int


class Shadows:
    """Draws which requests are copied, and sends the copies. `observer` is told of each what became of it."""

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        fleet: Callable[[], Fleet],
        observer: Callable[[Copied], None],
        random: Random,
        *,
        draining: Callable[[], bool],
    ) -> None:
        """`lanes` by model. Nothing is drawn any more while the router is `draining`."""
        self.lanes = lanes
        self._fleet = fleet
        self._observer = observer
        self._random = random
        self._draining = draining
        self._open: dict[asyncio.Task[Copied], Pool] = {}

    # ---- for the flow ----

    def consider(self, call: Call) -> None:
        """Draw, before it is dispatched, whether this call is to be copied; if so, its answer is kept."""
        request, route = call.request, call.route
        assert request is not None
        assert route is not None
        lane = self.lanes.get(route.model)
        if lane is None or route.version == lane.plan.version or request.endpoint not in GENERATES:
            return
        if self._random.random() >= lane.plan.fraction or self._draining():
            return
        keeps = is_greedy(request) and lane.hold(KEPT_BYTES)
        call.transcript = Transcript(KEPT_BYTES if keeps else 0)

    def after(self, call: Call, error: TurnoutError | None) -> None:
        """The client has its answer, or gets `error`: send a copy, if it is to be and there is room."""
        transcript, route = call.transcript, call.route
        if transcript is None:
            return
        assert route is not None
        lane = self.lanes[route.model]
        try:
            event = self._try(lane, call, error)
        except Exception:
            log.exception("a copy for the shadow version met a defect of the router; its client did not")
            event = self._event(lane, route, "failed", "internal_error")
        if event.result != "sent":
            lane.held_bytes -= transcript.most
        self._observer(event)

    def make_room(self, pool: Pool) -> None:
        """A client has to wait for room in this pool: no copy may be what it waits for."""
        for task, used in self._open.items():
            if used is pool:
                task.cancel()

    def retire(self) -> None:
        """Others take its place: nothing more is drawn or sent, and what is under way ends."""
        self._draining = lambda: True
        for task in self._open:
            task.cancel()

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._open)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def open(self) -> int:
        """Copies that are under way."""
        return len(self._open)

    # ---- before a copy is sent ----

    def _try(self, lane: Lane, call: Call, error: TurnoutError | None) -> Copied:
        """Send the copy, or say why not."""
        request, route, transcript = call.request, call.route, call.transcript
        assert request is not None
        assert route is not None
        assert transcript is not None
        tell = partial(self._event, lane, route)
        is_own = route.version == lane.plan.version
        if is_own or self._draining() or not is_comparable(call, error):
            return tell("skipped")
        target = self._fleet().routes.get(f"{route.model}@{lane.plan.version}")
        if target is None:
            return tell("dropped_unavailable", VersionRetired.code)
        try:
            if _is_busy(route.pool) or target.pool.queued or not target.pool.has_room(request):
                return tell("dropped_saturated")
        except TurnoutError as refusal:
            return tell("dropped_unavailable", refusal.code)
        # All that could fail comes before anything is taken.
        served, needs = answered(call, error), lane.needs(request, transcript.most)
        is_long = (
            not request.stream and _ANSWER_SHARE * call.exchange.bytes_out > lane.plan.limits.max_answer_bytes
        )
        if lane.open >= lane.plan.max_open or is_long or not lane.hold(needs):
            return tell("dropped_budget")
        copy = _Copy(request, target, route.version, served, transcript, needs + transcript.most)
        self._send(lane, copy)
        return tell("sent")

    def _event(
        self, lane: Lane, route: Route, result: str, code: str = "", pair: Pair | None = None
    ) -> Copied:
        return Copied(route.model, route.version, lane.plan.version, result, code, pair)

    # ---- a copy on its way ----

    def _send(self, lane: Lane, copy: _Copy) -> None:
        task = asyncio.get_running_loop().create_task(self._run(lane, copy))
        self._open[task] = copy.route.pool
        lane.open += 1
        # In a callback, because a task that is cancelled before its first step runs nothing of its own.
        task.add_done_callback(partial(self._ended, lane, copy))

    def _ended(self, lane: Lane, copy: _Copy, task: asyncio.Task[Copied]) -> None:
        del self._open[task]
        lane.open -= 1
        lane.held_bytes -= copy.held_bytes
        if task.cancelled():
            event = self._told(copy, "stopped")
        elif (defect := task.exception()) is not None:
            log.error("a copy for the shadow version met a defect of the router", exc_info=defect)
            event = self._told(copy, "failed", "internal_error")
        else:
            event = task.result()
        self._observer(event)

    async def _run(self, lane: Lane, copy: _Copy) -> Copied:
        """Ask, and compare. Its own time limit is no failure of the replica: it may just be slower."""
        request = copy.request
        transcript = Transcript(copy.transcript.most)
        call = Call(f"{request.id}-shadow", NobodysExchange(request), lane.plan.limits)
        call.request, call.route, call.transcript = request, copy.route, transcript
        try:
            async with asyncio.timeout(lane.plan.timeout_s):
                error = await _error_of(lane.dispatcher, call)
        except TimeoutError:
            return self._told(copy, "failed", TotalTimeout.code)
        if isinstance(error, RouterDraining):
            return self._told(copy, "stopped")
        if error is not None and error.fault is not Fault.CLIENT:
            return self._told(copy, "failed", error.code)
        texts = None if error is not None else await _texts(copy, transcript)
        pair = Pair(request.id, time(), copy.served, answered(call, error), texts)
        return self._told(copy, "compared", pair=pair)

    def _told(self, copy: _Copy, result: str, code: str = "", pair: Pair | None = None) -> Copied:
        route = copy.route
        return Copied(route.model, copy.against, route.version, result, code, pair)


class Shadowed:
    """A dispatcher whose answered calls may be copied."""

    def __init__(self, dispatcher: Dispatches, shadows: Shadows) -> None:
        self._dispatcher = dispatcher
        self._shadows = shadows

    async def dispatch(self, call: Call) -> None:
        """See `Dispatcher.dispatch`."""
        self._shadows.consider(call)
        error: TurnoutError | None = None
        try:
            error = await _error_of(self._dispatcher, call)
        finally:
            self._shadows.after(call, error)
        if error is not None and error is not call.error:
            raise error


async def _error_of(dispatcher: Dispatches, call: Call) -> TurnoutError | None:
    """Dispatch; what was wrong, whether raised or told within a stream."""
    try:
        await dispatcher.dispatch(call)
    except TurnoutError as error:
        return error
    return call.error


async def _texts(copy: _Copy, transcript: Transcript) -> Agreement | None:
    """How far two greedy answers agree; None where that cannot be said."""
    if not transcript.most:
        return None
    stream = copy.request.stream
    served, said = await copy.transcript.text(stream=stream), await transcript.text(stream=stream)
    if served is None or said is None:
        return None
    return agreement(served, said, cut=copy.transcript.cut or transcript.cut)


def _is_busy(pool: Pool) -> bool:
    """Clients wait for it, or would."""
    return pool.queued > 0 or pool.saturation >= 1
