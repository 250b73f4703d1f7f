"""Processes that a supervisor forks, what they say of themselves, and signals as something to wait for."""

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import monotonic

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)

STOP = signal.SIGUSR1
"""How a supervisor asks a child to stop. Children ignore what it is asked with itself: a terminal signals all
processes of a job, and a child that also heard it passed on would take it for the second time."""

_READY = b"ready\n"


@dataclass(frozen=True, slots=True)
class Post:
    """What a child knows of its place. `epoch` is another one for each child that was ever forked.

    `lifeline` is a file descriptor that ends when the supervisor does, however it does.
    """

    number: int
    epoch: int
    lifeline: int
    speech: int = field(repr=False)

    def say_ready(self) -> None:
        os.write(self.speech, _READY)

    def say(self, reason: str) -> None:
        """Why it cannot start."""
        os.write(self.speech, reason.encode()[:2000] + b"\n")


Run = Callable[[Post], int]
"""What a child does; returns its exit code."""


@dataclass(slots=True, eq=False)
class Child:
    """A forked process, as its supervisor sees it. `ears` is where it is heard."""

    pid: int
    number: int
    ears: int
    born_at: float
    ready: bool = False
    retiring: bool = False
    """Another has taken its place; it ends what it has begun."""
    said: str = ""

    def listen(self) -> bool:
        """Take in what it said; False at the end."""
        heard = os.read(self.ears, 4096)
        if heard == _READY:
            self.ready = True
        else:
            self.said += heard.decode(errors="replace")
        return bool(heard)

    def ended(self) -> int | None:
        """Its exit code, negative for a signal; None while it lives."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def send(self, number: signal.Signals) -> None:
        """Not reaped yet, so the id is still its own."""
        os.kill(self.pid, number)


class Nursery:
    """Forks children. The supervisor must have no threads and no event loop."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._epoch = int.from_bytes(os.urandom(2), "big")
        # Nobody ever writes here: a child sees the end of it when the supervisor is no more.
        self._lifeline, self._life = os.pipe()

    def fork(self, number: int, close: Callable[[], None]) -> Child:
        """`close` is called in the child, to let go of what is the supervisor's alone."""
        self._epoch = (self._epoch + 1) & 0xFFFF
        ears, speech = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # Until it has let go of the supervisor's handlers, a signal to the child would be taken for one to
        # the supervisor: they share the socket that signals are written to.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        pid = os.fork()
        if pid == 0:
            os.close(ears)
            os.close(self._life)
            self._live(Post(number, self._epoch, self._lifeline, speech), close)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(speech)
        return Child(pid, number, ears, monotonic())

    def close(self) -> None:
        os.close(self._lifeline)
        os.close(self._life)

    def _live(self, post: Post, close: Callable[[], None]) -> None:
        """In the child, to its end."""
        code = 1
        try:
            close()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            code = self._run(post)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not unwind the parent's stack
            traceback.print_exc()
            post.say(repr(error))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


class SignalQueue:
    """Signals as bytes in a socket that can be waited for, between `open` and `close`."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.settimeout(0)
        self._write.settimeout(0)

    def fileno(self) -> int:
        return self._read.fileno()

    def take(self) -> list[signal.Signals]:
        with contextlib.suppress(BlockingIOError):
            return [signal.Signals(number) for number in self._read.recv(4096)]
        return []

    def forget(self) -> None:
        """In a child: what the supervisor is asked with is not for it."""
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            signal.signal(number, signal.SIG_DFL if number is signal.SIGCHLD else signal.SIG_IGN)
        self._read.close()
        self._write.close()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """While this is entered, signals come here and do nothing else."""
        before = {number: signal.signal(number, _nothing) for number in HANDLED}
        signal.set_wakeup_fd(self._write.fileno())
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._read.close()
            self._write.close()


def _nothing(_number: int, _frame: object) -> None:
    """A handler must be there for the signal to be written to the socket."""
