"""Whether a request may come in: its limits are asked before it is dispatched, and settled after it.

What was reserved for it becomes what it used, exactly once, whatever became of it.
"""

from collections.abc import Mapping, Sequence
from itertools import count
from random import Random
from secrets import token_hex

from policies.limits.ask import ADMITTED, ENDLESS, Ask, Budget, Slots
from policies.limits.cost import NEVER, CostModel, Expected, Reserve
from policies.limits.rules import Bucket, Limit, Plan, Rules, Subject
from policies.limits.usage import Delivered, Size, Used
from router.api.errors import RateLimitExceeded, RequestExceedsLimit
from router.api.limit_headers import LimitHeaders, Quota, jittered_us
from router.api.openai import read_user
from router.api.request import InferenceRequest
from router.api.request_size import size_of
from router.control.keys import Caller
from router.control.limits.store import LimitStore
from router.engines.named_events import NAMED_EVENTS
from router.fleet.decision import LimitCheck
from router.fleet.routes import Route
from router.flow.call import Call
from router.flow.limited import Limited
from router.flow.overrun import Overrun

SLOT_WAIT_US = 1_000_000
"""When to ask again where all slots are taken: nobody knows when one of their requests will end."""


class Gate:
    """Asks all limits of a request at once: it is let in by all of them, or takes nothing of any."""

    def __init__(self, rules: Rules, store: LimitStore, costs: CostModel | None = None) -> None:
        """`costs` is what another gate has learned of what requests use."""
        self._rules = rules
        self._store = store
        self.costs = costs or CostModel()
        self._router = token_hex(6)
        self._numbers = count()
        self._random = Random()
        self._headers: dict[Sequence[tuple[str, str]], LimitHeaders] = {}

    async def admit(self, call: Call) -> None:
        """Reserve what `call` is likely to use.

        Raises `RateLimitExceeded`, `RequestExceedsLimit` for what no wait would help, and `Overloaded` where
        the store is away and nothing may pass without it.
        """
        request, route = call.request, call.route
        assert request is not None
        assert route is not None
        plan = self._rules.plan(self._subject(call.caller, request, route))
        if not plan.buckets and not plan.slots:
            return
        size = _size(call, request, route)
        expected = self._expect(plan, size)
        units, budgets = _reserve(plan, expected)
        limited = call.limited = Limited(plan, size, units)
        if NEVER in units:
            raise _never(limited, expected)
        ask = Ask(f"{self._router}{next(self._numbers):x}", budgets, plan.slots)
        reservation = await self._store.admit(ask)
        verdict = reservation.verdict
        if verdict.refused != ADMITTED:
            wait_us = jittered_us(verdict.wait_us, self._random.random()) or SLOT_WAIT_US
            limited.headers = self._headers_of(plan).of(verdict.backlogs_us, wait_us)
            raise _refusal(limited, verdict.refused, wait_us)
        # Before all that could fail: from here on it is settled whatever happens.
        limited.reservation = reservation
        limited.headers = self._headers_of(plan).of(verdict.backlogs_us)
        limited.said = plan.admitted
        if plan.stops and request.stream and request.endpoint not in NAMED_EVENTS:
            limited.bound(Overrun(self._store, ask.id, plan.stops, _granted(limited, expected)))

    def settle(self, call: Call) -> None:
        """The request is over, and this is what it used. Does nothing for one that was not admitted."""
        limited = call.limited
        if limited is None or limited.reservation is None:
            return
        reservation, limited.reservation = limited.reservation, None
        plan, overrun = limited.plan, limited.overrun
        # A request that no replica was ever asked was not started.
        shifts = [0 if call.tries else -cost_us for _, cost_us, _ in plan.budgets]
        try:
            subject, most = plan.subject, max(limited.units, default=0)
            used = self.costs.settle(subject.tenant, subject.model, limited.size, most, _delivered(call))
            for index, bucket in plan.counting:
                reserved, charged = limited.units[index], bucket.price.tokens(used)
                limited.reserved_tokens, limited.charged_tokens = reserved, charged
                shifts[index] = bucket.rate.cost_us(charged) - bucket.rate.cost_us(reserved)
                if overrun is not None:
                    shifts[index] -= overrun.extra_us(bucket)
        finally:
            # Where the use cannot be told what was reserved is charged; slots are free in any case.
            reservation.settle(shifts)
            if overrun is not None:
                overrun.settle()

    async def look(self, caller: Caller, request: InferenceRequest, route: Route) -> list[LimitCheck]:
        """What each limit would say of this request now, by itself. Takes nothing."""
        plan = self._rules.plan(self._subject(caller, request, route))
        expected = self._expect(plan, size_of(request))
        units, _ = _reserve(plan, expected)
        # An empty cost looks at the bucket alone: all are to be seen, not the tightest.
        free = [bucket.budget._replace(cost_us=0) for bucket in plan.buckets]
        now = await self._store.look(Ask("", free, [Slots(key, ENDLESS) for key, _ in plan.slots]))
        return [
            *map(_budget_check, plan.buckets, units, now.backlogs_us),
            *map(_slots_check, plan.concurrent, now.held),
        ]

    def _headers_of(self, plan: Plan) -> LimitHeaders:
        """One object for all subjects under the same limits."""
        headers = self._headers.get(plan.admitted)
        if headers is None:
            quotas = [Quota(bucket.limit.name, bucket.kind, bucket.rate) for bucket in plan.buckets]
            headers = self._headers[plan.admitted] = LimitHeaders(quotas)
        return headers

    def _subject(self, caller: Caller, request: InferenceRequest, route: Route) -> Subject:
        user = read_user(request.members) if self._rules.reads_user else ""
        return Subject(caller.tenant, caller.key_id, user, route.model, route.version)

    def _expect(self, plan: Plan, size: Size) -> Mapping[Reserve, Expected]:
        """By the ways in which the plan's limits reserve."""
        subject = plan.subject
        return {
            reserve: self.costs.expect(subject.tenant, subject.model, size, reserve)
            for reserve in plan.reserves
        }


def _size(call: Call, request: InferenceRequest, route: Route) -> Size:
    """With the prompt's tokens counted, where a tokenizer does so anyway."""
    size = size_of(request)
    if not route.pool.hasher.counts:
        return size
    facts = call.facts = route.pool.facts(request)
    prompt = facts.prompt
    return size if prompt is None or not prompt.exact else size._replace(exact_tokens=prompt.tokens)


def _reserve(plan: Plan, expected: Mapping[Reserve, Expected]) -> tuple[list[int], list[Budget]]:
    """What to take of each bucket, in units and as budgets; `NEVER` if that is more than it can ever give."""
    units, budgets = [1] * len(plan.budgets), list(plan.budgets)
    for index, bucket in plan.counting:
        rate, (key, _, window_us) = bucket.rate, bucket.budget
        units[index] = taken = expected[bucket.limit.output_reserve].within(rate.capacity)
        budgets[index] = Budget(key, rate.cost_us(taken), window_us)
    return units, budgets


def _granted(limited: Limited, expected: Mapping[Reserve, Expected]) -> int:
    """Output tokens for which enough is reserved in every bucket that would end the stream."""
    plan = limited.plan
    return max(
        0,
        min(
            units - expected[bucket.limit.output_reserve].prompt_tokens
            for bucket, units in zip(plan.buckets, limited.units, strict=True)
            if bucket in plan.stops
        ),
    )


def _budget_check(bucket: Bucket, units: int, backlog_us: int) -> LimitCheck:
    rate = bucket.rate
    wait_us = backlog_us + rate.cost_us(units) - rate.window_us
    return LimitCheck(
        limit=bucket.limit.name,
        kind=bucket.kind,
        takes=units,
        remaining=rate.units(max(0, rate.window_us - backlog_us)),
        admits=units != NEVER and wait_us <= 0,
        wait_s=None if units == NEVER else max(0, wait_us) / 1e6,
    )


def _slots_check(limit: Limit, held: int) -> LimitCheck:
    """`held` is with one more."""
    most = limit.concurrency or 0
    left = most - held + 1
    return LimitCheck(limit.name, "concurrency", 1, max(0, left), left > 0, 0.0 if left > 0 else None)


def _delivered(call: Call) -> Delivered:
    usage, request = call.usage, call.request
    (ending, pieces), sent = call.delivered, call.tries > 0
    body_bytes = 0
    if call.status == 200 and request is not None and not request.stream:
        body_bytes = call.exchange.bytes_out
    if usage is None:
        return Delivered(ending, sent, None, pieces, body_bytes)
    reported = Used(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens or 0)
    return Delivered(ending, sent, reported, pieces, body_bytes)


def _refusal(limited: Limited, index: int, wait_us: int) -> RateLimitExceeded:
    limit, kind = limited.plan.limit_of(index)
    limited.said = [(limit.name, "refused")]
    wait_s = wait_us / 1e6
    if kind == "concurrency":
        text = f"limit {limit.name!r}: {limit.concurrency} requests are open already"
    else:
        text = f"limit {limit.name!r}: its {kind} per minute are used up; try again in {wait_s:.3g} s"
    return RateLimitExceeded(text, retry_after_s=wait_s)


def _never(limited: Limited, expected: Mapping[Reserve, Expected]) -> RequestExceedsLimit:
    bucket = limited.plan.buckets[limited.units.index(NEVER)]
    limited.said = [(bucket.limit.name, "exceeds")]
    least = expected[bucket.limit.output_reserve].least_tokens
    return RequestExceedsLimit(
        f"limit {bucket.limit.name!r} admits at most {bucket.rate.capacity} tokens at once, "
        f"and this prompt has at least about {least}: shorten it"
    )
