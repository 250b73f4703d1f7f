"""Who waits in the router, read back the way Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families

from router.observe.exposition import render
from router.observe.queues import QueueGauge
from tests.support.bare_replicas import fleet, replica


def test_each_version_has_its_queue() -> None:
    """Zero is said too: an empty queue is no unknown one."""
    there = fleet(replica("http://a"), replica("http://b", version="v2"))
    there.pools["m", "v2"].queued = 7
    text = render(QueueGauge(lambda: there).collect()).decode()
    (family,) = text_string_to_metric_families(text)
    assert family.name == "turnout_queued_requests"
    found = {(each.labels["model"], each.labels["version"]): each.value for each in family.samples}
    assert found == {("m", "v1"): 0, ("m", "v2"): 7}
