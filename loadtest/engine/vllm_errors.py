"""vLLM's error answers. An error knows its words; which of them are said depends on the server's version."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from loadtest.engine.dialect import Refusal, Response
from loadtest.engine.http1 import phrase
from loadtest.engine.vllm_options import VllmOptions

TYPES: Final[Mapping[int, str]] = MappingProxyType(
    {
        400: "BadRequestError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        500: "InternalServerError",
        501: "NotImplementedError",
    }
)


class VllmError(Refusal):
    """An error answer. `detail` is what recent versions add to the message."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str | None = None,
        param: str | None = None,
        *,
        detail: str = "",
    ) -> None:
        self.status = status
        self.kind = kind or TYPES.get(status, phrase(status))
        self.param = param
        self._message = message
        self._detail = detail
        super().__init__(self.rendered(VllmOptions()))

    def message(self, flags: VllmOptions) -> str:
        """The message as this version words it."""
        return self._message + self._detail if flags.recent else self._message

    def rendered(self, flags: VllmOptions) -> Response:
        """The answer: nested, or flat as v0.10 and older had it."""
        fields: dict[str, Any] = {
            "message": self.message(flags),
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        if flags.flat_errors:
            return Response.of_json({"object": "error", **fields, "param": None}, self.status)
        return Response.of_json({"error": fields}, self.status)


def bad_request(message: str, param: str | None = None) -> VllmError:
    """Values that do not go together."""
    return VllmError(400, message, param=param)


def bad_value(message: str, param: str, value: object = None) -> VllmError:
    """A value that is not accepted; recent versions name the parameter, and the value if there is one to
    name."""
    told = f" (parameter={param})" if value is None else f" (parameter={param}, value={value})"
    return VllmError(400, message, param=param, detail=told)


def invalid_body(message: str, param: str | None = None) -> VllmError:
    """A body that is no JSON or does not fit the types."""
    return VllmError(400, message, kind="Bad Request", param=param)


def unknown_model(name: str, served: tuple[str, ...]) -> VllmError:
    """A name that is not served; recent versions say which are."""
    detail = f" Valid aliases: {', '.join(served)}."
    return VllmError(404, f"The model `{name}` does not exist.", param="model", detail=detail)


def queue_full() -> VllmError:
    """More waiting requests than `--max-num-queued-reqs`."""
    busy = "The engine is currently busy and cannot accept new requests."
    return VllmError(503, f"{busy} Please try again later or on a different instance.")
