"""Every error a client can see: its status, its code and whose fault it was stand on the class.

Nobody parses a message. The JSON shape is OpenAI's: `{"error": {"message", "type", "param", "code"}}`.
"""

import enum
from typing import ClassVar

import msgspec


class Fault(enum.Enum):
    """Who caused a failure; decides what is blamed, retried and billed."""

    CLIENT = "client"
    REPLICA = "replica"
    CAPACITY = "capacity"
    ROUTER = "router"


class TurnoutError(Exception):
    """The root: an answer other than 200. `param` names the request field at fault, if one is."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    fault: ClassVar[Fault] = Fault.ROUTER
    should_retry: ClassVar[bool] = False
    """What `x-should-retry` tells the client's SDK."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """What the answer says besides."""

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The JSON object that goes to the client, as an answer or as one SSE frame's data."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


# ---- the client's request ----


class RequestError(TurnoutError):
    status = 400
    code = "invalid_request"
    type = "invalid_request_error"
    fault = Fault.CLIENT


class InvalidJson(RequestError):
    code = "invalid_json"


class ContextLengthExceeded(RequestError):
    code = "context_length_exceeded"


class InvalidApiKey(RequestError):
    status = 401
    code = "invalid_api_key"
    type = "authentication_error"
    headers = ((b"www-authenticate", b"Bearer"),)


class ModelNotAllowed(RequestError):
    status = 403
    code = "model_not_allowed"
    type = "permission_error"


class PathNotFound(RequestError):
    status = 404
    code = "not_found"


class ModelNotFound(RequestError):
    status = 404
    code = "model_not_found"


class VersionRetired(RequestError):
    """There was such a version. `instead` is the model name to use in its place, if there is one."""

    status = 404
    code = "version_retired"

    def __init__(self, message: str, *, param: str | None = None, instead: str | None = None) -> None:
        super().__init__(message, param=param)
        if instead is not None:
            self.headers = ((b"x-turnout-replacement", instead.encode()),)


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"


class BodyTimeout(RequestError):
    status = 408
    code = "body_timeout"
    should_retry = True


class BodyTooLarge(RequestError):
    status = 413
    code = "body_too_large"


class UnsupportedMediaType(RequestError):
    status = 415
    code = "unsupported_media_type"


class HeadersTooLarge(RequestError):
    status = 431
    code = "headers_too_large"


class RequestExceedsLimit(RequestError):
    """It costs more than a full bucket holds: it would never be admitted."""

    code = "request_exceeds_limit"


class EndpointNotSupported(RequestError):
    """No replica of the version speaks this endpoint, or has the feature that the request asks for."""

    status = 501
    code = "endpoint_not_supported"


class RateLimitExceeded(RequestError):
    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    should_retry = True


# ---- the replicas ----


class UpstreamError(TurnoutError):
    status = 502
    code = "upstream_error"
    fault = Fault.REPLICA
    should_retry = True


class UpstreamReset(UpstreamError):
    code = "upstream_reset"


class UpstreamProtocol(UpstreamError):
    code = "upstream_protocol"


class FirstTokenTimeout(UpstreamError):
    status = 504
    code = "first_token_timeout"
    type = "timeout_error"


class BetweenTokensTimeout(UpstreamError):
    """A stream fell silent after its first token; the head is out, so it is seen as an error frame only."""

    status = 504
    code = "between_tokens_timeout"
    type = "timeout_error"


class TotalTimeout(TurnoutError):
    status = 504
    code = "total_timeout"
    type = "timeout_error"
    fault = Fault.CAPACITY


# ---- capacity ----


class NoHealthyReplica(TurnoutError):
    status = 503
    code = "no_healthy_replica"
    fault = Fault.CAPACITY
    should_retry = True


class Overloaded(TurnoutError):
    status = 503
    code = "overloaded"
    fault = Fault.CAPACITY
    should_retry = True


class QueueFull(TurnoutError):
    """So many wait already, or so many of this tenant, that there is no place even to wait."""

    status = 429
    code = "queue_full"
    type = "rate_limit_error"
    fault = Fault.CAPACITY
    should_retry = True


class RouterDraining(TurnoutError):
    status = 503
    code = "router_draining"
    fault = Fault.ROUTER
    should_retry = True


class InternalError(TurnoutError):
    """A defect of the router itself: the goal is that no client ever sees one."""
