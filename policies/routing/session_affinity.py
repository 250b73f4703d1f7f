"""A session stays with one replica, whose cache knows it, unless that replica is overloaded.

Rendezvous hashing gives every session an order of the replicas; the load bound sends it down that order
(Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from random import Random

from policies.routing.least_requests import LeastRequests
from policies.routing.plain import Plain
from policies.routing.policy import R, RequestFacts
from policies.routing.rendezvous import Rendezvous


class SessionAffinity(Plain):
    """Equal in every process and after every restart; a request without a session goes by least requests.

    With this request, a replica may hold up to `load_factor` times its share by weight of everything in
    flight, rounded up; one that would hold more passes the session to the next in its order.
    """

    @dataclass(frozen=True, slots=True, kw_only=True)
    class Options:
        load_factor: float = field(
            default=1.25,
            metadata={
                "advice": "Most load of a replica, in mean shares; raise it to keep sessions at home longer."
            },
        )

        def __post_init__(self) -> None:
            if not 1.0 <= self.load_factor < inf:
                raise ValueError(f"load_factor must be at least 1 and finite, got {self.load_factor}")

    def __init__(self, options: Options, random: Random) -> None:
        self._load_factor = options.load_factor
        self._least_requests = LeastRequests(LeastRequests.Options(), random)
        self._rendezvous = Rendezvous()

    def choose(self, request: RequestFacts, candidates: Sequence[R], now: float) -> R:
        session = request.session
        if session is None:
            return self._least_requests.choose(request, candidates, now)
        weights = [replica.weight for replica in candidates]
        scores = self._rendezvous.scores(session, [replica.id for replica in candidates], weights)
        in_flight = 1 + sum([replica.in_flight for replica in candidates])
        bound = self._load_factor * in_flight / sum(weights)
        while True:
            best = scores.index(max(scores))
            # Bounds add up to more than is in flight, so some replica is always below its own.
            if candidates[best].in_flight < ceil(bound * weights[best]):
                return candidates[best]
            scores[best] = -inf
