from random import Random

from policies.routing.by_beginning import ByBeginning
from policies.routing.events import Prompt
from tests.support.routing import NOW, FakeReplica, FakeRequest, replicas


def choose(fleet: list[FakeReplica], *names: int, session: str | None = None) -> str:
    """Each time another router: none of them remembers anything."""
    blocks = tuple(hash(names[: depth + 1]) & (2**60 - 1) for depth in range(len(names)))
    prompt = Prompt(blocks, 100 * len(blocks), 100)
    return ByBeginning(Random(1)).choose(FakeRequest(session, prompt), fleet, NOW).id


def test_all_routers_send_prompts_that_begin_alike_to_one_replica() -> None:
    fleet = replicas(1, 1, 1, 1)
    assert len({choose(fleet, 1, 2, 3, 4, more) for more in range(50)}) == 1
    assert len({choose(fleet, first, 2, 3, 4) for first in range(50)}) == 4


def test_a_session_counts_more_than_a_prompt() -> None:
    fleet = replicas(1, 1, 1, 1)
    assert len({choose(fleet, first, session="s") for first in range(50)}) == 1


def test_a_loaded_home_is_passed_over() -> None:
    fleet = replicas(1, 1, 1, 1)
    home = next(each for each in fleet if each.id == choose(fleet, 7))
    home.in_flight = 50
    assert choose(fleet, 7) != home.id


def test_requests_without_either_go_by_load() -> None:
    fleet = replicas(1, 1)
    fleet[0].in_flight = 3
    assert all(choose(fleet) == fleet[1].id for _ in range(20))
