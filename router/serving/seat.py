"""A worker's place in a router of several processes."""

from dataclasses import dataclass
from pathlib import Path

from router.control.messages import Member


@dataclass(frozen=True, slots=True)
class Seat:
    """Which worker it is, from 1; who it is; and the folder with the sockets of its router's processes."""

    number: int
    member: Member
    folder: Path
