"""The public ASGI app: liveness, readiness, models, TGI's `/info`, and the inference endpoints.

Under `turnout serve` only what is not an inference POST comes through here; under another ASGI server
everything does.
"""

import time
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from router.api.errors import InternalError, MethodNotAllowed, ModelNotFound, PathNotFound, TurnoutError
from router.control.keys import Caller, KeyRing
from router.fleet.routes import Fleet
from router.flow.inference import ENDPOINTS
from router.serving.asgi import InferenceApp


class PublicPages:
    """What the router answers by itself; `fleet` gives the fleet in force.

    What there is to use is shown to who may use it; whether the router is well, to everybody.
    """

    def __init__(
        self, fleet: Callable[[], Fleet], draining: Callable[[], bool], keys: KeyRing | None = None
    ) -> None:
        self._fleet = fleet
        self._draining = draining
        self._keys = keys or KeyRing((), time.time)
        self._created = int(time.time())

    async def live(self, _request: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(self, _request: Request) -> Response:
        """200 while at least one replica can be sent something and the router is not draining, else 503."""
        if self._draining():
            return PlainTextResponse("draining\n", status_code=503)
        if not self._fleet().ready:
            return PlainTextResponse("no replica is ready\n", status_code=503)
        return PlainTextResponse("ready\n")

    def _caller(self, request: Request) -> Caller:
        """Raises `InvalidApiKey`."""
        headers = request.headers
        return self._keys.caller_of(headers.get("authorization"), headers.get("x-api-key"))

    async def models(self, request: Request) -> Response:
        caller, names = self._caller(request), self._fleet().names
        shown = [self._model(name, root) for name, root in names.items() if caller.may_use(root)]
        return JSONResponse({"object": "list", "data": shown})

    async def model(self, request: Request) -> Response:
        caller, name = self._caller(request), request.path_params["model"]
        return JSONResponse(self._model(name, self._fleet().route_for(name, caller.models).model))

    def _model(self, name: str, root: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "turnout", "root": root}

    async def info(self, request: Request) -> Response:
        """TGI's `/info`, as far as it is true of a whole fleet."""
        caller, fleet = self._caller(request), self._fleet()
        models = sorted({route.model for route in fleet.routes.values() if caller.may_use(route.model)})
        if not models:
            return refusal(ModelNotFound("no model is configured"))
        return JSONResponse({"model_id": models[0], "models": models, "router": "turnout"})


def refusal(error: TurnoutError) -> Response:
    headers = {"x-should-retry": "true" if error.should_retry else "false"}
    headers |= {name.decode(): value.decode() for name, value in error.headers}
    return Response(error.body(), error.status, headers, media_type="application/json")


async def _refused(_request: Request, exc: Exception) -> Response:
    assert isinstance(exc, TurnoutError)
    return refusal(exc)


async def _http_exception(request: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    if status == 404:
        return refusal(PathNotFound(f"there is nothing at {request.url.path[:128]}"))
    if status == 405:
        answer = refusal(MethodNotAllowed(f"{request.method} is not allowed at {request.url.path[:128]}"))
        answer.headers["allow"] = (getattr(exc, "headers", None) or {}).get("Allow", "")
        return answer
    return refusal(InternalError("the router failed to handle this request; its log says why"))


def public_app(
    pages: PublicPages, inference: InferenceApp, lifespan: Lifespan[Starlette] | None = None
) -> Starlette:
    """The whole public surface."""
    routes = [
        Route("/livez", pages.live),
        Route("/readyz", pages.ready),
        Route("/health", pages.ready),
        Route("/v1/models", pages.models),
        Route("/v1/models/{model:path}", pages.model),
        Route("/info", pages.info),
        *[Route(path, inference, methods=["POST"]) for path in ENDPOINTS],
    ]
    handlers = {TurnoutError: _refused, HTTPException: _http_exception, Exception: _http_exception}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    # A path with a slash too many is another path, not a detour through whatever host the client named.
    app.router.redirect_slashes = False
    return app
