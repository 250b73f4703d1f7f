"""How a version gets copies of requests. See `router.flow.shadow`."""

from router.config import checks
from router.config.option import option, section


@section
class ShadowConfig:
    """`[models.M.shadow]`: copies of requests, whose answers are compared and thrown away."""

    version: str = option("The version that gets the copies.", example="v2")
    fraction: float = option(
        "Share of the requests that is copied, 0 to 1; a copy costs as much as the request.",
        checks.between(0, 1),
        default=0.05,
    )
    max_open: int = option(
        "Copies under way at a time, per worker; what is more is dropped, so a slow version costs no more.",
        checks.at_least(1),
        default=8,
    )
    max_bytes: int = option(
        "Memory in bytes that copies may hold, per worker; whole answers are bounded by a share of it.",
        checks.at_least(1024 * 1024),
        default=32 * 1024 * 1024,
    )
    timeout_s: float = option(
        "Time that a copy may take before it is given up; give a slower version more.",
        checks.above(0),
        default=120.0,
    )
