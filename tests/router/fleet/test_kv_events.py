"""What policies are told of simulated engines' caches, over real sockets, equals what those cache."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from loadtest.engine.kv_cache import KvCache
from loadtest.engine.kv_publisher import KvEventsConfig as PublisherConfig
from loadtest.engine.kv_publisher import KvPublisher
from loadtest.engine.server import RunningEngine
from policies.routing.events import BlocksRemoved, BlocksStored, CacheLost, Event
from router.config.model import KvEventsConfig
from router.fleet.kv_events import KvEvents
from router.fleet.kv_figures import KvFigures
from router.fleet.replicas import Replica
from router.fleet.stations import Watched
from router.fleet.token_blocks import TokenBlocks
from router.fleet.zmq_links import LinkError
from tests.support.bare_replicas import watched
from tests.support.engine_client import engine, post
from tests.support.kv import BLOCK, NEWEST, config_json, hash_of, places, publishing, stored
from tests.support.loops import run_strictly
from tests.support.scripted_server import until

KEY = b"key"
UNIT = 16
BLOCKS = TokenBlocks(KEY, UNIT)


class Told:
    """What a policy that believes everything would know, by replica and version."""

    def __init__(self) -> None:
        self.blocks: dict[Replica, set[int]] = {}
        self.kinds: list[type[Event]] = []

    def __call__(self, replica: Replica, event: Event) -> None:
        known = self.blocks.setdefault(replica, set())
        self.kinds.append(type(event))
        assert event.replica == replica.id
        match event:
            case CacheLost():
                known.clear()
            case BlocksStored():
                assert event.block_tokens in (UNIT, BLOCK)
                known.update(event.blocks)
            case BlocksRemoved():
                assert known.issuperset(event.blocks)
                known.difference_update(event.blocks)
            case _:
                raise AssertionError(event)


class Ledger:
    """Listens inside a simulated engine: the token ids of every block that is cached now."""

    def __init__(self, cache: KvCache) -> None:
        self._size = cache.block_size
        self.prefixes: dict[int, tuple[int, ...]] = {}
        # Of evicted blocks, too: what follows them may still be there.
        self._ever: dict[int, tuple[int, ...]] = {}
        cache.listeners.append(self)

    def stored(self, hashes: Sequence[int], parent: int | None, token_ids: Sequence[int]) -> None:
        before = () if parent is None else self._ever[parent]
        for at, each in enumerate(hashes):
            before = (*before, *token_ids[at * self._size : (at + 1) * self._size])
            self.prefixes[each] = self._ever[each] = before

    def removed(self, hashes: Sequence[int]) -> None:
        for each in hashes:
            del self.prefixes[each]

    def cleared(self) -> None:
        self.prefixes.clear()

    def blocks(self) -> set[int]:
        """By the router's hashes."""
        per_block = self._size // UNIT
        return {each for ids in self.prefixes.values() for each in BLOCKS.hash(ids)[-per_block:]}


@asynccontextmanager
async def following(*followed: Watched, **options: Any) -> AsyncIterator[tuple[KvEvents, Told]]:
    told = Told()
    events = KvEvents(KEY, told, **options)
    events.follow(followed)
    try:
        yield events, told
    finally:
        await events.close()


def seen(
    running: RunningEngine | None,
    config: KvEventsConfig,
    version: str = "v1",
    *,
    adapter: str = "",
    url: str = "",
) -> Watched:
    dialect = "vllm" if running is None else running.options.dialect
    one = watched(url or (running.url if running else "http://engine:1"), version, engine=dialect)
    return replace(one, station=replace(one.station, kv_events=config), adapter=adapter, block_tokens=UNIT)


def pushed(folder: Path, *, replays: bool = True) -> KvEventsConfig:
    endpoint, replay = places(folder)
    return KvEventsConfig(endpoint=endpoint, replay_endpoint=replay if replays else None, topic="kv-events")


async def traffic(running: RunningEngine, random: Random, requests: int) -> None:
    """Prompts that share prefixes, more than the cache holds, a few at a time, and now and then a flush."""
    shared = [[random.randrange(5000, 9000) for _ in range(400)] for _ in range(4)]
    for _ in range(requests // 4):
        prompts = [random.choice(shared)[: random.randrange(0, 400)] for _ in range(4)]
        bodies = [
            {
                "prompt": [*each, *(random.randrange(5000, 9000) for _ in range(random.randrange(1, 60)))],
                "model": running.options.model,
                "max_tokens": random.randrange(1, 40),
                "temperature": 0,
            }
            for each in prompts
        ]
        answers = await asyncio.gather(*(post(running, "/v1/completions", body) for body in bodies))
        assert {each.status for each in answers} == {200}
        if random.random() < 0.1:
            running.core.reset_prefix_cache()
    # A flush is told with the next step.
    await post(running, "/v1/completions", {**bodies[0], "prompt": shared[0]})


SMALL = {"max_model_len": 600, "max_num_seqs": 4}


@pytest.mark.parametrize("version", ["0.9.2", "0.12", "0.20", "0.32.0"])
@pytest.mark.parametrize("seed", range(2))
def test_a_mirror_of_vllm_is_true(tmp_path: Path, version: str, seed: int) -> None:
    """After random traffic with evictions and flushes, in every encoding."""

    async def run() -> None:
        extra = {"kv_events_config": config_json(tmp_path), "version": version}
        async with engine("vllm", extra=extra, speed=1e6, num_blocks=90, **SMALL) as vllm:
            cached = Ledger(vllm.core.cache)
            one = seen(vllm, pushed(tmp_path))
            async with following(one) as (events, told):
                await traffic(vllm, Random(seed), 60)
                await until(lambda: told.blocks.get(one.replica, set()) == cached.blocks() != set())
                figures = events.figures(one.replica)
                assert figures is not None
                assert (figures.gaps, figures.losses, figures.orphan_blocks, figures.unreadable) == (
                    0,
                    0,
                    0,
                    0,
                )
                assert figures.known_blocks == len(cached.prefixes)
                assert figures.stored_blocks - figures.removed_blocks >= len(cached.blocks())
                assert figures.removed_blocks > 0
                assert figures.connected
                assert figures.last_event_age_s is not None
                assert events.cached(one.replica) == cached.blocks()
                assert {BlocksStored, BlocksRemoved} <= set(told.kinds)
                assert events.warnings(one.replica) == ()

    run_strictly(run())


@pytest.mark.parametrize("push", [True, False])
def test_a_mirror_of_trtllm_is_true(tmp_path: Path, push: bool) -> None:
    """Pushed and pulled; its blocks are two of the router's."""

    async def run() -> None:
        extra = {"kv_events_config": config_json(tmp_path)} if push else {}
        async with engine("trtllm", extra=extra, speed=1e6, num_blocks=45, **SMALL) as trtllm:
            cached = Ledger(trtllm.core.cache)
            one = seen(trtllm, pushed(tmp_path) if push else KvEventsConfig(interval_s=0.005))
            async with following(one) as (events, told):
                await traffic(trtllm, Random(1), 40)
                await until(lambda: told.blocks.get(one.replica, set()) == cached.blocks() != set())
                figures = events.figures(one.replica)
                assert figures is not None
                assert (figures.losses, figures.orphan_blocks) == (0, 0)

    run_strictly(run())


def test_a_prompt_finds_its_blocks(tmp_path: Path) -> None:
    """Hashed as a request's prompt, its ids are what the engine said it holds."""

    async def run() -> None:
        extra = {"kv_events_config": config_json(tmp_path)}
        async with engine("vllm", extra=extra) as vllm:
            one = seen(vllm, pushed(tmp_path))
            async with following(one) as (_, told):
                ids = list(range(5000, 5100))
                await post(vllm, "/v1/completions", {"prompt": ids, "max_tokens": 1})
                await until(lambda: told.blocks.get(one.replica) == set(BLOCKS.hash(ids)))

    run_strictly(run())


def test_an_engine_that_restarts_begins_with_nothing(tmp_path: Path) -> None:
    """What it cached is gone as soon as its publisher is back."""

    async def run() -> None:
        extra = {"kv_events_config": config_json(tmp_path)}
        async with engine("vllm", extra=extra) as vllm:
            one = seen(vllm, pushed(tmp_path))
            async with following(one) as (events, told):
                await post(vllm, "/v1/completions", {"prompt": list(range(5000, 5100)), "max_tokens": 1})
                await until(lambda: len(told.blocks.get(one.replica, ())) == 6)
                await vllm.restart()
                await until(lambda: told.kinds[-1] is CacheLost)
                ids = list(range(6000, 6040))
                await post(vllm, "/v1/completions", {"prompt": ids, "max_tokens": 1})
                await until(lambda: told.blocks[one.replica] == set(BLOCKS.hash(ids)))
                figures = events.figures(one.replica)
                assert figures is not None
                assert (figures.restarts, figures.connections) == (1, 2)

    run_strictly(run())


def test_versions_of_one_process_hear_what_is_theirs(tmp_path: Path) -> None:
    """One connection; the base model's blocks and the adapter's are apart. Who comes later hears all."""

    async def run() -> None:
        extra = {"kv_events_config": config_json(tmp_path)}
        async with engine("vllm", extra=extra, loras=("tuned",)) as vllm:
            base = seen(vllm, pushed(tmp_path))
            tuned = seen(vllm, pushed(tmp_path), "v2", adapter="tuned")
            ids = list(range(5000, 5064))
            async with following(base) as (events, told):
                for model in ("demo-8b", "tuned"):
                    more = ids if model == "tuned" else ids[:32]
                    await post(vllm, "/v1/completions", {"model": model, "prompt": more, "max_tokens": 1})
                await until(lambda: told.blocks.get(base.replica) == set(BLOCKS.hash(ids[:32])))
                events.follow([base, tuned])
                await until(lambda: told.blocks.get(tuned.replica) == set(BLOCKS.hash(ids)))
                assert told.blocks[base.replica] == set(BLOCKS.hash(ids[:32]))
                events.follow([tuned])
                assert events.figures(base.replica) is None
                assert events.cached(tuned.replica) == set(BLOCKS.hash(ids))

    run_strictly(run())


def test_ranks_add_up() -> None:
    """Two publishers on neighbouring ports are one replica."""

    async def run() -> None:
        port, ranks = two_ranks()
        one = seen(None, KvEventsConfig(endpoint=f"tcp://127.0.0.1:{port}", ranks=2))
        async with following(replace(one, block_tokens=BLOCK)) as (events, told):
            await until(lambda: connections(events, one) == 2)
            for rank, publisher in enumerate(ranks):
                publisher.publish(NEWEST.batch(1.0, [stored(rank)], rank))
            await until(lambda: told.blocks.get(one.replica) == {hash_of(0), hash_of(1)})
        for each in ranks:
            each.close()

    run_strictly(run())


def two_ranks() -> tuple[int, list[KvPublisher]]:
    """Open on neighbouring ports that nobody else has; the first of them."""
    for port in range(21_557, 29_557, 2):
        config = PublisherConfig(endpoint=f"tcp://*:{port}")
        ranks = [KvPublisher(config, rank, replays_topic=True) for rank in (0, 1)]
        try:
            for each in ranks:
                each.open()
        except LinkError:
            for each in ranks:
                each.close()
        else:
            return port, ranks
    raise AssertionError("no two neighbouring ports are free")


def connections(events: KvEvents, one: Watched) -> int:
    figures = events.figures(one.replica)
    return 0 if figures is None else figures.connections


def test_a_block_size_that_does_not_fit_is_told(tmp_path: Path) -> None:
    """In a sentence that names the option."""

    async def run() -> None:
        async with publishing(tmp_path) as publisher:
            one = seen(None, pushed(tmp_path))
            async with following(one) as (events, told):
                await until(lambda: connections(events, one) == 1)
                publisher.send(stored(1))
                await until(lambda: events.warnings(one.replica) != ())
                (sentence,) = events.warnings(one.replica)
                assert "blocks of 4 tokens, which is no multiple of kv_block_tokens = 16" in sentence
                assert told.kinds == []

    run_strictly(run())


def test_without_the_extra_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised, and everything else goes on."""
    monkeypatch.setitem(sys.modules, "zmq", None)

    async def run() -> None:
        one = seen(None, pushed(tmp_path))
        async with following(one) as (events, _):
            await until(lambda: events.warnings(one.replica) != ())
            assert events.warnings(one.replica) == (
                "its KV events cannot be heard: zmq is not installed: pip install 'turnout[kv-events]'",
            )
            events.hasten(one.replica)
            assert events.figures(one.replica) == KvFigures()

    run_strictly(run())


def test_only_those_are_followed_that_can_be(tmp_path: Path) -> None:
    """They have events, and token ids to match; pulled ones only where this process is to pull."""

    async def run() -> None:
        pulled = seen(None, KvEventsConfig(), url="http://pulled:1")
        silent = watched("http://silent:1")
        wordless = replace(seen(None, pushed(tmp_path), url="http://wordless:1"), block_tokens=None)
        heard = seen(None, pushed(tmp_path))
        async with following(pulled, silent, wordless, heard, pulls=False) as (events, _):
            assert [
                events.figures(each.replica) is not None for each in (pulled, silent, wordless, heard)
            ] == [
                False,
                False,
                False,
                True,
            ]
            assert events.cached(silent.replica) == frozenset()
            assert events.warnings(silent.replica) == ()
            events.hasten(silent.replica)

    run_strictly(run())


def test_figures_add_up_over_feeds(tmp_path: Path) -> None:
    """What status pages show."""

    async def run() -> None:
        async with publishing(tmp_path) as publisher:
            one = replace(seen(None, pushed(tmp_path)), block_tokens=4)
            async with following(one) as (events, told):
                publisher.send(stored(1), stored(2, parent=77), stored(3))
                await until(lambda: len(told.kinds) == 2)
                figures = events.figures(one.replica)
                assert figures is not None
                assert (figures.events, figures.known_blocks, figures.orphan_blocks, figures.replays) == (
                    3,
                    2,
                    1,
                    1,
                )
                assert 0 < figures.events_per_s <= 0.3

    run_strictly(run())


def test_a_policy_that_is_new_is_told_again(tmp_path: Path) -> None:
    """Also in blocks of another size, if those have changed."""

    async def run() -> None:
        extra = {"kv_events_config": config_json(tmp_path)}
        async with engine("vllm", extra=extra) as vllm:
            one = seen(vllm, pushed(tmp_path))
            ids = list(range(5000, 5100))
            async with following(one) as (events, told):
                await post(vllm, "/v1/completions", {"prompt": ids, "max_tokens": 1})
                await until(lambda: told.blocks.get(one.replica) == set(BLOCKS.hash(ids)))
                told.blocks.clear()
                events.follow([one], anew=[one.replica])
                await until(lambda: told.blocks.get(one.replica) == set(BLOCKS.hash(ids)))
                smaller = TokenBlocks(KEY, BLOCK)
                events.follow([replace(one, block_tokens=BLOCK)])
                wanted = set(smaller.hash(ids[: len(ids) // UNIT * UNIT]))
                await until(lambda: told.blocks.get(one.replica) == wanted)

    run_strictly(run())
