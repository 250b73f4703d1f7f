"""The seam between serving and flow: one request in, one answer out.

Front ends make exchanges from connections; the flow neither knows nor cares which made it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Header = tuple[bytes, bytes]


class Exchange(Protocol):
    """One HTTP exchange. All methods are synchronous and never raise for a client that has left.

    `headers` have lower-case names; of a repeated one the last. `received_at` is the monotonic time
    at which the last byte of the request was read. `on_disconnect` is called once, when the client is
    gone before `finish`; `on_pause` and `on_resume` when the answer comes faster than the client reads.
    """

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...
    @property
    def received_at(self) -> float: ...
    @property
    def disconnected(self) -> bool: ...
    @property
    def bytes_out(self) -> int: ...

    on_disconnect: Callable[[], None] | None
    on_pause: Callable[[], None] | None
    on_resume: Callable[[], None] | None

    def start(self, status: int, headers: Sequence[Header], length: int | None) -> None:
        """Begin the answer. `length` None: its length is not known, it ends with `finish`.

        Nothing need reach the wire before the first `write` or `finish`.
        """
        ...

    def write(self, data: bytes) -> None:
        """A piece of the body; an empty one changes nothing."""
        ...

    def finish(self) -> None:
        """The answer is complete."""
        ...

    def abort(self) -> None:
        """Cut the answer so that the client can tell that it is not complete."""
        ...
