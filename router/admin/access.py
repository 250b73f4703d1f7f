"""Who may use the admin listener: the bearer of the token or, where there is none, this machine alone.

Without a token a web page in an operator's browser must not get in either: the Host must be a loopback
name (a rebound DNS name is not) and an Origin must be the listener's own.
"""

import hashlib
import hmac
import ipaddress
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from router.api.errors import Fault, InvalidApiKey, RequestError, TurnoutError
from router.config.secret import Secret

OPEN_PATHS = ("/",)
"""The page itself holds no data: it asks for the token and fetches with it."""


class AdminForbidden(RequestError):
    """Not this client, whatever it knows."""

    status = 403
    code = "forbidden"
    type = "permission_error"
    fault = Fault.CLIENT


class AdminAccess:
    """The ASGI middleware in front of everything."""

    def __init__(self, app: ASGIApp, token: Secret | None) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = _headers(scope)
            error = (
                _local_refusal(scope["client"], headers)
                if self._token is None
                else _token_refusal(self._token, scope["path"], headers)
            )
            if error is not None:
                await _refuse(error, send)
                return
        await self._app(scope, receive, send)


def _token_refusal(token: Secret, path: str, headers: Mapping[str, Sequence[str]]) -> TurnoutError | None:
    if path in OPEN_PATHS:
        return None
    given = headers.get("authorization", ())
    scheme, _, credentials = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    # Digests: the time to compare says nothing, not even of the length.
    same = hmac.compare_digest(_digest(credentials.strip()), _digest(token.reveal()))
    if scheme.lower() == "bearer" and same:
        return None
    return InvalidApiKey("the admin listener needs its token: Authorization: Bearer TOKEN")


def _local_refusal(
    client: Sequence[object] | None, headers: Mapping[str, Sequence[str]]
) -> TurnoutError | None:
    if client is None or not is_loopback(str(client[0])):
        return AdminForbidden("without [admin] token only clients on this machine are served")
    hosts = headers.get("host", ())
    if len(hosts) != 1 or not is_loopback(_host_name(hosts[0])):
        return AdminForbidden("without [admin] token the Host must be localhost or a loopback address")
    if any(origin.partition("://")[2] != hosts[0] for origin in headers.get("origin", ())):
        return AdminForbidden("pages of other origins may not use the admin listener")
    return None


def is_loopback(host: str) -> bool:
    """`localhost` or an address of this machine alone, also as IPv4 within IPv6."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _host_name(host: str) -> str:
    """Without the port and the brackets of IPv6; empty for nonsense."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _headers(scope: Scope) -> Mapping[str, Sequence[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
    return headers


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def _refuse(error: TurnoutError, send: Send) -> None:
    body = error.body()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    if error.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="turnout admin"'))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
