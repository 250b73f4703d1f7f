"""Which file the processes of one router have their releases in."""

from pathlib import Path
from tempfile import mkdtemp

from router.config.model import Config
from router.control.membership import Seat
from router.control.releases.release_file import ReleaseFile

_NAME = "releases.json"


def release_file(config: Config, seat: Seat | None) -> ReleaseFile:
    """As configured; with Redis a copy in the router's own folder; else beside the configuration."""
    if config.releases.file is not None:
        return ReleaseFile(Path(config.releases.file))
    source = Path(config.source.file)
    if config.redis is None and source.is_file():
        return ReleaseFile(source.absolute().with_suffix(f".{_NAME}"))
    return ReleaseFile((Path(mkdtemp(prefix="turnout-")) if seat is None else seat.folder) / _NAME)
