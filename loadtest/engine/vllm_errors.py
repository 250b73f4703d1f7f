"""vLLM's error answers."""

from typing import Any, Final

from loadtest.engine.dialect import Refusal, Response
from loadtest.engine.http1 import phrase

TYPES: Final = {
    400: "BadRequestError",
    404: "NotFoundError",
    500: "InternalServerError",
    501: "NotImplementedError",
}


class VllmError(Refusal):
    """An error answer in the nested shape; the dialect rewrites it for old versions."""

    def __init__(self, status: int, message: str, kind: str | None = None, param: str | None = None) -> None:
        self.status = status
        self.message = message
        self.kind = kind or TYPES.get(status, phrase(status))
        self.param = param
        super().__init__(Response.of_json({"error": self.fields()}, status))

    def fields(self) -> dict[str, Any]:
        """`message`, `type`, `param` and the status again as `code`."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}

    def flat(self) -> Response:
        """The shape of v0.10 and older."""
        return Response.of_json({"object": "error", **self.fields(), "param": None}, self.status)


def bad_request(message: str, param: str | None = None) -> VllmError:
    """Bad values, or values that do not go together."""
    return VllmError(400, message, param=param)


def invalid_body(message: str) -> VllmError:
    """A body that is no JSON or does not fit the types."""
    return VllmError(400, message, kind="Bad Request")


def unknown_model(name: str) -> VllmError:
    return VllmError(404, f"The model `{name}` does not exist.", param="model")
