"""What every answer of the admin listener has in common."""

from typing import Final

import msgspec
from starlette.responses import Response

NO_STORE: Final = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def json_answer(view: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(view), headers=NO_STORE, media_type="application/json")
