"""Request ids: the client's own where it is usable, else one that is unique in this fleet of routers."""

import itertools
import re
import secrets

_USABLE = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIds:
    """Ids with a random start per process and a counter, so that making one costs nothing."""

    def __init__(self) -> None:
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)

    def of(self, offered: str | None) -> str:
        """`offered` if it is 1 to 128 visible ASCII characters, else a new id."""
        if offered is not None and _USABLE.fullmatch(offered):
            return offered
        return f"{self._prefix}-{next(self._numbers):x}"
