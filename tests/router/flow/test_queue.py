"""Waiting for room: who is resumed when, what refusals say, and that whoever leaves is never sent."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf

import pytest

from policies.limits.fair_queue import QueueBounds
from router.api.errors import RouterDraining
from router.config.model import QueueConfig
from router.engines.engine import ReplicaLoad
from router.fleet.replicas import Replica
from router.flow.queue import QueueLimits, Queues
from tests.support.exchanges import RecordedExchange
from tests.support.flow import WHOLE, Flow, answers, through
from tests.support.keys import TrustingKeys
from tests.support.peers import PeerConnection, Script, answer
from tests.support.raw_client import CHAT
from tests.support.scripted_server import until

TOOLS = CHAT[:-1] + b',"tools":[{"type":"function","function":{"name":"f"}}]}'

LONG = CHAT.replace(b"hi", b"hi " * 400)
WIDE = QueueBounds(tenant_share=1.0)


class Holding:
    """A replica that answers when it is told to, the requests that came first before the others."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        """Of all requests that came here."""
        self._held: list[asyncio.Future[bytes]] = []

    async def script(self, connection: PeerConnection) -> None:
        while True:
            head, _ = await connection.request()
            if head.startswith(b"GET "):
                # Well, and of no name: what probes and verification ask is not held.
                await connection.send(
                    answer(b"", status=b"200 OK" if b" /health " in head else b"404 Not Found")
                )
                continue
            lines = head.decode().split("\r\n")
            self.ids += [line[14:].rpartition("-")[0] for line in lines if line.startswith("x-request-id: ")]
            held: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._held.append(held)
            await connection.send(await held)

    def release(self, count: int = 1, reply: bytes = answer(WHOLE)) -> None:
        for _ in range(count):
            self._held.pop(0).set_result(reply)


class Scene:
    """A flow whose replicas hold what they get, and have room for so many requests."""

    def __init__(self, flow: Flow, rooms: tuple[int, ...], bounds: QueueBounds, max_wait_s: float) -> None:
        self.flow = flow
        self.replicas = flow.router.fleet.replicas
        for replica, room in zip(self.replicas, rooms, strict=True):
            replica.max_in_flight = replica.limit = room
        (self.pool,) = flow.router.fleet.pools.values()
        dispatcher = flow.router.inference._dispatcher
        flow.router.queues = dispatcher._queues = Queues(QueueLimits(bounds, max_wait_s))
        flow.router.inference._keys = TrustingKeys()  # type: ignore[assignment]

    def send(self, id_: str, *, body: bytes = CHAT, **headers: str) -> RecordedExchange:
        whose = f"{headers.pop('tenant', 'anonymous')}/{headers.pop('priority', 'normal')}"
        more = {f"x-{name.replace('_', '-')}": value for name, value in headers.items()}
        exchange = RecordedExchange(body=body, headers={"x-request-id": id_, "authorization": whose, **more})
        self.flow.begin(exchange)
        return exchange

    def outcome(self, id_: str) -> str:
        (event,) = [event for event in self.flow.events if event.request_id == id_]
        return event.outcome


Test = Callable[[Scene], Awaitable[None]]


def saturating(
    test: Test,
    *scripts: Script,
    rooms: tuple[int, ...] = (1,),
    bounds: QueueBounds = WIDE,
    max_wait_s: float = 60.0,
    uv: bool = False,
) -> None:
    async def run(flow: Flow) -> None:
        scene = Scene(flow, rooms, bounds, max_wait_s)
        await test(scene)
        await flow.at_rest()
        assert scene.pool.queued == 0
        assert all(replica.room_made is None and not replica.tokens for replica in scene.replicas)

    through(run, *scripts, uv=uv)


def error_of(exchange: RecordedExchange) -> str:
    code: str = json.loads(exchange.text)["error"]["code"]
    return code


@pytest.mark.parametrize("uv", [False, True], ids=["asyncio", "uvloop"])
def test_who_waits_goes_on_when_there_is_room(uv: bool) -> None:
    """In turn, one for each that ends; and the wait is told apart from the router's own time."""
    holding = Holding()

    async def test(it: Scene) -> None:
        exchanges = [it.send(str(number)) for number in range(4)]
        await until(lambda: holding.ids == ["0"])
        assert (it.pool.queued, it.replicas[0].in_flight) == (3, 1)
        for number in range(4):
            await asyncio.sleep(0.02)
            holding.release()
            await until(lambda number=number: exchanges[number].finished)
            assert it.replicas[0].in_flight <= 1
        assert holding.ids == ["0", "1", "2", "3"]
        first, *others = it.flow.events
        assert first.queue_wait_s == 0
        assert all(event.queue_wait_s >= 0.02 for event in others)
        assert all(event.overhead_s < event.queue_wait_s for event in others)

    saturating(test, holding.script, uv=uv)


def test_without_saturation_nobody_waits() -> None:
    """Nothing of a queue is even made."""

    async def test(it: Scene) -> None:
        for number in range(5):
            assert (await it.flow.serve(RecordedExchange(body=CHAT))).outcome == "ok", number
        assert it.flow.router.queues is not None
        assert it.flow.router.queues._queues == {}

    saturating(test, answers(), rooms=(1,))


def test_what_is_not_known_to_be_full_is_not() -> None:
    """A replica of which nothing is known takes all there is."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.replicas[0].max_in_flight = it.replicas[0].limit = inf
        for number in range(50):
            it.send(str(number))
        await until(lambda: len(holding.ids) == 50)
        holding.release(50)

    saturating(test, holding.script)


def test_two_slots_are_given_to_two() -> None:
    """Tasks go on a turn of the loop later; what was freed is theirs already, and nobody else's."""
    holding = Holding()

    async def test(it: Scene) -> None:
        tasks = [
            it.flow.begin_task(RecordedExchange(body=CHAT, headers={"x-request-id": str(number)}))
            for number in range(6)
        ]
        await until(lambda: len(holding.ids) == 2)
        holding.release(2)
        await until(lambda: len(holding.ids) == 4)
        assert it.replicas[0].in_flight == 2
        holding.release(2)
        await until(lambda: len(holding.ids) == 6)
        holding.release(2)
        await asyncio.gather(*tasks)
        assert holding.ids == [str(number) for number in range(6)]

    saturating(test, holding.script, rooms=(2,))


def test_nobody_overtakes() -> None:
    """Who comes in the moment in which room is made goes behind those that wait."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        it.send("1")
        await until(lambda: holding.ids == ["0"])
        it.replicas[0].limit = 2
        it.send("2")
        await until(lambda: len(holding.ids) == 2)
        assert holding.ids == ["0", "1"]
        for _ in range(3):
            holding.release()
            await asyncio.sleep(0.02)

    saturating(test, holding.script)


def test_who_leaves_is_never_sent() -> None:
    """Its place is free at once, and who comes behind it goes on."""
    holding = Holding()

    async def test(it: Scene) -> None:
        exchanges = [it.send(str(number)) for number in range(4)]
        await until(lambda: holding.ids == ["0"])
        exchanges[1].leave()
        assert it.pool.queued == 2
        assert it.outcome("1") == "client_left"
        holding.release()
        await until(lambda: holding.ids == ["0", "2"])
        exchanges[3].leave()
        holding.release()
        await until(lambda: exchanges[2].finished)
        assert holding.ids == ["0", "2"]
        assert it.flow.events[-1].attempts

    saturating(test, holding.script)


def test_a_storm_of_leavers_leaves_nothing() -> None:
    """Neither in the queue nor in replicas' counts: clients come back in a place that others have left."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("first")
        await until(lambda: holding.ids == ["first"])
        for wave in range(20):
            exchanges = [it.send(f"{wave}-{number}") for number in range(20)]
            assert it.pool.queued == 20
            for exchange in exchanges:
                exchange.leave()
            assert it.pool.queued == 0
        last = it.send("last")
        holding.release()
        await until(lambda: holding.ids == ["first", "last"])
        holding.release()
        await until(lambda: last.finished)

    saturating(test, holding.script, bounds=QueueBounds(20, tenant_share=1.0))


def test_a_cancelled_task_gives_back_what_it_was_given() -> None:
    """Cancelled while it waits, and in the turn of the loop in which it has been given a lease."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        await until(lambda: holding.ids == ["0"])
        waits = it.flow.begin_task(RecordedExchange(body=CHAT))
        given = it.flow.begin_task(RecordedExchange(body=CHAT))
        await until(lambda: it.pool.queued == 2)
        waits.cancel()
        it.replicas[0].limit = 2
        it.replicas[0].offer_room()
        # A task goes on in the next turn of the loop only.
        given.cancel()
        await asyncio.wait([waits, given])
        assert it.replicas[0].in_flight == 1
        assert it.pool.queued == 0
        holding.release()

    saturating(test, holding.script)


def test_a_full_queue_is_said_at_once() -> None:
    """429 and not 503: the fleet is there, and when to come again is told."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        it.send("1")
        refused = it.send("2")
        assert (refused.status, error_of(refused)) == (429, "queue_full")
        assert int(refused.answer_headers["retry-after"]) >= 1
        assert refused.answer_headers["x-should-retry"] == "true"
        await until(lambda: holding.ids == ["0"])
        holding.release()
        await until(lambda: holding.ids == ["0", "1"])
        holding.release()

    saturating(test, holding.script, bounds=QueueBounds(1, tenant_share=1.0))


def test_a_higher_priority_displaces_and_goes_first() -> None:
    """The displaced is told so as one that found no place."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("running")
        it.send("normal")
        low = it.send("low", priority="low")
        it.send("high", priority="high")
        assert (low.status, error_of(low)) == (429, "queue_full")
        for _ in range(3):
            await until(lambda: it.replicas[0].in_flight == 1)
            await until(lambda: len(holding._held) == 1)
            holding.release()
        await until(lambda: len(it.flow.events) == 4)
        assert holding.ids == ["running", "high", "normal"]

    saturating(test, holding.script, bounds=QueueBounds(2, tenant_share=1.0))


def test_a_tenant_has_its_share() -> None:
    """Others still find a place, and their turn comes before all of its requests'."""
    holding = Holding()

    async def test(it: Scene) -> None:
        for number in range(12):
            it.send(f"a{number}", body=LONG, tenant="a")
        assert it.outcome("a11") == "queue_full"
        it.send("b", body=LONG, tenant="b")
        for _ in range(12):
            await until(lambda: len(holding._held) == 1)
            holding.release()
        await until(lambda: len(it.flow.events) == 13)
        assert holding.ids.index("b") <= 3

    saturating(test, holding.script, bounds=QueueBounds(20))


def test_a_wait_has_an_end() -> None:
    """By the configuration, or by the client's own deadline; then it is 503, and nothing was sent."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        by_client = it.send("1", turnout_deadline_ms="50")
        by_config = it.send("2")
        await until(lambda: by_client.finished and by_config.finished)
        for exchange in (by_client, by_config):
            assert (exchange.status, error_of(exchange)) == (503, "overloaded")
        assert it.flow.events[0].request_id == "1"
        assert holding.ids == ["0"]
        holding.release()

    saturating(test, holding.script, max_wait_s=0.3)


def test_nobody_waits_for_replicas_that_are_gone() -> None:
    """With none left that is up, those that wait and those that come are told: 503, not the queue."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        waits = it.send("1")
        await until(lambda: holding.ids == ["0"])
        it.replicas[0].up = False
        it.replicas[0].offer_room()
        comes = it.send("2")
        for exchange in (waits, comes):
            assert (exchange.status, error_of(exchange)) == (503, "no_healthy_replica")
        holding.release()

    saturating(test, holding.script)


def test_a_replica_that_comes_up_takes_those_that_wait() -> None:
    """As soon as that is known."""
    one, other = Holding(), Holding()

    async def test(it: Scene) -> None:
        it.replicas[1].up = False
        it.send("0")
        it.send("1")
        await until(lambda: one.ids == ["0"])
        it.replicas[1].up = True
        it.replicas[1].offer_room()
        await until(lambda: other.ids == ["1"])
        one.release()
        other.release()

    saturating(test, one.script, other.script, rooms=(1, 1))


def test_an_operator_need_not_ring() -> None:
    """What no callback tells is looked for several times a second."""
    one, other = Holding(), Holding()

    async def test(it: Scene) -> None:
        it.replicas[1].draining = True
        it.send("0")
        it.send("1")
        await until(lambda: one.ids == ["0"])
        it.replicas[1].draining = False
        await until(lambda: other.ids == ["1"])
        one.release()
        other.release()

    saturating(test, one.script, other.script, rooms=(1, 1))


def test_a_scrape_makes_room() -> None:
    """In the callback that reads it."""
    holding = Holding()

    async def test(it: Scene) -> None:
        replica: Replica = it.replicas[0]
        replica.max_in_flight = inf
        now = asyncio.get_running_loop().time()
        replica.read(ReplicaLoad(max_running_requests=1.0), now)
        for number in range(4):
            it.send(str(number))
        await until(lambda: len(holding.ids) == 3)
        assert it.pool.queued == 1
        replica.read(ReplicaLoad(max_running_requests=2.0), now)
        assert it.pool.queued == 0
        await until(lambda: len(holding.ids) == 4)
        holding.release(4)

    saturating(test, holding.script, rooms=(1,))


def test_a_second_attempt_does_not_queue_again() -> None:
    """It has waited already: it takes the other replica, saturated or not, past those that wait."""
    one, other = Holding(), Holding()

    async def test(it: Scene) -> None:
        for replica in it.replicas:
            replica.max_in_flight = inf
        exchanges = [it.send(str(number)) for number in range(3)]
        await until(lambda: (one.ids, other.ids) == (["0"], ["1"]))
        assert it.pool.queued == 1
        one.release(reply=answer(b"{}", status=b"500 Oh"))
        await until(lambda: other.ids == ["1", "0"])
        await until(lambda: one.ids == ["0", "2"])
        one.release()
        other.release(2)
        await until(lambda: all(exchange.finished for exchange in exchanges))

    saturating(test, one.script, other.script, rooms=(1, 1))


def test_who_needs_the_free_replica_passes_who_cannot_use_it() -> None:
    """A request for tools waits for the one that has them; another one behind it goes to the other."""
    able, plain = Holding(), Holding()

    async def test(it: Scene) -> None:
        it.replicas[1].offers = it.replicas[1].offers - {"tools"}
        it.send("0", body=TOOLS)
        it.send("1")
        await until(lambda: (able.ids, plain.ids) == (["0"], ["1"]))
        it.send("2", body=TOOLS)
        it.send("3")
        assert it.pool.queued == 2
        plain.release()
        await until(lambda: plain.ids == ["1", "3"])
        assert it.pool.queued == 1
        able.release()
        await until(lambda: able.ids == ["0", "2"])
        able.release()
        plain.release()

    saturating(test, able.script, plain.script, rooms=(1, 1))


def test_those_that_fail_in_turn_do_not_nest() -> None:
    """A thousand that end as soon as they are resumed: each makes room for the next one."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        await until(lambda: holding.ids == ["0"])
        for number in range(999):
            it.send(f"w{number}")
        it.replicas[0].up = False
        it.replicas[0].offer_room()
        assert it.pool.queued == 0
        assert [event.outcome for event in it.flow.events] == ["no_healthy_replica"] * 999
        holding.release()

    saturating(test, holding.script, bounds=WIDE)


def test_the_end_of_the_router_is_the_end_of_the_wait() -> None:
    """Who waits when the drain is over is told that it may ask again, elsewhere."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        waits = it.send("1")
        await until(lambda: holding.ids == ["0"])
        it.flow.router.end_open_requests()
        assert (waits.status, error_of(waits)) == (RouterDraining.status, "router_draining")

    saturating(test, holding.script)


def test_a_choice_is_explained_when_it_is_made() -> None:
    """Also after a wait: the decision is that of the moment in which there was room."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("0")
        explained = it.send("1", turnout_explain="1")
        await until(lambda: holding.ids == ["0"])
        holding.release()
        await until(lambda: len(holding.ids) == 2)
        holding.release()
        await until(lambda: explained.finished)
        decision = json.loads(explained.answer_headers["x-turnout-decision"])
        assert decision["chosen"] == it.replicas[0].id

    saturating(test, holding.script)


class Offers:
    """What a replica offers, until it is asked once too often."""

    def __init__(self, answers: int) -> None:
        self.answers = answers

    def __ge__(self, _: object) -> bool:
        self.answers -= 1
        if self.answers < 0:
            raise RuntimeError("a defect")
        return True


def test_a_defect_on_the_way_in_leaves_nobody_in_the_queue(caplog: pytest.LogCaptureFixture) -> None:
    """Its turn would come, and a slot of the fleet would be given to nobody for ever."""
    holding = Holding()

    async def test(it: Scene) -> None:
        it.send("first")
        await until(lambda: holding.ids == ["first"])
        (replica,) = it.replicas
        sound, replica.offers = replica.offers, Offers(1)  # type: ignore[assignment]
        with caplog.at_level(logging.CRITICAL, "turnout.flow"):  # it is meant
            it.send("second")
        assert it.outcome("second") == "internal_error"
        replica.offers = sound
        assert it.pool.queued == 0
        holding.release()
        await until(lambda: len(it.flow.events) == 2)
        assert replica.in_flight == 0

    saturating(test, holding.script)


def test_other_bounds_are_for_whom_comes_from_now_on() -> None:
    """Nobody who waits is sent away; turned off, engines get all there is, and who waits still has its turn."""
    holding = Holding()

    async def test(it: Scene) -> None:
        router = it.flow.router
        before = [it.send(str(number)) for number in range(3)]
        await until(lambda: it.pool.queued == 2)
        await router.apply(replace(router.config, queue=QueueConfig(max_requests=1)))
        it.replicas[0].max_in_flight = it.replicas[0].limit = 1
        late = it.send("late")
        await until(lambda: late.finished)
        assert error_of(late) == "queue_full"
        assert it.pool.queued == 2
        # Nobody had asked the replica who it is before the router was given a configuration.
        await until(lambda: it.replicas[0].up)
        await router.apply(replace(router.config, queue=QueueConfig(max_requests=0)))
        past = it.send("past")
        await until(lambda: sorted(holding.ids) == ["0", "1", "2", "past"])

        def all_have_their_answers() -> bool:
            holding.release(len(holding._held))
            return all(each.finished for each in (*before, past))

        await until(all_have_their_answers)
        await it.flow.at_rest()
        assert [each.status for each in (*before, past)] == [200] * 4

    saturating(test, holding.script)
