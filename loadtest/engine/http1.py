"""HTTP/1.1 response bytes and the routing of requests to handlers. Pure."""

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType

from loadtest.engine.dialect import Handler, Headers, Routes

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def head(status: int, headers: Headers, *, keep_alive: bool) -> bytes:
    """Status line and header block; says so when the connection closes after the response."""
    lines = [f"HTTP/1.1 {status} {phrase(status)}", *(f"{name}: {value}" for name, value in headers)]
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def phrase(status: int) -> str:
    """The reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def date_header() -> tuple[str, str]:
    """The `date` header of a response sent now."""
    return "date", formatdate(usegmt=True)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; nothing for no data, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class Router:
    """Finds the handler of a method and path; `{name}` segments match any one segment."""

    def __init__(self, routes: Routes) -> None:
        self._exact = {key: handler for key, handler in routes.items() if "{" not in key[1]}
        self._patterns = [
            (method, path.split("/"), handler) for (method, path), handler in routes.items() if "{" in path
        ]
        self._paths = {path for _, path in self._exact}

    def find(self, method: str, path: str) -> tuple[Handler, Mapping[str, str]] | int:
        """The handler and the values of its path's segments, or the status that says there is none."""
        handler = self._exact.get((method, path))
        if handler is not None:
            return handler, MappingProxyType({})
        status = 405 if path in self._paths else 404
        segments = path.split("/")
        for wanted, pattern, candidate in self._patterns:
            params = _match(pattern, segments)
            if params is None:
                continue
            if wanted == method:
                return candidate, params
            status = 405
        return status


def _match(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    if len(pattern) != len(segments):
        return None
    params: dict[str, str] = {}
    for wanted, given in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            params[wanted[1:-1]] = given
        elif wanted != given:
            return None
    return params
