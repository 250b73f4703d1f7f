"""`/_sim/...`: how another process scripts a replica's faults and reads what it saw."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Protocol

import msgspec

from loadtest.engine.core import EngineCore, EngineOptions
from loadtest.engine.dialect import Refusal, Reply, Request, Response, Routes
from loadtest.engine.faults import FaultBook
from loadtest.engine.request_log import RequestLog


class FaultsRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /_sim/faults`: replaces the port's script; an empty list clears it."""

    faults: tuple[str, ...] = ()
    seed: int | None = None
    """Of the chance behind `p=`."""


class RestartRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `POST /_sim/restart`: what is other about the process that takes over."""

    model: str | None = None
    extra: dict[str, str | int | float | bool] = {}
    """Knobs of the dialect."""


class Controlled(Protocol):
    """What the control paths need of the running engine."""

    core: EngineCore
    faults: FaultBook
    log: RequestLog
    options: EngineOptions

    def restart_soon(self, options: EngineOptions) -> None: ...


def control_routes(replica: Controlled) -> Routes:
    """GET and POST `/_sim/faults`, GET `/_sim/log`, GET `/_sim/stats`, POST `/_sim/restart`."""

    async def read_faults(_: Request) -> Reply:
        return Response.of_json(_faults(replica.faults))

    async def set_faults(request: Request) -> Reply:
        try:
            wanted = msgspec.json.decode(request.body or b"{}", type=FaultsRequest)
            replica.faults.set(*wanted.faults, seed=wanted.seed)
        except (msgspec.DecodeError, ValueError) as error:
            raise Refusal(Response.of_json({"error": str(error)}, 400)) from error
        return Response.of_json(_faults(replica.faults))

    async def read_log(_: Request) -> Reply:
        return Response.of_json([record.summary() for record in replica.log])

    async def read_stats(_: Request) -> Reply:
        return Response.of_json(asdict(replica.core.stats()))

    async def restart(request: Request) -> Reply:
        try:
            wanted = msgspec.json.decode(request.body or b"{}", type=RestartRequest)
        except msgspec.DecodeError as error:
            raise Refusal(Response.of_json({"error": str(error)}, 400)) from error
        options = replica.options
        extra = {**options.extra, **wanted.extra}
        replica.restart_soon(replace(options, model=wanted.model or options.model, extra=extra))
        return Response.of_json({}, 202)

    return {
        ("POST", "/_sim/restart"): restart,
        ("GET", "/_sim/faults"): read_faults,
        ("POST", "/_sim/faults"): set_faults,
        ("GET", "/_sim/log"): read_log,
        ("GET", "/_sim/stats"): read_stats,
    }


def _faults(book: FaultBook) -> dict[str, Sequence[object]]:
    return {
        "faults": [fault.text for fault in book.script],
        "events": [asdict(event) for event in book.events],
    }
