"""The seam between the HTTP server and a wire dialect: requests in, whole answers or streams of events out.

A dialect is handlers that return values, and encoders that turn engine outputs into bytes; it opens
nothing. The server owns sockets, chunks, disconnects and faults.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, Protocol

import msgspec

from loadtest.engine.core import EngineCore, EngineOptions, Generation
from loadtest.engine.sampling import Completion, Output

Headers = tuple[tuple[str, str], ...]
Disconnect = Literal["at_once", "next_token", "polled", "next_write"]
"""When an engine notices that its client left. `polled`: each second. `next_write`: when it has something
to send, hence never before the answer when nothing is streamed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One parsed HTTP request. Header names are lower-case; the last of equal names wins in `headers`."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    params: Mapping[str, str] = field(default_factory=dict)
    """Values of the `{name}` segments of the route's path."""

    def json(self) -> Any:
        """The body as JSON; raises `msgspec.DecodeError`."""
        return msgspec.json.decode(self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int = 200
    body: bytes = b""
    content_type: str | None = "application/json"
    headers: Headers = ()

    @classmethod
    def of_json(cls, value: object, status: int = 200, headers: Headers = ()) -> "Response":
        """Compact JSON in the given key order."""
        return cls(status, msgspec.json.encode(value), "application/json", headers)

    @classmethod
    def of_text(cls, text: str, status: int = 200, headers: Headers = ()) -> "Response":
        return cls(status, text.encode(), "text/plain; charset=utf-8", headers)


class StreamEncoder(Protocol):
    """Turns the outputs of a request's generations into events; each item goes out as one HTTP chunk."""

    def output(self, choice: int, output: Output) -> Sequence[bytes]:
        """Events for one output of the generation at index `choice`."""

    def end(self) -> Sequence[bytes]:
        """Events after every generation has finished; a `[DONE]` is an item of its own."""

    def error(self, message: str) -> Sequence[bytes] | None:
        """Events for an error inside the stream, closing ones included; None: the line is just cut."""


@dataclass(frozen=True, slots=True)
class StreamResponse:
    """A stream of events fed by generations."""

    generations: tuple[Generation, ...]
    encoder: StreamEncoder
    content_type: str = "text/event-stream; charset=utf-8"
    headers: Headers = ()
    head_with_first_output: bool = False
    """Whether the status line waits for the first output (Triton) instead of going out at once."""
    first_error_status: int = 200
    """Status if the first output is an error and the head is still unsent (Triton)."""
    keepalive: tuple[float, bytes] | None = None
    """Seconds of silence after which these bytes go out, again and again (TGI)."""


@dataclass(frozen=True, slots=True)
class GatheredResponse:
    """A whole answer made when all generations are complete. `render` may raise `Refusal`."""

    generations: tuple[Generation, ...]
    render: Callable[[tuple[Completion, ...]], Response]


Reply = Response | StreamResponse | GatheredResponse
Handler = Callable[[Request], Awaitable[Reply]]
"""Submits to the engine and returns at once; the server waits, and aborts what the client no longer wants."""
Routes = Mapping[tuple[str, str], Handler]
"""Handlers by method and path; a `{name}` segment matches one segment and lands in `Request.params`."""


class Refusal(Exception):
    """Raised by a handler to answer at once, from any depth."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Dialect(Protocol):
    """One engine's HTTP surface. Constructed as `Dialect(core, options)`."""

    defaults: ClassVar[EngineOptions]
    """What the real engine is configured to be out of the box."""

    @property
    def routes(self) -> Routes: ...

    @property
    def traits(self) -> "Traits": ...

    def authorize(self, request: Request) -> Response | None:
        """The refusal for a missing or wrong key, or None."""

    def error(self, status: int, message: str) -> Response:
        """The dialect's own error body for a status; also what the status fault and unknown paths answer."""

    def unhealthy(self) -> Response:
        """What health paths answer when the engine is known dead."""


class Publisher(Protocol):
    """Sockets beside HTTP that a dialect writes to; the server opens and closes them."""

    def open(self) -> None:
        """Does nothing if it is open. Raises `LinkError` and `ExtraMissing`."""

    def close(self) -> None:
        """Does nothing if it is closed."""


@dataclass(frozen=True, slots=True)
class Traits:
    """How the engine's HTTP server behaves around the dialect."""

    disconnect: Disconnect
    health_paths: frozenset[str]
    idle_timeout_s: float | None = None
    """Idle seconds after a response before the server closes a kept-alive connection."""
    server_headers: Headers = ()
    """Headers on every response, before the response's own."""
    drains_listening: bool = False
    """Whether it still accepts connections, and refuses their requests, while it drains."""
    max_body_bytes: int | None = None
    """Longer bodies get `error(413, ...)`."""
    extra_ports: Mapping[str, Routes] = field(default_factory=dict)
    """Further listeners by name, such as Triton's metrics port."""
    publishers: Sequence[Publisher] = ()
    """Of KV events, over ZMQ."""


DIALECTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "vllm": "loadtest.engine.vllm:VllmDialect",
        "tgi": "loadtest.engine.tgi:TgiDialect",
        "trtllm": "loadtest.engine.trtllm:TrtllmDialect",
        "triton": "loadtest.engine.triton:TritonDialect",
    }
)
"""Where each dialect's class lives; imported when first asked for."""


class DialectFactory(Protocol):
    defaults: EngineOptions

    def __call__(self, core: EngineCore, options: EngineOptions) -> Dialect: ...


def dialect_class(name: str) -> DialectFactory:
    """The class of a dialect; raises KeyError for an unknown name."""
    module, _, attribute = DIALECTS[name].partition(":")
    factory: DialectFactory = getattr(import_module(module), attribute)
    return factory
