"""Which store a process counts limits in."""

from router.config.model import Config
from router.control.limits.bucket_file import Geometry
from router.control.limits.local import LocalStore
from router.control.limits.shared_book import SharedBook
from router.control.limits.shared_store import SharedStore
from router.control.limits.store import LimitStore
from router.control.membership import Seat

_OVERVIEW = 0


def build_store(config: Config, seat: Seat | None) -> LimitStore | None:
    """None where nothing is limited. Raises `OSError` if the folder of the seat cannot be used."""
    if not config.limits:
        return None
    if config.redis is not None:
        from router.control.limits.redis_store import RedisStore

        return RedisStore(
            config.redis,
            total_s=config.timeouts.total_s,
            processes=1 if seat is None else config.server.workers,
        )
    return LocalStore() if seat is None else _shared(config, seat)


def _shared(config: Config, seat: Seat) -> SharedStore:
    # Twice the workers: each may have a successor while it drains, and some drain long.
    geometry = Geometry(places=8 + 2 * config.server.workers)
    return SharedStore(SharedBook(seat.folder, geometry, takes_part=seat.number != _OVERVIEW))
