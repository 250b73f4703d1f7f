"""What is counted during a rehearsal."""

from collections import Counter
from collections.abc import Iterable

from loadtest.simulate.contender import Contender, Result, result_of
from loadtest.simulate.rehearsal.results import Errors
from loadtest.simulate.rehearsal.visit import Visit
from loadtest.simulate.results import Served, Slo


class Tally:
    """Of one run, with these versions."""

    def __init__(self, versions: Iterable[str]) -> None:
        self.assigned: Counter[str] = Counter()
        """Requests by the version that they were drawn for."""
        self.observed = [0, 0]
        """Stable's and the canary's that a judge was told of."""
        self.covered = 0
        """Answered by stable in the canary's place."""
        self._broken: Counter[str] = Counter()
        self._served: dict[str, list[Served]] = {version: [] for version in versions}
        self._of_replica: Counter[tuple[str, str]] = Counter()

    def ended(self, visit: Visit, served: Served) -> int:
        """How many requests its replica had served before."""
        self.assigned[visit.assigned] += 1
        self.covered += visit.struck.errors
        whole = served.ok and (visit.struck.errors or not visit.struck.broken)
        self._broken[visit.version] += not whole
        self._served[visit.version].append(served if whole else served._replace(ok=False))
        replica = (visit.version, served.replica)
        self._of_replica[replica] += 1
        return self._of_replica[replica] - 1

    @property
    def errors(self) -> Errors:
        """Answers that broke off, by the version that they came from."""
        return {version: self._broken[version] for version in self._served}

    def result(self, pool: Contender, slo: Slo) -> Result:
        """Of what a version answered."""
        served = self._served[pool.name]
        return result_of(pool, served, slo, len(served), 0.0)
