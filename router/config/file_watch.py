"""When a file has changed: by its inode, size and time, seen twice alike before it is believed."""

from pathlib import Path

Signature = tuple[int, int, int] | None


class FileWatch:
    """Of one file, which need not be there. `look` is called again and again; looks must be 20 ms apart.

    Who writes a file in place shows it half written. So a change counts when the file has stood still from
    one look to the next.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Signature = None
        self._settled = False

    def look(self) -> bool:
        """Whether the file has changed and stands still. The first time it does, it has changed."""
        seen = _signature(self._path)
        if seen != self._seen:
            self._seen, self._settled = seen, False
            return False
        changed, self._settled = not self._settled, True
        return changed


def _signature(path: Path) -> Signature:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
