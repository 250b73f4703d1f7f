"""What is fixed of a replica."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a replica is called, where it is and what it may take; the last may change while it lives."""

    id: str
    url: str
    model: str
    version: str
    weight: float = 1.0
    max_in_flight: int | None = None
    api_key: str | None = field(default=None, repr=False)
    """Sent to the replica in place of the client's."""
