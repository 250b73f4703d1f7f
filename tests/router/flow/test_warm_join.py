"""When a replica is given the hot prompts, when it is not, and when that ends; what is sent is not sent here."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from math import inf

import pytest

from policies.outcome import Ending
from policies.resilience.retry import RetryBudget
from router.api.errors import EndpointNotSupported
from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint, InferenceRequest
from router.fleet.facts import Facts
from router.fleet.hot_prompts import HotPrompts
from router.fleet.pools import Pool
from router.fleet.replicas import Replica
from router.fleet.routes import Fleet, Route
from router.flow.warm_join import WarmJoins
from tests.support.bare_replicas import HASHER, First, replica
from tests.support.loops import run_strictly
from tests.support.scripted_server import until

COUNT = 3


def request(number: int, endpoint: Endpoint = Endpoint.COMPLETIONS) -> InferenceRequest:
    text = f"{number} comes first. " * 300
    members = {"prompt": text} if endpoint is Endpoint.COMPLETIONS else {"messages": [{"content": text}]}
    body = json.dumps({"model": "m", **members}).encode()
    headers = {"content-type": "application/json"}
    return read_request(endpoint, "id", headers, body, RequestRules())


class Scene:
    """Warm joins over two replicas, the first of which a test is about; `asked` is what it was given."""

    def __init__(self, engine: str = "vllm") -> None:
        self.one, self.other = replica("http://a:1", engine=engine), replica("http://b:1", engine=engine)
        for each in (self.one, self.other):
            each.offers = frozenset({"completions", "chat"})
        pool = Pool([self.one, self.other], First(), RetryBudget(0.1, 1), HASHER)
        fleet = Fleet({"m": Route("m", "v1", pool)}, {}, {("m", "v1"): pool}, [self.one, self.other])
        self.asked: list[tuple[str, InferenceRequest]] = []
        self.draining = False
        self.ending = Ending.COMPLETED
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.joins = WarmJoins(
            fleet, {("m", "v1"): HotPrompts(COUNT, 10**6)}, self._ask, draining=lambda: self.draining
        )

    async def _ask(self, _pool: Pool, to: Replica, asked: InferenceRequest, _facts: Facts) -> Ending:
        self.asked.append((to.id, asked))
        await self.may_go_on.wait()
        return self.ending

    def serve(self, to: Replica, endpoint: Endpoint = Endpoint.COMPLETIONS) -> None:
        """Clients have made `COUNT` prompts hot."""
        for number in range(COUNT):
            for _ in range(2):
                asked = request(number, endpoint)
                self.joins.answered(to, asked, Facts(asked, HASHER))

    def goes(self, up: bool, *, gone: bool = False) -> None:
        self.one.up = up
        self.joins.changed(self.one, gone=gone)

    async def at_rest(self) -> None:
        await until(lambda: not self.joins.joining)


def scene(test: Callable[[Scene], Awaitable[None]], engine: str = "vllm") -> None:
    async def run() -> None:
        made = Scene(engine)
        await test(made)
        await made.joins.close()
        assert made.joins.joining == 0

    run_strictly(run())


def test_who_began_anew_is_given_the_hot_prompts_and_nobody_else() -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.joins.forgotten(it.one)
        await it.at_rest()
        assert [to for to, _ in it.asked] == ["a:1"] * COUNT
        assert len({asked.body for _, asked in it.asked}) == COUNT
        assert all((asked.max_tokens, asked.stream) == (1, False) for _, asked in it.asked)
        assert it.one.warm_joins == {"completed": COUNT}
        assert it.other.warm_joins == {}

    scene(test)


@pytest.mark.parametrize(
    ("served", "gone", "expected"),
    [(True, True, COUNT), (True, False, 0), (False, False, COUNT)],
    ids=["nobody listened there", "it was only slow", "it is new"],
)
def test_who_comes_up(served: bool, gone: bool, expected: int) -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one if served else it.other)
        it.goes(up=False, gone=gone)
        it.goes(up=True)
        await it.at_rest()
        assert len(it.asked) == expected

    scene(test)


def test_who_began_anew_while_it_is_down_waits_until_it_is_up() -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.goes(up=False)
        it.joins.forgotten(it.one)
        assert it.joins.joining == 0
        it.goes(up=True)
        await it.at_rest()
        assert len(it.asked) == COUNT

    scene(test)


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TIMED_OUT, Ending.SATURATED])
def test_who_fails_is_left_alone(ending: Ending) -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.ending = ending
        it.joins.forgotten(it.one)
        await it.at_rest()
        assert len(it.asked) == 1
        assert it.one.warm_joins == {ending.word: 1}

    scene(test)


def test_who_dies_again_and_again_is_not_hammered() -> None:
    """Twice at once, for a restart may be noticed twice; then not for a while."""

    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.ending = Ending.FAILED
        for _ in range(2):
            it.goes(up=False, gone=True)
            it.goes(up=True)
            await it.at_rest()
        assert len(it.asked) == 2
        for _ in range(20):
            it.goes(up=False, gone=True)
            it.goes(up=True)
            await asyncio.sleep(0)
        assert it.joins.joining == 1
        assert len(it.asked) == 2

    scene(test)


def test_it_ends_when_the_replica_goes_down() -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.may_go_on.clear()
        it.joins.forgotten(it.one)
        await until(lambda: len(it.asked) == 1)
        it.goes(up=False)
        await until(lambda: it.one.warm_joins["stopped"] == 1)
        assert len(it.asked) == 1
        it.may_go_on.set()
        it.goes(up=True)
        await it.at_rest()
        assert it.one.warm_joins == {"stopped": 1, "completed": COUNT}, "it is cold still"

    scene(test)


@pytest.mark.parametrize("why", ["the router drains", "an operator drains it", "it is full"])
def test_it_ends_before_the_next_prompt(why: str) -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.may_go_on.clear()
        it.joins.forgotten(it.one)
        await until(lambda: len(it.asked) == 1)
        it.draining = why == "the router drains"
        it.one.draining = why == "an operator drains it"
        it.one.max_in_flight = 0 if why == "it is full" else inf
        it.may_go_on.set()
        await it.at_rest()
        assert it.one.warm_joins == {"completed": 1}

    scene(test)


def test_it_ends_with_the_router() -> None:
    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.may_go_on.clear()
        it.joins.forgotten(it.one)
        await until(lambda: len(it.asked) == 1)
        await it.joins.close()
        assert it.one.warm_joins == {"stopped": 1}
        it.joins.forgotten(it.one)
        assert it.joins.joining == 0

    scene(test)


def test_what_an_engine_cannot_do_or_would_not_cache_is_passed_over() -> None:
    """Whole completions go past TGI's cache."""

    async def test(it: Scene) -> None:
        it.serve(it.one)
        it.joins.forgotten(it.one)
        await it.at_rest()
        assert it.asked == []

    async def refuse(*_: object) -> Ending:
        raise EndpointNotSupported("not by this engine")

    async def refused(it: Scene) -> None:
        it.serve(it.one, Endpoint.CHAT)
        it.joins._ask = refuse
        it.joins.forgotten(it.one)
        await it.at_rest()
        assert it.one.warm_joins == {"refused": COUNT}

    scene(test, engine="tgi")
    scene(refused, engine="tgi")


def test_a_replica_that_comes_with_another_configuration_is_warmed() -> None:
    """With the prompts that are hot; one that is gone is left alone, and nothing is kept of it."""

    async def test(it: Scene) -> None:
        it.serve(it.other)
        new = replica("http://c:1")
        new.offers = it.one.offers
        new.up = False
        pool = Pool([it.other, new], First(), RetryBudget(0.1, 1), HASHER)
        fleet = Fleet({"m": Route("m", "v1", pool)}, {}, {("m", "v1"): pool}, [it.other, new])
        it.joins.forgotten(it.one)
        it.joins.follow(fleet, {("m", "v1"): HotPrompts(1, 10**6)})
        await it.at_rest()
        it.asked.clear()
        new.up = True
        it.joins.changed(new, gone=False)
        await it.at_rest()
        assert [name for name, _ in it.asked] == [new.id]
        it.joins.forgotten(it.one)
        await it.at_rest()
        assert len(it.asked) == 1
        it.joins.follow(fleet, {})
        it.joins.forgotten(new)
        await it.at_rest()
        assert len(it.asked) == 1

    scene(test)
