from dataclasses import replace
from random import Random

import pytest

from loadtest.drive.scenario import drivable
from loadtest.simulate.faults import Restart
from loadtest.simulate.generators import gmi_like, zipf
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.setup import Setup, alike

SETUP = Setup(replicas=alike(2, HARDWARE["8b-a10g"]))
WITH_HOST = replace(HARDWARE["8b-a10g"], host_tokens=1000)


def test_no_answer_is_seen() -> None:
    work = gmi_like(20, Random(0))
    calls = list(drivable(work, SETUP).calls)
    assert [call.prompt for call in calls] == [call.prompt for call in work.calls]
    assert not any(call.answer_seen for call in calls) and all(call.answer for call in calls)


def test_what_no_engine_holds_is_left_out() -> None:
    work = zipf(5, Random(0))
    longest = max(call.prompt.tokens + call.completion_tokens for call in work.calls)
    tight = replace(HARDWARE["8b-a10g"], kv_tokens=longest - 1)
    assert 0 < len(drivable(work, Setup(replicas=alike(2, tight)))) < 5
    with pytest.raises(ValueError, match="longer than a replica's memory"):
        drivable(work, Setup(replicas=alike(2, replace(tight, kv_tokens=100))))


@pytest.mark.parametrize(
    "setup",
    [
        replace(SETUP, faults=(Restart(1.0, "r0", 1.0),)),
        replace(SETUP, kv_events_s=0.03),
        replace(SETUP, gossip_loss=0.1),
        replace(SETUP, gossip_s=None),
        replace(SETUP, scrape_interval_s=None),
        Setup(replicas=alike(2, WITH_HOST)),
    ],
)
def test_what_only_virtual_replicas_can_do(setup: Setup) -> None:
    with pytest.raises(ValueError, match="can be simulated, not driven"):
        drivable(zipf(5, Random(0)), setup)
