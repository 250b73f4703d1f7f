"""What policies have in common that look at the present only."""

from collections.abc import Sequence

from policies.routing.events import Event
from policies.routing.policy import R, RequestFacts, Weighed


class Plain:
    """Learns nothing; weighs replicas by requests in flight for their weight."""

    learns = False

    def weigh(
        self,
        request: RequestFacts,  # noqa: ARG002
        candidates: Sequence[R],
        now: float,  # noqa: ARG002
    ) -> Sequence[Weighed]:
        return [
            Weighed(
                replica.id,
                replica.in_flight / replica.weight,
                {"in_flight": replica.in_flight, "weight": replica.weight},
            )
            for replica in candidates
        ]

    def observe(self, event: Event) -> None:
        """There is nothing to learn."""
