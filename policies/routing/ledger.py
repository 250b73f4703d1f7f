"""What one replica has been given and has not given back, and how fast it has been at it.

Kept from events alone, those of other workers included, so it is never older than their way here; an event
that never comes costs accuracy until its request is too old to be believed.
"""

from math import exp, inf, sqrt
from typing import Final

from policies.outcome import Ending
from policies.routing.cost_model import DecodeModel, Pace, Paces, PrefillModel
from policies.routing.events import Dispatched, Done, FirstToken
from policies.routing.work import Sample, Work

_LEAST_LEFT: Final = 0.1
"""Share of its prediction that a prefill under way still takes, however long it has."""
_TOLD_APART: Final = 3.0
"""How many times longer a prefill must take without the cache than with it for its time to say which."""
_DOUBTED_AFTER_S: Final = 20.0
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
        "last_heard_at",
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
        self.last_heard_at = now
        """When a request of it last ended."""
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
        self._open_sample: Sample | None = None

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

    def others_s(self, prefill_s: float, answer_tokens: float) -> tuple[float, float, float]:
        """What the batch pays for one more: stall, slowdown, and that one's own decode, seconds."""
        decode_s = self.decode_s(self.batch + 1)
        slowdown_s = (decode_s - self.decode_s(self.batch)) * self.batch
        return prefill_s * self.batch, answer_tokens * slowdown_s, answer_tokens * decode_s

    def released_per_s(self, now: float) -> float:
        """Tokens of finished requests per second, lately."""
        return self._released * exp((self._released_at - now) / _RELEASE_WINDOW_S) / _RELEASE_WINDOW_S

    def fade(self, now: float) -> bool:
        """If nothing was heard of it for a while, believe less in its pace. True: that changed it."""
        if now - self.last_heard_at < _DOUBTED_AFTER_S:
            return False
        faded = [pace.fade() for pace in (self.prefill_pace, self.decode_pace)]
        return any(faded)

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
        work = self._take_out(event.ticket)
        if self._open_sample is not None and work in self._open_sample.works:
            self._close_sample(self._open_sample)
        if work is None:
            return None
        outcome = event.outcome
        if outcome is not None:
            self.last_heard_at = event.at
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
        """Those that were there together are one sample: of one step or of several, nobody can tell for sure.

        First tokens of one step drift apart on their way here, and would make a busy replica look fast.
        """
        sample = self._open_sample
        if sample is not None and work.at < sample.at and not sample.is_full(at):
            sample.add(work, at)
            return
        if sample is not None:
            self._close_sample(sample)
        self._open_sample = Sample(max(self.last_first_at, work.at), work, at)

    def _close_sample(self, sample: Sample) -> None:
        self._open_sample = None
        if sample.took_s <= 0:
            return
        if len(sample.works) == 1:
            (work,) = sample.works
            work.seems_cold = self._seems_cold(work, sample.took_s)
        uncached, pairs = sample.amount()
        expected_s = self.prefill.together_s(sample.steps, uncached, pairs)
        taught_s = self.prefill_pace.learn(sample.took_s, expected_s, len(sample.works))
        self.prefill.learn(sample.steps, uncached, pairs, taught_s, len(sample.works))

    def _seems_cold(self, work: Work, took_s: float) -> bool | None:
        """On a logarithmic scale: whether that is nearer to what it takes with nothing cached."""
        if not work.hit_tokens:
            return None
        warm_s, cold_s = self.prefill_s(work.uncached, work.tokens), self.prefill_s(work.tokens, work.tokens)
        return took_s > sqrt(warm_s * cold_s) if cold_s > _TOLD_APART * warm_s else None

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
