"""What a build may see: the files of the repository that `.dockerignore` lets through."""

from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def context_files(repository: Path = REPOSITORY) -> Iterator[Path]:
    """Relative paths of all files that a COPY can reach. The last pattern that matches decides, as for Docker."""
    lines = (repository / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    yield from _visible(repository, Path(), patterns)


def _visible(repository: Path, folder: Path, patterns: list[str]) -> Iterator[Path]:
    for entry in sorted((repository / folder).iterdir()):
        path = folder / entry.name
        if _ignored(path, patterns):
            continue
        if entry.is_dir():
            yield from _visible(repository, path, patterns)
        else:
            yield path


def _ignored(path: Path, patterns: list[str]) -> bool:
    ignored = False
    for pattern in patterns:
        if _matches(path, pattern.removeprefix("!")):
            ignored = not pattern.startswith("!")
    return ignored


def _matches(path: Path, pattern: str) -> bool:
    """`pattern` names the path or a folder that holds it; `**/` stands for any folders, none included."""
    if pattern.startswith("**/"):
        return any(fnmatch(part, pattern.removeprefix("**/")) for part in path.parts)
    depth = pattern.count("/") + 1
    return fnmatch("/".join(path.parts[:depth]), pattern)
