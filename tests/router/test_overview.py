"""The sum of all workers, those included that are gone."""

from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from router.config.decode import decode
from router.control.desk import Desk
from router.control.membership import Seat
from router.control.messages import Member, Place
from router.control.reports import ReplicaReport, WorkerReport
from router.control.roll import MAX_GONE
from router.fleet.kv_figures import KvFigures
from router.fleet.own_measurements import OwnMeasurements
from router.observe.series import Series
from router.observe.shadow import ShadowKey, ShadowTally
from router.overview import Overview
from tests.router.control.test_desk import report
from tests.support.loops import run_strictly
from tests.support.routers import config_text

A = Place("m", "v1", "a")


def worker(number: int, *, up: bool = True, in_flight: int = 1, requests: int = 1) -> WorkerReport:
    """A worker that has answered so many requests and measured ten tokens for each."""
    series = Series()
    for _ in range(requests):
        series.outcomes.count("ok")
        series.duration.observe(0.2)
    measured = OwnMeasurements(answers=requests, completion_tokens=10 * requests)
    kv = KvFigures(connected=up, events=requests)
    warnings = () if up else ("not heard",)
    given = {"completed": requests}
    seen = ReplicaReport(A, up, False, in_flight, in_flight, measured, kv, warnings, given, 100.0)
    shadow = ShadowTally()
    for _ in range(requests):
        shadow.results.count("sent")
    return structs.replace(
        report(number),
        shadows=[(ShadowKey("m", "v1", "v2"), shadow)],
        series=[(("m", "v1", "vllm"), series)],
        replicas=[seen],
        queued=[("m", "v1", requests)],
    )


def overview(folder: Path, test: Callable[[Overview, list[WorkerReport]], None]) -> None:
    """Run `test` with an overview and the reports that it has, which may be changed."""

    async def run() -> None:
        text = config_text('url = "http://127.0.0.1:9", engine = "vllm", id = "a"')
        made = Overview(decode(text, "t.toml"), Seat(0, Member(1, 0, 0), folder, bytes(32)))
        there: list[WorkerReport] = []
        made._desk = _Desk(there)
        test(made, there)
        await made.close()

    run_strictly(run())


class _Desk(Desk):
    def __init__(self, there: list[WorkerReport]) -> None:
        super().__init__(list, lambda _: None)
        self._there = there

    @property
    def reports(self) -> list[WorkerReport]:
        return self._there


def answered(made: Overview) -> int:
    return sum(series.outcomes.counts["ok"] for series in made.metrics.series.values())


def copied(made: Overview) -> int:
    return sum(tally.results.counts["sent"] for tally in made._shadows().values())


def test_workers_add_up(tmp_path: Path) -> None:
    """Counts, requests in flight and measurements; up is what is up for all."""

    def test(made: Overview, there: list[WorkerReport]) -> None:
        (replica,) = made.current_fleet().replicas
        there += [worker(1, in_flight=2, requests=3), worker(2, requests=4)]
        made._show()
        assert (replica.own_in_flight, replica.waiting, replica.up) == (3, 3, True)
        assert replica.meter.read(0, 0).completion_tokens == 70
        assert replica.tokens == 200
        assert replica.warm_joins == {"completed": 7}
        assert (answered(made), copied(made)) == (7, 7)
        there[1] = worker(2, up=False)
        made._show()
        assert replica.up is False
        heard = made._kv_sums.figures(replica)
        assert heard is not None
        assert (heard.connected, heard.events) == (False, 4)
        assert made._kv_sums.warnings(replica) == ("not heard",)

    overview(tmp_path, test)


def test_what_is_gone_stays_counted(tmp_path: Path) -> None:
    """Once, also if a worker only lost its line; and however many have gone."""

    def test(made: Overview, there: list[WorkerReport]) -> None:
        (replica,) = made.current_fleet().replicas
        made._roll.keep(worker(1, requests=3))
        there.append(worker(2, requests=1))
        made._show()
        assert (answered(made), replica.own_in_flight) == (4, 1)
        there.append(worker(1, requests=5))
        made._show()
        assert answered(made) == 6
        for number in range(10, 10 + 3 * MAX_GONE):
            made._roll.keep(worker(number))
        made._show()
        assert answered(made) == copied(made) == 6 + 3 * MAX_GONE
        assert replica.meter.read(0, 0).answers == 6 + 3 * MAX_GONE
        assert replica.warm_joins == {"completed": 6 + 3 * MAX_GONE}
        heard = made._kv_sums.figures(replica)
        assert heard is not None
        assert (heard.listeners, heard.events) == (2, 6 + 3 * MAX_GONE)
        assert len(made._roll._gone) == MAX_GONE

    overview(tmp_path, test)


def test_queues_add_up(tmp_path: Path) -> None:
    """Each worker has its own; with a worker its queue is gone."""

    def test(made: Overview, there: list[WorkerReport]) -> None:
        (pool,) = made.current_fleet().pools.values()
        there += [worker(1, requests=3), worker(2, requests=4)]
        made._show()
        assert pool.queued == 7
        made._roll.keep(there.pop())
        made._show()
        assert pool.queued == 3
        there.clear()
        made._show()
        assert pool.queued == 0

    overview(tmp_path, test)


def test_the_sums_are_not_the_workers(tmp_path: Path) -> None:
    """To show twice does not count twice."""

    def test(made: Overview, there: list[WorkerReport]) -> None:
        there.append(worker(1, requests=3))
        made._show()
        made._show()
        assert answered(made) == 3

    overview(tmp_path, test)
