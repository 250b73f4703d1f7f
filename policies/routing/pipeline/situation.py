"""One request and the replicas it may go to, as filters and scorers see them."""

from collections.abc import Sequence
from typing import NamedTuple

from policies.routing.events import Prompt
from policies.routing.policy import LoadView, ReplicaView, RequestFacts
from policies.routing.recent_blocks import tokens_of


class Situation(NamedTuple):
    """Figures are in the order of `replicas`. `hits` are leading blocks of `prompt` that each should have."""

    request: RequestFacts
    replicas: Sequence[ReplicaView]
    prompt: Prompt | None
    hits: Sequence[int]

    def narrowed(self, kept: Sequence[int]) -> "Situation":
        """The same with those replicas only whose positions are in `kept`."""
        replicas = [self.replicas[position] for position in kept]
        return self._replace(replicas=replicas, hits=[self.hits[position] for position in kept])

    def matched_shares(self) -> list[float]:
        """Of the prompt's blocks, 0 to 1."""
        total = len(self.prompt.blocks) if self.prompt else 0
        return [hit / total if total else 0.0 for hit in self.hits]

    def matched_tokens(self) -> list[float]:
        prompt = self.prompt
        return [tokens_of(prompt, hit) if prompt else 0.0 for hit in self.hits]

    def waiting(self) -> list[float]:
        return _told([load.waiting_requests if load else None for load in self._loads()])

    def running(self) -> list[float]:
        return _told([load.running_requests if load else None for load in self._loads()])

    def kv_usage(self) -> list[float]:
        """0 to 1."""
        return _told([load.kv_usage_ratio if load else None for load in self._loads()])

    def active(self) -> list[float]:
        """Requests in flight for the replica's weight."""
        return [replica.in_flight / replica.weight for replica in self.replicas]

    def _loads(self) -> list[LoadView | None]:
        return [replica.load for replica in self.replicas]


def _told(figures: Sequence[float | None]) -> list[float]:
    """What is not told becomes the mean of what is: it neither draws nor repels."""
    known = [figure for figure in figures if figure is not None]
    mean = sum(known) / len(known) if known else 0.0
    return [mean if figure is None else figure for figure in figures]
