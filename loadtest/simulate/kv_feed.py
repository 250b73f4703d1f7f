"""What a replica publishes of its cache, as vLLM's KV events do, late by a constant."""

from collections.abc import Callable, Sequence

from loadtest.simulate.timeline import Timeline
from policies.routing.events import BlocksRemoved, BlocksStored, Event, Forgotten


class KvFeed:
    """A `KvListener` that turns what it is told into a policy's events."""

    def __init__(
        self, replica: str, timeline: Timeline, delay_s: float, tell: Callable[[Event], None]
    ) -> None:
        self._replica = replica
        self._timeline = timeline
        self._delay_s = delay_s
        self._tell = tell

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:  # noqa: ARG002
        self._later(BlocksStored(self._replica, self._timeline.now, tuple(hashes)))

    def removed(self, hashes: Sequence[int]) -> None:
        self._later(BlocksRemoved(self._replica, self._timeline.now, tuple(hashes)))

    def cleared(self) -> None:
        self._later(Forgotten(self._replica, self._timeline.now))

    def _later(self, event: Event) -> None:
        self._timeline.after(self._delay_s, self._tell, event)
