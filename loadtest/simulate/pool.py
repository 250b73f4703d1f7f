"""Jobs on all cores. A process reads a workload once and keeps it; a job that was done is not done again."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from loadtest.simulate.contestants import Contestant, contestants
from loadtest.simulate.job import Answer, Job, measure
from loadtest.simulate.scenarios import Library


@dataclass(frozen=True, slots=True)
class Bench:
    """What every process must know."""

    traces: Path | None
    calls: int | None
    table: str
    """See `contestants`."""


class Pool:
    """Processes that answer jobs; a context manager."""

    def __init__(self, bench: Bench, processes: int) -> None:
        self._bench = bench
        self._count = processes
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._known: dict[Job, Answer] = {}

    def __enter__(self) -> Self:
        context = get_context("spawn")
        for _ in range(self._count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._bench), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self._connections.append(ours)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.terminate()
            process.join()

    def answers(self, jobs: Sequence[Job], tell: Callable[[], object]) -> list[Answer]:
        """In the order of the jobs. Raises what a job raised; `tell` is called after each one."""
        todo = [job for job in dict.fromkeys(jobs) if job not in self._known][::-1]
        idle, busy = list(self._connections), dict[Connection, Job]()
        while todo or busy:
            while todo and idle:
                connection, job = idle.pop(), todo.pop()
                connection.send(job)
                busy[connection] = job
            for ready in wait(list(busy)):
                connection = cast("Connection", ready)
                answer = connection.recv()
                if isinstance(answer, Exception):
                    raise answer
                self._known[busy.pop(connection)] = answer
                idle.append(connection)
                tell()
        return [self._known[job] for job in jobs]


def _serve(connection: Connection, bench: Bench) -> None:
    """A process's whole life: it ends when whoever asks has gone, or at Ctrl-C."""
    with suppress(EOFError, BrokenPipeError, KeyboardInterrupt):
        library, policies = Library(bench.traces, bench.calls), contestants(bench.table)
        while True:
            connection.send(_answer(connection.recv(), library, policies))


def _answer(job: Job, library: Library, policies: Mapping[str, Contestant]) -> Answer | Exception:
    try:
        return measure(job, library, policies)
    except Exception as error:  # noqa: BLE001  # it is raised again where the job came from
        return error
