"""Values that must not be shown: a secret prints as its reference or as a mask, never as itself."""

from urllib.parse import urlsplit

MASK = "********"


class Secret:
    """A key or token. `reference` is the `env:NAME` or `file:PATH` it was read from, if any."""

    __slots__ = ("_reference", "_value")

    def __init__(self, value: str, reference: str | None = None) -> None:
        self._value = value
        self._reference = reference

    def reveal(self) -> str:
        return self._value

    def masked(self) -> str:
        """What may be printed: where the secret is read from, or else only that there is one."""
        return self._reference or self._mask()

    def _mask(self) -> str:
        return MASK

    def __str__(self) -> str:
        return self.masked()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.masked()!r})"

    def __format__(self, spec: str) -> str:
        return format(self.masked(), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)


class SecretUrl(Secret):
    """A URL that may carry a password: everything but scheme, host, port and path is masked."""

    __slots__ = ()

    def _mask(self) -> str:
        try:
            parts = urlsplit(self._value)
        except ValueError:
            return MASK
        user, at, address = parts.netloc.rpartition("@")
        return f"{parts.scheme}://{MASK + at if user else ''}{address}{parts.path}"
