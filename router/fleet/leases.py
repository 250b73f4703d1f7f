"""What one request holds on one replica; what it took it gives back exactly once."""

from collections.abc import Callable

from policies.outcome import Outcome
from policies.routing.events import Dispatched, Done, FirstToken, Forgotten, Prompt
from router.fleet.prompts import PromptHasher
from router.fleet.replicas import Replica


class Lease:
    """One request's slot on one replica, from the choice to the outcome."""

    __slots__ = ("_open", "_tokens", "_waiting", "replica")

    def __init__(self, replica: Replica, tokens: int = 0) -> None:
        """`tokens`: what the request is estimated to hold there."""
        self.replica = replica
        self._tokens = tokens
        self._open = True
        self._waiting = True
        replica.in_flight += 1
        replica.waiting += 1
        replica.tokens += tokens

    def first_token(self, now: float) -> None:  # noqa: ARG002
        """The answer has begun: the replica's prefill of this request is over."""
        if self._waiting:
            self._waiting = False
            self.replica.waiting -= 1

    @property
    def wants_answer(self) -> bool:
        """Somebody learns from what the replica caches now: prompt and answer together."""
        return False

    def close(
        self,
        outcome: Outcome | None,
        now: float,  # noqa: ARG002
        answer: Prompt | None = None,  # noqa: ARG002
    ) -> None:
        """Give the slot back. None: the attempt was never sent. A second call changes nothing."""
        if not self._open:
            return
        self._open = False
        if self._waiting:
            self._waiting = False
            self.replica.waiting -= 1
        replica = self.replica
        replica.in_flight -= 1
        replica.tokens -= self._tokens
        if outcome is not None:
            replica.served += 1
            replica.meter.count(outcome)
        if replica.room_made is not None:
            replica.room_made()


Told = Dispatched | FirstToken | Done | Forgotten
Tell = Callable[[Told], None]


class ToldLease(Lease):
    """A lease of which somebody is told everything: a policy that learns, or who shares the replicas."""

    __slots__ = ("_event", "_hasher", "_tell")

    def __init__(
        self, replica: Replica, tokens: int, tell: Tell, hasher: PromptHasher, event: Dispatched
    ) -> None:
        super().__init__(replica, tokens)
        self._tell = tell
        self._hasher = hasher
        self._event = event
        tell(event)

    def first_token(self, now: float) -> None:
        if self._waiting:
            super().first_token(now)
            self._tell(FirstToken(self.replica.id, self._event.ticket, now))

    @property
    def wants_answer(self) -> bool:
        return self._event.prompt is not None and self.replica.engine.caches_answers

    def close(self, outcome: Outcome | None, now: float, answer: Prompt | None = None) -> None:
        if not self._open:
            return
        prompt = self._event.prompt
        if prompt is not None and outcome is not None and outcome.prompt_tokens:
            self._hasher.learn(prompt, outcome.prompt_tokens)
        try:
            # Before the slot is given back: whoever waits takes it in there, and chooses by what is known.
            self._tell(Done(self.replica.id, self._event.ticket, now, outcome, answer))
        finally:
            super().close(outcome, now)
