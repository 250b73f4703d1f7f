"""What one replica has been given and has not given back, and how fast it has been at it.

Kept from events alone, those of other workers included, so it is never older than their way here; an event
that never comes costs accuracy until its request is too old to be believed.
"""

from math import exp, inf, sqrt
from typing import Final

from policies.outcome import Ending
from policies.routing.cost_model import DecodeModel, Pace, Paces, PrefillModel
from policies.routing.events import Dispatched, Done, FirstToken
from policies.routing.work import Work

_SAME_STEP_S: Final = 0.0005
"""First tokens closer than this came out of one engine step."""
_LEAST_LEFT: Final = 0.1
"""Share of its prediction that a prefill under way still takes, however long it has."""
_TOLD_APART: Final = 3.0
"""How many times longer a prefill must take without the cache than with it for its time to say which."""
_STALLED_S: Final = 1.0
_RELEASE_WINDOW_S: Final = 10.0


class Models:
    """What a fleet has in common."""

    __slots__ = ("decode", "decode_paces", "prefill", "prefill_paces")

    def __init__(self, drift: float) -> None:
        self.prefill = PrefillModel(drift)
        self.decode = DecodeModel(drift)
        self.prefill_paces = Paces()
        self.decode_paces = Paces()


class Ledger:
    """Takes a replica's events in; says what waits there. All sums are kept, none is made when asked."""

    __slots__ = (
        "_busy",
        "_busy_at",
        "_open_sample",
        "_pending",
        "_pending_s",
        "_prefilled_s",
        "_released",
        "_released_at",
        "_work",
        "batch",
        "decode",
        "decode_pace",
        "last_first_at",
        "pending",
        "prefill",
        "prefill_pace",
        "sent_tokens",
        "tokens_held",
    )

    def __init__(self, models: Models, slowness: float, now: float) -> None:
        self.prefill = models.prefill
        self.decode = models.decode
        self.prefill_pace = Pace(models.prefill_paces, slowness)
        self.decode_pace = Pace(models.decode_paces, slowness)
        self.last_first_at = now
        self.sent_tokens = 0.0
        """Uncached tokens sent, ever."""
        self.tokens_held = 0.0
        """Prompt tokens of everything that is there now."""
        self.batch = 0
        """Requests that are there."""
        self.pending = 0
        """Those of them without a first token."""
        self._work: dict[int, Work] = {}
        self._pending: dict[int, Work] = {}
        self._pending_s = 0.0
        # Seconds of prefill that have ended, ever.
        self._prefilled_s = 0.0
        # Requests in flight integrated over time: its growth over a while, by the while, is the mean batch.
        self._busy = 0.0
        self._busy_at = now
        self._released = 0.0
        self._released_at = now
        # A prefill step that may have brought more than one first token: end, seconds, and whose.
        self._open_sample: tuple[float, float, list[Work]] | None = None

    # ---- what is there ----

    def wait_s(self, now: float) -> float:
        """How long until what was sent there before has its first tokens; the engine takes it in order."""
        left_s = self._pending_s
        began = self.last_first_at
        for head in self._pending.values():
            left_s -= head.prefill_s
            if head.is_over(now):
                began = max(began, head.ready_at or 0.0)
                continue
            elapsed = now - max(head.at, began)
            own = max(head.prefill_s - elapsed, _LEAST_LEFT * head.prefill_s)
            if elapsed > 2 * head.prefill_s + _STALLED_S:
                # It stalls: the longer it has, the longer it will.
                own = 0.5 * elapsed
            return max(left_s, 0.0) + own
        return 0.0

    def outlook(self) -> tuple[float, float, float]:
        """When `wait_s` ends as far as is known now, the least it says before, and until when both hold.

        While they do, `wait_s(now)` is `max(first - now, second)`.
        """
        for head in self._pending.values():
            began = max(head.at, self.last_first_at)
            left_s = max(self._pending_s - head.prefill_s, 0.0)
            ready_at, least_s = began + head.prefill_s + left_s, left_s + _LEAST_LEFT * head.prefill_s
            if head.ready_at is not None:
                return ready_at, least_s, head.ready_at
            return ready_at, least_s, min(began + 2 * head.prefill_s + _STALLED_S, head.expires_at)
        return -inf, 0.0, inf

    def prefill_s(self, uncached: float, tokens: float) -> float:
        """Of a prompt here, on its own."""
        return self.prefill_pace.factor * self.prefill.seconds(uncached, tokens)

    def decode_s(self, batch: float) -> float:
        """Per token of one answer here, in a batch of so many."""
        return self.decode_pace.factor * self.decode.seconds(batch)

    def released_per_s(self, now: float) -> float:
        """Tokens of finished requests per second, lately."""
        return self._released * exp((self._released_at - now) / _RELEASE_WINDOW_S) / _RELEASE_WINDOW_S

    def leave(self) -> None:
        """The replica is gone: its pace is no longer the fleet's."""
        self.prefill_pace.leave()
        self.decode_pace.leave()

    # ---- events ----

    def dispatched(self, event: Dispatched, tokens: float, hit_tokens: float) -> None:
        self._pass_time(event.at)
        self._clear(event.at)
        work = Work(event.at, tokens, hit_tokens, self.prefill_s(max(1.0, tokens - hit_tokens), tokens))
        if not event.streamed:
            work.ready_at = event.at + self.wait_s(event.at) + work.prefill_s
        self._work[event.ticket] = self._pending[event.ticket] = work
        self.batch, self.pending = len(self._work), len(self._pending)
        self._pending_s += work.prefill_s
        self.sent_tokens += work.uncached
        self.tokens_held += tokens

    def first_token(self, event: FirstToken) -> None:
        work = self._unpend(event.ticket)
        if work is None or work.ready_at is not None:
            return
        self._pass_time(event.at)
        self._prefilled_s += work.prefill_s
        work.first_at, work.busy_at_first = event.at, self._busy
        work.prefilled_at_first = self._prefilled_s
        self._sample(work, event.at)
        if event.at > self.last_first_at:
            self.last_first_at = event.at

    def done(self, event: Done) -> Work | None:
        """What it was, if it was known to be there."""
        self._unpend(event.ticket)
        self._pass_time(event.at)
        if self._open_sample is not None and event.at - self._open_sample[0] >= _SAME_STEP_S:
            self._close_sample(self._open_sample)
        work = self._take_out(event.ticket)
        if work is None:
            return None
        outcome = event.outcome
        if outcome is not None:
            self._release(work.tokens + (outcome.completion_tokens or 0), event.at)
            if outcome.ending is Ending.COMPLETED and (outcome.completion_tokens or 0) > 1:
                self._learn_decode(work, event.at, outcome.completion_tokens or 0)
        return work

    # ---- inside ----

    def _clear(self, now: float) -> None:
        """Drop what is over from the head of the queue, and what was lost altogether."""
        while self._pending:
            ticket, head = next(iter(self._pending.items()))
            if not head.is_over(now):
                return
            self._unpend(ticket)
            if head.ready_at is None:
                self._take_out(ticket)
            else:
                self.last_first_at = max(self.last_first_at, head.ready_at)

    def _unpend(self, ticket: int) -> Work | None:
        work = self._pending.pop(ticket, None)
        if work is not None:
            self.pending = len(self._pending)
            self._pending_s = self._pending_s - work.prefill_s if self.pending else 0.0
        return work

    def _take_out(self, ticket: int) -> Work | None:
        work = self._work.pop(ticket, None)
        if work is not None:
            self.batch = len(self._work)
            self.tokens_held -= work.tokens
        return work

    def _sample(self, work: Work, at: float) -> None:
        """Seconds of one prefill step, shared by all whose first tokens it brought."""
        sample = self._open_sample
        if sample is not None and at - sample[0] < _SAME_STEP_S:
            sample[2].append(work)
            return
        if sample is not None:
            self._close_sample(sample)
        began = max(self.last_first_at, work.at)
        self._open_sample = at, at - began, [work]

    def _close_sample(self, sample: tuple[float, float, list[Work]]) -> None:
        _, took_s, works = sample
        self._open_sample = None
        if took_s <= 0:
            return
        if len(works) == 1:
            works[0].seems_cold = self._seems_cold(works[0], took_s)
        self._learn_prefill(took_s, works)

    def _seems_cold(self, work: Work, took_s: float) -> bool | None:
        """On a logarithmic scale: whether that is nearer to what it takes with nothing cached."""
        warm_s, cold_s = work.prefill_s, self.prefill_s(work.tokens, work.tokens)
        return took_s > sqrt(warm_s * cold_s) if cold_s > _TOLD_APART * warm_s else None

    def _learn_prefill(self, took_s: float, works: list[Work]) -> None:
        lengths = [(work.tokens if work.seems_cold else work.uncached, work.tokens) for work in works]
        uncached = sum([one for one, _ in lengths])
        pairs = sum([one * (tokens - one / 2) for one, tokens in lengths])
        # The length for which one prompt of so many uncached tokens has as many pairs.
        length = pairs / uncached + uncached / 2
        taught_s = self.prefill_pace.learn(took_s, self.prefill.seconds(uncached, length))
        self.prefill.learn(uncached, length, taught_s)

    def _learn_decode(self, work: Work, at: float, completion_tokens: int) -> None:
        if work.first_at is None or at <= work.first_at:
            return
        lasted = at - work.first_at
        batch = (self._busy - work.busy_at_first) / lasted
        # What prefills of others took of it is no decoding; their predictions may well exceed it.
        own = max(lasted - (self._prefilled_s - work.prefilled_at_first), _LEAST_LEFT * lasted)
        taught_s = self.decode_pace.learn(own / (completion_tokens - 1), self.decode.seconds(batch))
        self.decode.learn(batch, taught_s)

    def _pass_time(self, now: float) -> None:
        if now > self._busy_at:
            self._busy += len(self._work) * (now - self._busy_at)
            self._busy_at = now

    def _release(self, tokens: float, now: float) -> None:
        self._released = self._released * exp((self._released_at - now) / _RELEASE_WINDOW_S) + tokens
        self._released_at = now
