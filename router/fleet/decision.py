"""Why a request would go where it would: every candidate as the policy weighs it, as one value."""

import json
from collections.abc import Sequence
from time import monotonic

import msgspec

from policies.routing.policy import Weighed
from router.api.request import InferenceRequest
from router.fleet.facts import Facts
from router.fleet.replicas import Replica
from router.fleet.routes import Route

_MOST_IN_A_HEADER = 8
_DIGITS = 6


class CandidateView(msgspec.Struct, frozen=True):
    """One replica that could take the request. The least `cost` is chosen; `terms` say what it is made of."""

    replica: str
    cost: float
    terms: dict[str, float]


class LimitCheck(msgspec.Struct, frozen=True):
    """What one limit would say. It takes `takes` of what is `remaining`: requests, tokens, or slots.

    `wait_s`: when it would admit the request if nobody else came; None where no wait is known to help.
    """

    limit: str
    kind: str
    takes: int
    remaining: int
    admits: bool
    wait_s: float | None = 0.0


class DecisionView(msgspec.Struct, frozen=True, kw_only=True):
    """`chosen` is the cheapest candidate, or one of several such; candidates come cheapest first."""

    model: str
    version: str
    policy: str
    chosen: str
    prompt_tokens: int | None = None
    candidates: list[CandidateView]
    limits: list[LimitCheck] = []


def decision(
    route: Route, request: InferenceRequest, facts: Facts, tried: Sequence[Replica] = ()
) -> DecisionView:
    """What the pool would do now. Raises what `Pool.lease` raises."""
    weighed = sorted(route.pool.weigh(request, facts, monotonic(), tried), key=_cost_of)
    prompt = facts.prompt
    return DecisionView(
        model=route.model,
        version=route.version,
        policy=route.pool.policy_name,
        chosen=weighed[0].replica,
        prompt_tokens=None if prompt is None else prompt.tokens,
        candidates=[_candidate(one) for one in weighed],
    )


def header_of(view: DecisionView) -> bytes:
    """One line of ASCII, with no more candidates than a header has room for."""
    shown = msgspec.structs.replace(view, candidates=view.candidates[:_MOST_IN_A_HEADER])
    return json.dumps(msgspec.to_builtins(shown), separators=(",", ":")).encode("ascii")


def _candidate(one: Weighed) -> CandidateView:
    terms = {name: round(value, _DIGITS) for name, value in one.terms.items()}
    return CandidateView(one.replica, round(one.cost, _DIGITS), terms)


def _cost_of(one: Weighed) -> float:
    return one.cost
