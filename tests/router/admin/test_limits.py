"""What is shown of limits, most of all when something is wrong."""

import asyncio

from policies.limits.gcra import Rate
from policies.limits.rules import Limit, Rules, Subject
from router.admin.limits import LimitBoard
from router.config.process import RedisConfig
from router.config.secret import SecretUrl
from router.control.limits.redis_store import RedisStore


def test_a_store_that_denies_everything_is_shown_as_away() -> None:
    """The page that says why all requests are refused is not refused itself."""
    rules = Rules([Limit(name="l", per=("tenant",), match={}, requests=Rate(60, 60))])

    async def test() -> None:
        # Never started: its server is away from the beginning.
        store = RedisStore(RedisConfig(url=SecretUrl("redis://127.0.0.1:1"), on_failure="deny"))
        board = LimitBoard(rules, store)
        rules.plan(Subject("acme"))
        view = await board.view()
        assert view.store is not None
        assert not view.store.healthy
        assert (view.limits, view.buckets) == (["l"], [])

    asyncio.run(test())
