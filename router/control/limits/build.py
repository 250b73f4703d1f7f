"""Which store a process counts limits in."""

from router.config.model import Config
from router.control.limits.local import LocalStore
from router.control.limits.store import LimitStore
from router.control.membership import Seat


def build_store(config: Config, seat: Seat | None) -> LimitStore | None:
    """None where nothing is limited."""
    return LocalStore() if config.limits else None
