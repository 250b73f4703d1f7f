"""The way of one inference request: read, route, dispatch, tell the observers.

Exactly one `Finished` comes out of every exchange that goes in, whatever becomes of it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic, time

from policies.release.observation import Bad
from router.api.answer_signs import signs_of
from router.api.errors import InternalError, PathNotFound, TurnoutError
from router.api.ids import RequestIds
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint
from router.api.tgi import read_generate
from router.control.keys import ANONYMOUS, Caller, KeyRing
from router.fleet.routes import Fleet
from router.flow.admission import Gate
from router.flow.call import Call, Limits
from router.flow.exchange import Exchange
from router.flow.shadow import Dispatches
from router.observe.events import Finished, Observer

log = logging.getLogger("turnout.flow")

CLIENT_CLOSED_REQUEST = 499
"""What the records say of a client that left before its answer began; it is never sent."""

ENDPOINTS = {endpoint.value: endpoint for endpoint in Endpoint}

_TGI = frozenset({Endpoint.GENERATE, Endpoint.GENERATE_STREAM, Endpoint.GENERATE_ROOT})


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call, and how much; without a gate as much as they like."""

    keys: KeyRing
    gate: Gate | None


class Inference:
    """Serves inference exchanges; the one coroutine a request has."""

    def __init__(
        self,
        fleet: Callable[[], Fleet],
        dispatcher: Dispatches,
        limits: Limits,
        rules: RequestRules,
        observer: Observer,
        *,
        hashes_all: bool = False,
        access: Access | None = None,
    ) -> None:
        """`hashes_all`: prompts are hashed for the records, whether or not a policy asks for it.

        Without `access` everybody may call, as much as they like.
        """
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._limits = limits
        self._rules = rules
        self._observer = observer
        self._hashes_all = hashes_all
        self._keys = None if access is None else access.keys
        self._gate = None if access is None else access.gate
        self._ids = RequestIds()

    async def serve(self, exchange: Exchange) -> None:
        """Answer one exchange. Raises only what cancels the task."""
        call = Call(self._ids.of(exchange.headers.get("x-request-id")), exchange, self._limits)
        try:
            fleet = self._fleet()
            self._read(call, fleet)
            if self._gate is not None:
                await self._gate.admit(call)
            await self._dispatcher.dispatch(call)
        except TurnoutError as error:
            self._refuse(call, error)
        except Exception:
            log.exception("request %s met a defect of the router", call.id)
            self._refuse(call, InternalError("the router failed to handle this request; its log says why"))
        finally:
            try:
                if self._gate is not None:
                    self._gate.settle(call)
            finally:
                self._observer(self._finished(call))

    def check(self, headers: Mapping[str, str]) -> None:
        """Raises `InvalidApiKey` for a head whose request would be refused for it."""
        self._caller(headers)

    def _caller(self, headers: Mapping[str, str]) -> Caller:
        if self._keys is None:
            return ANONYMOUS
        return self._keys.caller_of(headers.get("authorization"), headers.get("x-api-key"))

    def refuse(self, exchange: Exchange, error: TurnoutError) -> None:
        """Answer an exchange whose request could not be read."""
        call = Call(self._ids.of(exchange.headers.get("x-request-id")), exchange, self._limits)
        self._refuse(call, error)
        self._observer(self._finished(call))

    def _read(self, call: Call, fleet: Fleet) -> None:
        exchange = call.exchange
        call.caller = self._caller(exchange.headers)
        call.prioritise(exchange.headers.get("x-turnout-priority"))
        call.shorten(exchange.headers.get("x-turnout-deadline-ms"))
        endpoint = ENDPOINTS.get(exchange.path)
        if endpoint is None:
            raise PathNotFound(f"there is nothing at {exchange.path[:128]}")
        if endpoint in _TGI:
            request = read_generate(
                endpoint, call.id, exchange.headers, exchange.body, self._rules, fleet.only_model
            )
        else:
            request = read_request(endpoint, call.id, exchange.headers, exchange.body, self._rules)
        call.request = request
        call.assign(*fleet.assign(request, exchange.headers, call.caller))

    def _refuse(self, call: Call, error: TurnoutError) -> None:
        call.error = error
        if call.exchange.disconnected:
            return
        if call.head_at is None:
            call.refuse(error, monotonic())
        else:
            call.exchange.abort()

    def _finished(self, call: Call) -> Finished:
        exchange, request, route, replica = call.exchange, call.request, call.route, call.replica
        caller, limited, now = call.caller, call.limited, monotonic()
        return Finished(
            at=time() - (now - exchange.received_at),
            request_id=call.id,
            path=exchange.path,
            model="" if route is None else route.model,
            version="" if route is None else route.version,
            engine="" if replica is None else replica.engine.kind,
            replica="" if replica is None else replica.id,
            stream=request is not None and request.stream,
            status=call.status or CLIENT_CLOSED_REQUEST,
            outcome=_outcome(call),
            attempts=call.attempts,
            duration_s=now - exchange.received_at,
            overhead_s=call.overhead_s(now),
            queue_wait_s=call.queue_wait_s,
            time_to_first_token_s=call.first_token_at and call.first_token_at - exchange.received_at,
            gaps=call.gaps,
            gap_sum_s=call.gap_sum_s,
            usage=call.usage,
            finish_reason=call.finish_reason,
            bytes_in=len(exchange.body),
            bytes_out=exchange.bytes_out,
            error="" if call.error is None else call.error.message,
            session=None if request is None else request.session,
            tenant="" if caller is ANONYMOUS else caller.tenant,
            key="" if caller is ANONYMOUS else caller.key_id,
            limits=() if limited is None else limited.said,
            reserved_tokens=None if limited is None else limited.reserved_tokens,
            charged_tokens=None if limited is None else limited.charged_tokens,
            prompt=call.facts.prompt if self._hashes_all and call.facts is not None else None,
            arm=call.assigned.arm,
            unit=call.assigned.unit,
            ordinal=0 if replica is None else max(0, replica.served - 1),
            signs=_signs(call),
        )


def _signs(call: Call) -> frozenset[Bad]:
    """What is wrong with an answer that looks like one, where a release compares."""
    if call.witness is None or call.request is None or not call.witness.whole:
        return frozenset()
    return signs_of(call.witness.whole, stream=call.request.stream)


def _outcome(call: Call) -> str:
    if call.answered:
        return "ok" if call.error is None else call.error.code
    # Unanswered without an error, and nobody left: the process ends under the request.
    return "client_left" if call.exchange.disconnected or call.error is None else call.error.code
