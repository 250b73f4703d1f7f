"""What is shown of limits: the buckets that are in use, and how the place is where they are counted."""

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from policies.limits.ask import ENDLESS, Ask, Slots
from policies.limits.rules import Limit, Plan, Rules, Subject
from router.api.errors import Overloaded
from router.config.model import Config
from router.control.limits.build import build_store
from router.control.limits.of_config import rules_of
from router.control.limits.store import LimitStore, StoreState, combined
from router.control.membership import Seat
from router.control.reports import LimitReport
from router.flow.admission import Gate

MAX_SUBJECTS = 200
"""Of those seen lately; each is asked for one by one."""


class BucketView(msgspec.Struct, frozen=True, kw_only=True):
    """One bucket that is not full, or slots that are taken. `kind`: requests, tokens or concurrency.

    `most` is what it holds, `remaining` what is left, `reset_s` how long until it is full again.
    """

    limit: str
    kind: str
    subject: dict[str, str]
    most: int
    remaining: int
    reset_s: float = 0.0


class StoreView(msgspec.Struct, frozen=True):
    """See `router.control.limits.store.StoreState`."""

    place: str
    healthy: bool
    shares: int
    unsettled: int
    unknown: int
    resets: int
    lost: int
    dropped: int = 0


class LimitsView(msgspec.Struct, frozen=True, kw_only=True):
    """All limits by name, where they are counted, and every bucket in use among those seen lately."""

    limits: list[str] = []
    store: StoreView | None = None
    buckets: list[BucketView] = []


def limit_board(config: Config, seat: Seat | None) -> "LimitBoard | None":
    """None where nothing is limited. Raises `OSError` if the folder of the seat cannot be used."""
    store = build_store(config, seat)
    return None if store is None else LimitBoard(rules_of(config), store)


async def board_for(config: Config, seat: Seat | None, board: "LimitBoard | None") -> "LimitBoard | None":
    """The `board` that is there, or where `config` is the first with limits, a new one that has started.

    Raises `OSError` as `limit_board` does.
    """
    if board is None:
        board = limit_board(config, seat)
        if board is not None:
            await board.store.start()
    return board


class LimitBoard:
    """Of one process: its limits, the store that counts them, and the gate that asks them."""

    def __init__(self, rules: Rules, store: LimitStore) -> None:
        self.rules = rules
        self.store = store
        self.gate = Gate(rules, store)
        self._heard: Sequence[StoreState] = []

    def renew(self, rules: Rules) -> None:
        """These are the limits from now on. Buckets whose limit goes on keep what is in them.

        Who was let in by the gate before is settled by it.
        """
        self.rules = rules
        self.gate = Gate(rules, self.store, self.gate.costs)

    def report(self) -> LimitReport:
        """For the overview of several workers."""
        return LimitReport(list(self._subjects), self.store.state)

    def hear(self, reports: Sequence[LimitReport]) -> None:
        """What the workers say."""
        for report in reports:
            for subject in report.subjects:
                self.rules.plan(subject)
        self._heard = [report.store for report in reports]

    @property
    def state(self) -> StoreState:
        """Of this process's store; where there are workers, of theirs together."""
        return combined(self._heard or [self.store.state])

    @property
    def _subjects(self) -> Sequence[Subject]:
        """Whose requests were seen lately."""
        return self.rules.subjects[-MAX_SUBJECTS:]

    async def view(self) -> LimitsView:
        buckets: dict[str, BucketView] = {}
        # Where nothing passes uncounted no bucket can be seen either; that the store is away can.
        with suppress(Overloaded):
            for subject in self._subjects:
                buckets |= await self._buckets(self.rules.plan(subject))
        return LimitsView(
            limits=[limit.name for limit in self.rules.limits],
            store=msgspec.convert(self.state, StoreView, from_attributes=True),
            buckets=sorted(buckets.values(), key=lambda each: (each.remaining / each.most, each.limit)),
        )

    async def _buckets(self, plan: Plan) -> dict[str, BucketView]:
        """Those of one subject in which something is missing, by key."""
        free = [bucket.budget._replace(cost_us=0) for bucket in plan.buckets]
        endless = [Slots(slots.key, ENDLESS) for slots in plan.slots]
        verdict = await self.store.look(Ask("", free, endless))
        views = {}
        for bucket, backlog_us in zip(plan.buckets, verdict.backlogs_us, strict=True):
            if backlog_us > 0:
                left_us = max(0, bucket.rate.window_us - backlog_us)
                views[bucket.budget.key] = BucketView(
                    limit=bucket.limit.name,
                    kind=bucket.kind,
                    subject=_subject(bucket.limit, plan.subject),
                    most=bucket.rate.capacity,
                    remaining=bucket.rate.units(left_us),
                    reset_s=backlog_us / 1e6,
                )
        for limit, slots, held in zip(plan.concurrent, plan.slots, verdict.held, strict=True):
            # A look says what would be held with one more.
            if held > 1:
                views[slots.key] = BucketView(
                    limit=limit.name,
                    kind="concurrency",
                    subject=_subject(limit, plan.subject),
                    most=slots.most,
                    remaining=max(0, slots.most - held + 1),
                )
        return views


def _subject(limit: Limit, subject: Subject) -> dict[str, str]:
    return {**limit.match, **{name: getattr(subject, name) for name in limit.per}}
