"""What replicas were given to warm them, read back the way Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from router.fleet.replicas import Replica
from router.observe.exposition import render
from router.observe.warm_joins import WarmJoinCounts
from tests.support.bare_replicas import fleet, replica


def scraped(*replicas: Replica) -> dict[tuple[str, str], float]:
    text = render(WarmJoinCounts(lambda: fleet(*replicas)).collect()).decode()
    (family,) = text_string_to_metric_families(text)
    assert family.name == "turnout_warm_join_requests"
    return {(each.labels["replica"], each.labels["outcome"]): each.value for each in family.samples}


def test_counts_are_by_replica_and_outcome() -> None:
    one, other = replica("http://a"), replica("http://b")
    assert scraped(one, other) == {}
    one.warm_joins.update(completed=3, failed=1)
    other.warm_joins.update(completed=2)
    assert scraped(one, other) == {("a", "completed"): 3, ("a", "failed"): 1, ("b", "completed"): 2}


def test_versions_on_one_replica_add_up() -> None:
    first, second = replica("http://a"), replica("http://a", version="v2")
    first.warm_joins.update(completed=3)
    second.warm_joins.update(completed=2)
    assert scraped(first, second) == {("a", "completed"): 5}
