"""What would become of a request, without sending it."""

from msgspec.structs import replace

from router.api.errors import RequestError
from router.api.members import read_members
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.api.tgi import read_generate
from router.control.keys import ANONYMOUS, Caller
from router.fleet.decision import DecisionView, decision
from router.fleet.routes import Fleet
from router.flow.admission import Gate

_HEADERS = {"content-type": "application/json"}
_SUBJECTS = {"messages": Endpoint.CHAT, "prompt": Endpoint.COMPLETIONS, "inputs": Endpoint.GENERATE}


async def explained(
    fleet: Fleet, body: bytes, rules: RequestRules, caller: Caller = ANONYMOUS, gate: Gate | None = None
) -> DecisionView:
    """What would become of the inference request in `body` now; its endpoint is told by its subject.

    No header but the content type is known, so no header rule of a split applies.

    Raises what serving it would raise, but for limits: what those would say is told.
    """
    request = _read(fleet, body, rules)
    route, _ = fleet.assign(request, _HEADERS, caller)
    view = decision(route, request, route.pool.facts(request))
    return view if gate is None else replace(view, limits=await gate.look(caller, request, route))


def _read(fleet: Fleet, body: bytes, rules: RequestRules) -> InferenceRequest:
    members = read_members(body, rules.max_depth)
    endpoint = next((one for name, one in _SUBJECTS.items() if name in members), None)
    if endpoint is None:
        raise RequestError(f"the request needs one of these members: {', '.join(_SUBJECTS)}")
    if endpoint is Endpoint.GENERATE:
        return read_generate(endpoint, "explain", _HEADERS, body, rules, fleet.only_model)
    return read_request(endpoint, "explain", _HEADERS, body, rules)
