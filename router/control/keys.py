"""Who calls: the keys of the configuration, and a client's key looked up among them.

Keys are known by digest alone, here too. How long a look-up takes says nothing of any key: what is looked up
is a keyed digest that nobody outside can compute, and whatever is wrong, the way and the answer are the same.
"""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from math import inf
from secrets import token_bytes
from typing import Final

from policies.limits.priority import Priority
from router.api.errors import InvalidApiKey
from router.config.access import KeyConfig

_REFUSAL: Final = "a valid key is needed: Authorization: Bearer KEY"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is. `models` None: all of them."""

    key_id: str
    tenant: str
    models: frozenset[str] | None = None
    priority: Priority = "normal"

    def may_use(self, model: str) -> bool:
        """Whether it may ask for the model that the configuration calls so."""
        return self.models is None or model in self.models


ANONYMOUS: Final = Caller("anonymous", "anonymous")
"""Everybody, where there are no keys."""


class _Entry:
    """One key. `expires_at` is in seconds since 1970."""

    __slots__ = ("caller", "digest", "expires_at")

    def __init__(self, digest: bytes, caller: Caller, expires_at: float) -> None:
        self.digest = digest
        self.caller = caller
        self.expires_at = expires_at


class KeyRing:
    """The keys in force. `now` is the time of day, in seconds since 1970: keys expire by it."""

    __slots__ = ("_entries", "_keyed", "_nobody", "_now", "_open")

    def __init__(self, keys: Sequence[KeyConfig], now: Callable[[], float]) -> None:
        self._now = now
        self._keyed = blake2b(key=token_bytes(32), digest_size=16)
        # What an unknown key is compared with; no key has this digest but by a chance of 2^-256.
        self._nobody = _Entry(token_bytes(32), ANONYMOUS, inf)
        self.renew(keys)

    def renew(self, keys: Sequence[KeyConfig]) -> None:
        """Exactly these are good from now on. Who was let in before stays in to the end of the request."""
        entries = (
            _Entry(bytes.fromhex(key.digest.removeprefix("sha256:")), _caller(key), _end(key)) for key in keys
        )
        self._entries = {self._place(entry.digest): entry for entry in entries}
        self._open = not keys

    def caller_of(self, authorization: str | None, api_key: str | None = None) -> Caller:
        """Who sent these headers, `authorization` or, without it, `x-api-key`.

        Raises `InvalidApiKey`, the same for a key that is missing, malformed, unknown or expired.
        """
        if self._open:
            return ANONYMOUS
        digest = sha256(_key_in(authorization, api_key)).digest()
        entry = self._entries.get(self._place(digest), self._nobody)
        in_time = self._now() < entry.expires_at
        if hmac.compare_digest(entry.digest, digest) and in_time:
            return entry.caller
        raise InvalidApiKey(_REFUSAL)

    def named(self, key_id: str) -> Caller | None:
        """Who has the key of this id, whether or not it has expired."""
        callers = (entry.caller for entry in self._entries.values())
        return next((caller for caller in callers if caller.key_id == key_id), None)

    def _place(self, digest: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(digest)
        return keyed.digest()


def _key_in(authorization: str | None, api_key: str | None) -> bytes:
    """The bytes of the key as they were sent; none where there is no key."""
    if authorization is None:
        return b"" if api_key is None else api_key.encode("latin-1", "replace")
    scheme, _, key = authorization.partition(" ")
    return key.strip(" ").encode("latin-1", "replace") if scheme.lower() == "bearer" else b""


def _caller(key: KeyConfig) -> Caller:
    models = None if key.models is None else frozenset(key.models)
    return Caller(key.id, key.tenant, models, key.priority)


def _end(key: KeyConfig) -> float:
    return inf if key.expires is None else key.expires.timestamp()
