"""Writes lines to a descriptor from a thread of its own, so that a full disk or a blocked pipe stops nobody.

What cannot be written is dropped and counted; a line is never written in part without its end of line.
"""

import os
import queue
import select
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

PIPE_BYTES = 4096
"""Writes up to this size to a pipe arrive whole, also when several workers share it (POSIX PIPE_BUF)."""

FILE_BYTES = 1 << 20


class Target(Protocol):
    """Where lines go. `descriptor` raises OSError while there is nowhere to write."""

    def descriptor(self) -> int: ...
    def close(self) -> None: ...


class Stream:
    """A descriptor that somebody else opened and closes: standard output or error."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def descriptor(self) -> int:
        return self._descriptor

    def close(self) -> None:
        pass


class LogFile:
    """A file that is appended to, and opened again once it was moved away, as logrotate does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = self._open()

    def descriptor(self) -> int:
        if not self._still_there():
            os.close(self._descriptor)
            self._descriptor = -1
            self._descriptor = self._open()
        return self._descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _still_there(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except OSError:
            return False


class LogWriter:
    """The thread. `put` and `close` are for one other thread; each counter has one writer."""

    def __init__(self, target: Target) -> None:
        self.lost_lines = 0
        """Lines that the target refused."""
        self._target = target
        self._batches: queue.SimpleQueue[Sequence[bytes] | None] = queue.SimpleQueue()
        self._bytes_put = 0
        self._bytes_done = 0
        self._closing = False
        self._torn = False
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    @property
    def pending_bytes(self) -> int:
        return self._bytes_put - self._bytes_done

    def put(self, lines: Sequence[bytes]) -> None:
        """Hand over lines, each with its line end. Never waits."""
        self._bytes_put += sum(map(len, lines))
        self._batches.put(lines)

    def close(self, timeout_s: float) -> bool:
        """Write what was put, for at most `timeout_s`; False if some of it is still stuck then."""
        self._batches.put(None)
        self._thread.join(timeout_s)
        self._closing = True
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (lines := self._batches.get()) is not None:
            written = 0
            try:
                descriptor = self._target.descriptor()
                for piece in pieces(lines, _most_at_once(descriptor)):
                    self._write(descriptor, b"".join(piece))
                    written += len(piece)
            except OSError:
                self.lost_lines += len(lines) - written
            self._bytes_done += sum(map(len, lines))
        self._target.close()

    def _write(self, descriptor: int, data: bytes) -> None:
        left = memoryview(b"\n" + data if self._torn else data)
        while left:
            try:
                size = os.write(descriptor, left)
            except BlockingIOError:
                self._wait(descriptor)
                continue
            left = left[size:]
            self._torn = bool(left)

    def _wait(self, descriptor: int) -> None:
        """Until the reader of a pipe in non-blocking mode has made room."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        while not poll.poll(200):
            if self._closing:
                raise BlockingIOError("nobody reads the log")


def pieces(lines: Sequence[bytes], most_bytes: int) -> Iterator[Sequence[bytes]]:
    """Runs of whole lines of at most `most_bytes` each; a longer line is a piece of its own."""
    begin = size = 0
    for end, line in enumerate(lines):
        size += len(line)
        if size > most_bytes and end > begin:
            yield lines[begin:end]
            begin, size = end, len(line)
    if begin < len(lines):
        yield lines[begin:]


def _most_at_once(descriptor: int) -> int:
    return FILE_BYTES if stat.S_ISREG(os.fstat(descriptor).st_mode) else PIPE_BYTES
