from loadtest.engine.host_tier import HostTier
from loadtest.engine.kv_cache import KvCache
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.scheduler import Scheduler, SchedulerLimits
from loadtest.engine.sequence import Sequence


def test_the_deepest_block_of_the_oldest_chain_goes_first() -> None:
    tier = HostTier(4)
    tier.stored([1, 2, 3], None, [])
    tier.stored([11, 12], None, [])
    assert len(tier) == 4
    assert tier.find([1, 2, 3]) == 2 and tier.find([11, 12]) == 2 and tier.find([12, 11, 99]) == 2
    tier.touch([1, 2])
    tier.stored([21], None, [])
    assert tier.find([1, 2]) == 2 and tier.find([11, 12]) == 1


def test_what_leaves_the_cache_stays_and_what_is_flushed_does_not() -> None:
    tier = HostTier(4)
    tier.stored([1], None, [])
    tier.removed([1])
    assert tier.find([1]) == 1
    tier.cleared()
    assert len(tier) == 0


def test_real_tokens_come_back_from_it() -> None:
    """A cache of 4 blocks, two prompts of 3 in turn: each finds the blocks that the other one drove out."""
    engine: Scheduler[Sequence] = Scheduler(SchedulerLimits(), KvCache(4, 4), HostTier(16))
    params = SamplingParams(1, ignore_eos=True)
    for turn in range(4):
        one = Sequence(range(7_000 + 100 * (turn % 2), 7_013 + 100 * (turn % 2)), params, 0, 0.0)
        engine.add(one)
        step = engine.schedule(0.0)
        assert step is not None
        assert (one.cached_tokens, one.loaded_tokens) == ((0, 0) if turn < 2 else (12, 12))
        assert step.load.loaded_tokens == one.loaded_tokens
        engine.complete(step, 1.0)
