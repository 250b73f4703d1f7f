"""Two real vLLM replicas for the whole session; without their environment the tests are skipped."""

from collections.abc import Iterator

import pytest

from tests.real_vllm.replicas import Replica, missing, running

START_TIMEOUT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test that asks for replicas also waits for their start, longer than a usual test may."""
    for item in items:
        if "replicas" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(START_TIMEOUT_S))


@pytest.fixture(scope="session")
def replicas(pytestconfig: pytest.Config) -> Iterator[tuple[Replica, ...]]:
    """Two replicas of the same model with the same weights."""
    if reason := missing():
        pytest.skip(reason)
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def say(line: str) -> None:
        with capture.global_and_fixture_disabled():
            reporter.write_line(line)

    with running(2, say) as started:
        yield started
