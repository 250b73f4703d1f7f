from dataclasses import replace
from itertools import combinations
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


def test_prompts_are_seen_as_the_router_hashes_them() -> None:
    """Its blocks are of 512 bytes, and what they hold in tokens it knows better with every answer."""
    calls = list(drivable(zipf(40, Random(0), prefixes=2), SETUP).calls)
    seen = [call.seen for call in calls if call.seen is not None]
    assert len(seen) == 40
    pairs = [
        (one.prompt.blocks[:16] == other.prompt.blocks[:16], one.seen.blocks[0] == other.seen.blocks[0])
        for one, other in combinations(calls, 2)
        if one.seen is not None and other.seen is not None
    ]
    assert {(True, True), (False, False)} == set(pairs)
    off = [abs(one.tokens / call.prompt.tokens - 1) for one, call in zip(seen, calls, strict=True)]
    assert off[0] > 0.2 > 0.05 > off[-1]


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
