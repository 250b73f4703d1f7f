"""What would become of a request, without sending it."""

from router.api.errors import RequestError
from router.api.members import read_members
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.api.tgi import read_generate
from router.fleet.decision import DecisionView, decision
from router.fleet.routes import Fleet

_HEADERS = {"content-type": "application/json"}
_SUBJECTS = {"messages": Endpoint.CHAT, "prompt": Endpoint.COMPLETIONS, "inputs": Endpoint.GENERATE}


def explained(fleet: Fleet, body: bytes, rules: RequestRules) -> DecisionView:
    """Where the inference request in `body` would go now; its endpoint is told by its subject.

    Raises what serving it would raise.
    """
    request = _read(fleet, body, rules)
    route = fleet.routes.get(request.model)
    if route is None:
        raise fleet.unknown(request.model)
    return decision(route, request, route.pool.facts(request))


def _read(fleet: Fleet, body: bytes, rules: RequestRules) -> InferenceRequest:
    members = read_members(body, rules.max_depth)
    endpoint = next((one for name, one in _SUBJECTS.items() if name in members), None)
    if endpoint is None:
        raise RequestError(f"the request needs one of these members: {', '.join(_SUBJECTS)}")
    if endpoint is Endpoint.GENERATE:
        return read_generate(endpoint, "explain", _HEADERS, body, rules, fleet.only_model)
    return read_request(endpoint, "explain", _HEADERS, body, rules)
