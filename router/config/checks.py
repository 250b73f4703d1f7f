"""What a value must be beyond its type: each check returns a complaint that says what would be right."""

import hashlib
import re
from ipaddress import ip_address
from itertools import pairwise
from urllib.parse import SplitResult, urlsplit

from router.config.option import Check

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_LABEL = re.compile(r"[A-Za-z0-9._/:-]{1,128}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_ZMQ = re.compile(r"tcp://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]|\*):[1-9][0-9]{0,4}|ipc:///[!-~]+")
_DATABASE = re.compile(r"/?[0-9]{0,5}")
_LOGIN = r"(username|password)=[^&]*|db=[0-9]{1,5}"
_TLS = r"ssl_(ca_certs|certfile|keyfile)=[^&]+|ssl_cert_reqs=(required|optional|none)"
_REDIS_OPTIONS = {
    "redis": re.compile(rf"(({_LOGIN})(&(?!$)|$))*"),
    "rediss": re.compile(rf"(({_LOGIN}|{_TLS})(&(?!$)|$))*"),
}
_REDIS_URL = "must be a URL such as 'redis://127.0.0.1:6379/0', or 'rediss://' with TLS"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OF_NOTHING = hashlib.sha256(b"").hexdigest()

_SHORT = ".15g"
"""Prints 0.0 as 0 and 0.1 as 0.1, as they were written."""


def between(low: float, high: float) -> Check:
    return lambda value: (
        None if low <= value <= high else f"must be from {low} to {high}, got {value:{_SHORT}}"
    )


def at_least(low: float) -> Check:
    return lambda value: None if value >= low else f"must be at least {low}, got {value:{_SHORT}}"


def at_most(high: float) -> Check:
    return lambda value: None if value <= high else f"must be at most {high}, got {value:{_SHORT}}"


def above(low: float) -> Check:
    return lambda value: None if value > low else f"must be more than {low}, got {value:{_SHORT}}"


def not_empty(value: str | tuple[object, ...]) -> str | None:
    return None if value else "must not be empty"


def name(value: str) -> str | None:
    """A model, version, alias, replica or policy name: it must survive a header, a label and a path.

    `@` pins a version and `:` picks a role in `model@v2` and `model:stable`, so neither may be part of one.
    """
    for mark, meaning in (
        ("@", "pins a version, as in 'model@v2'"),
        (":", "picks a role, as in 'model:stable'"),
    ):
        if mark in value:
            return f"{value!r} must not contain '{mark}': it {meaning}"
    if _NAME.fullmatch(value):
        return None
    return f"{value!r} must begin with a letter or digit and go on with letters, digits, '.', '_', '/' or '-'"


def label(value: str) -> str | None:
    """A name that goes into headers, metrics and logs; unlike a model's it may hold ':'."""
    if _LABEL.fullmatch(value):
        return None
    return f"{value!r} must be 1 to 128 letters, digits, '.', '_', '/', ':' or '-'"


def header_name(value: str) -> str | None:
    return None if _HEADER.fullmatch(value) else f"{value!r} is not a header name, such as 'x-beta'"


def sha256(value: str) -> str | None:
    return None if _SHA256.fullmatch(value) else "must be 64 lower-case hexadecimal digits"


def digest(value: str) -> str | None:
    if value == f"sha256:{_OF_NOTHING}":
        return "is the digest of an empty key, which everybody has; make one with `turnout keys new`"
    if value.startswith("sha256:") and sha256(value.removeprefix("sha256:")) is None:
        return None
    return "must be 'sha256:' and 64 lower-case hexadecimal digits, as `turnout keys new` prints it"


def canary_steps(steps: tuple[float, ...]) -> str | None:
    rising = all(before < after for before, after in pairwise((0.0, *steps)))
    if rising and steps and steps[-1] == 100:
        return None
    return "must rise from above 0 to 100, such as [1, 5, 25, 50, 100]"


def replica_url(value: str) -> str | None:
    """An origin without path: the router adds the engine's own paths."""
    complaint = http_url(value)
    if complaint is not None:
        return complaint
    parts = urlsplit(value)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return f"must be scheme, host and port only: write '{parts.scheme}://{parts.netloc}'"
    return None


def http_url(value: str) -> str | None:
    parts = _split(value)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be a URL such as 'http://10.0.0.1:8000'"
    if "@" in parts.netloc:
        return "must not carry a user or password: write the replica's key as api_key"
    return None


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def redis_url(value: str) -> str | None:
    """Says nothing of the value: it may carry a password."""
    parts = _split(value)
    if parts is None or parts.scheme not in _REDIS_OPTIONS or not parts.hostname:
        return _REDIS_URL
    # Another path is no database to redis-py, which then uses 0; another option ends it at the start.
    options = _REDIS_OPTIONS[parts.scheme]
    fits = _DATABASE.fullmatch(parts.path) and options.fullmatch(parts.query) and not parts.fragment
    return None if fits else _REDIS_URL


def zmq_endpoint(value: str) -> str | None:
    """Where to connect to, or `tcp://*:PORT` to listen on."""
    return (
        None
        if _ZMQ.fullmatch(value)
        else "must be an endpoint such as 'tcp://10.0.0.1:5557' or 'tcp://*:5557'"
    )


def zmq_peer(value: str) -> str | None:
    """Where to connect to."""
    if _ZMQ.fullmatch(value) and "*" not in value:
        return None
    return "must be an endpoint such as 'tcp://10.0.0.1:5558'"


def _split(value: str) -> SplitResult | None:
    """None when it is no URL: bad brackets, a port that is no number, white space or control characters."""
    if not value.isascii() or not value.isprintable() or " " in value:
        return None
    try:
        parts = urlsplit(value)
        return parts if parts.port is None or parts.port > 0 else None
    except ValueError:
        return None
