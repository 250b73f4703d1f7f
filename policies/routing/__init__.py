"""Which replica: one file a policy, and the table that names them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from policies.routing.expected_latency import ExpectedLatency
from policies.routing.least_requests import LeastRequests
from policies.routing.pipeline.pipeline import Pipeline
from policies.routing.power_of_two import PowerOfTwo
from policies.routing.prefix_affinity import PrefixAffinity
from policies.routing.random_choice import RandomChoice
from policies.routing.round_robin import RoundRobin
from policies.routing.session_affinity import SessionAffinity

POLICIES: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "round_robin": RoundRobin,
        "random": RandomChoice,
        "least_requests": LeastRequests,
        "power_of_two": PowerOfTwo,
        "session_affinity": SessionAffinity,
        "prefix_affinity": PrefixAffinity,
        "expected_latency": ExpectedLatency,
        "pipeline": Pipeline,
    }
)
"""Kind to class: built as `POLICIES[kind](POLICIES[kind].Options(...), random)`, see `policy.Policy`."""
