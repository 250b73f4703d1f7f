"""Recorded answers of the engines, see `tests/fixtures/engines/README.md`."""

from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures" / "engines"


def recorded(name: str) -> bytes:
    """A file below `tests/fixtures/engines`, such as `tgi/metrics.prom`."""
    return (FIXTURES / name).read_bytes()
