"""What an error that Redis answers with means for limits.

The first word of an error is its kind: https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""

import enum
from typing import NamedTuple


class Kind(enum.Enum):
    UNKNOWN_SCRIPT = "it does not know the script"
    MOVED = "the keys live at another node"
    ASK = "the keys are moving to another node"
    AGAIN = "some of the keys are moving to another node"
    AWAY = "it cannot count now"
    MISCONFIGURED = "it is set up so that it cannot count"
    LATE = "it is slow or hangs"
    DEFECT = "it refused a command"


_KINDS = {
    "NOSCRIPT": Kind.UNKNOWN_SCRIPT,
    "MOVED": Kind.MOVED,
    "ASK": Kind.ASK,
    "BUSY": Kind.AWAY,
    "CLUSTERDOWN": Kind.AWAY,
    "LOADING": Kind.AWAY,
    "MASTERDOWN": Kind.AWAY,
    "MISCONF": Kind.AWAY,
    "NOREPLICAS": Kind.AWAY,
    "READONLY": Kind.AWAY,
    "TRYAGAIN": Kind.AGAIN,
    "CROSSSLOT": Kind.MISCONFIGURED,
    "NOAUTH": Kind.MISCONFIGURED,
    "NOPERM": Kind.MISCONFIGURED,
    "OOM": Kind.MISCONFIGURED,
    "WRONGPASS": Kind.MISCONFIGURED,
}


class Failure(NamedTuple):
    """`text` is what the server said, or what happened to the connection."""

    kind: Kind
    text: str

    @property
    def address(self) -> tuple[str, int]:
        """Where MOVED and ASK point; the host is empty for "where you asked"."""
        host, _, port = self.text.split()[2].rpartition(":")
        return host, int(port)


def failure_of(error: Exception) -> Failure:
    text = str(error)
    word = text.partition(" ")[0]
    # Up to version 6 an error inside a script stands behind the place where it happened.
    inner = text.rpartition(": -")[2].partition(" ")[0] if word == "ERR" else word
    return Failure(_KINDS.get(inner, Kind.DEFECT), text)
