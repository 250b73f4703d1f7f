import pytest

from loadtest.drive.engines import options_of
from loadtest.engine.core import EngineCore
from loadtest.simulate.hardware import HARDWARE
from loadtest.simulate.replica import VirtualReplica
from loadtest.simulate.setup import ReplicaSetup
from loadtest.simulate.timeline import Timeline


@pytest.mark.parametrize("profile", HARDWARE)
def test_an_engine_has_the_limits_of_its_virtual_twin(profile: str) -> None:
    hardware = HARDWARE[profile]
    virtual = VirtualReplica("r", hardware, 128, Timeline()).scheduler
    core = EngineCore(options_of(ReplicaSetup("r", hardware, slowdown=2.0), 128))
    assert core.scheduler.limits == virtual.limits
    assert core.cache.num_blocks == virtual.cache.num_blocks
    assert core.cache.block_size == virtual.cache.block_size
    assert (core.options.latency, core.options.speed) == (hardware.latency, 0.5)
