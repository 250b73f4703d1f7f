"""Releases on the admin listener: where they are, and the verbs that move them."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from policies.release.lifecycle import Refused
from router.api.errors import ModelNotFound, RequestError
from router.control.releases.office import Office
from router.control.releases.records import Conflict, StoreAway
from router.control.releases.views import Order, ReleasesView

_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_ORDER = msgspec.json.Decoder(Order)


class ReleaseApi:
    """The handlers. A move that cannot be made is 409, a store that is away 503."""

    def __init__(self, office: Office) -> None:
        self._office = office

    @property
    def routes(self) -> list[Route]:
        # A model's name may hold slashes.
        return [
            Route("/api/releases", self.all),
            Route("/api/releases/{model:path}", self.one, methods=["GET"]),
            Route("/api/releases/{model:path}", self.move, methods=["POST"]),
        ]

    async def all(self, _request: Request) -> Response:
        """`ReleasesView`."""
        try:
            return _json(ReleasesView(await self._office.views()))
        except StoreAway as error:
            return _refusal(503, "release_store_away", str(error))

    async def one(self, request: Request) -> Response:
        """`ReleaseView`; with `?history=all` every move that is remembered."""
        model = request.path_params["model"]
        whole = request.query_params.get("history") == "all"
        try:
            return _json(await self._office.view(model, whole_history=whole))
        except Refused as error:
            raise ModelNotFound(str(error), param="model") from error
        except StoreAway as error:
            return _refusal(503, "release_store_away", str(error))

    async def move(self, request: Request) -> Response:
        """An `Order` in the body; `ReleaseView` as it is after it."""
        try:
            order = _ORDER.decode(await request.body())
        except msgspec.MsgspecError as error:
            raise RequestError(f"the body is no order of a release: {error}") from error
        try:
            return _json(await self._office.order(request.path_params["model"], order))
        except Refused as error:
            return _refusal(409, "release_refused", str(error))
        except Conflict:
            return _refusal(
                409, "release_conflict", "somebody else moved it at the same time; look and try again"
            )
        except StoreAway as error:
            return _refusal(503, "release_store_away", str(error))


def _json(view: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(view), headers=_HEADERS, media_type="application/json")


def _refusal(status: int, code: str, message: str) -> Response:
    error = {"message": message, "type": "release_error", "param": None, "code": code}
    return Response(
        msgspec.json.encode({"error": error}), status, headers=_HEADERS, media_type="application/json"
    )
