"""How a process becomes a member: who it is, whom it reaches, and what all members have in common."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from secrets import token_bytes

from router.config.model import Config
from router.control.channel import Channel
from router.control.datagrams import DatagramChannel
from router.control.messages import Member
from router.control.sharing import Sharing


@dataclass(frozen=True, slots=True)
class Seat:
    """A process's place in a router of several: workers count from 1, 0 is the overview.

    `folder` holds the sockets of all its processes.
    """

    number: int
    member: Member
    folder: Path
    prefix_key: bytes = field(repr=False)


def join(config: Config, seat: Seat | None) -> Sharing | None:
    """None where nobody is there to share with."""
    member = _newcomer() if seat is None else seat.member
    channels: list[Channel] = [] if seat is None else [DatagramChannel(seat.folder, member)]
    if config.redis is not None:
        from router.control.redis_channel import RedisChannel

        channels.append(RedisChannel(config.redis.url, member))
    return Sharing(member, channels) if channels else None


def prefix_key(config: Config) -> bytes:
    """What keys the hashes of prompts: equal in all routers that share, as their Redis is, else by chance."""
    if config.redis is None:
        return token_bytes(32)
    return hashlib.blake2b(
        config.redis.url.reveal().encode(), digest_size=32, person=b"turnout prefix"
    ).digest()


def _newcomer() -> Member:
    """A router of one process: who it is must only be unlike all others."""
    random = SystemRandom()
    return Member(random.getrandbits(32), random.getrandbits(16), random.getrandbits(16))
