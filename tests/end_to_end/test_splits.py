"""A/B splits through the real router: shares, stickiness, rules, pins, and who answers when an arm cannot."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.support.loops import run_strictly
from tests.support.versions import RunningVersions, simulated_versions

HALVES = "[models.m.split]\nweights = { v1 = 50, v2 = 50 }\n"
MOST_TO_V2 = "[models.m.split]\nweights = { v1 = 1, v2 = 999 }\n"
RULES = HALVES + '[[models.m.split.rules]]\nheader = "X-Beta"\nequals = "1"\nversion = "v2"\n'
KEYS = """
[[keys]]
id = "first"
digest = "sha256:b5d4045c3f466fa91fe2cc6abe79232a1a57cdf104f7a26e716e0a1e2789df78"
tenant = "first"
"""


def with_versions(test: Callable[[RunningVersions], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with simulated_versions(**{"v1": ["vllm"], "v2": ["vllm"], **options}) as versions:
            await test(versions)

    run_strictly(run())


def turns(question: str, more: int = 0) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": question}]
    for number in range(more):
        messages += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": f"and {number}?"}]
    return messages


def test_sessions_are_divided_and_stay() -> None:
    async def test(versions: RunningVersions) -> None:
        sessions = [f"session-{number}" for number in range(120)]
        first = [await versions.version(session=session) for session in sessions]
        assert 40 <= first.count("v2") <= 80
        assert [await versions.version(session=session) for session in sessions] == first

    with_versions(test, model=HALVES)


def test_a_conversation_without_a_session_stays_by_its_first_turns() -> None:
    async def test(versions: RunningVersions) -> None:
        seen = Counter[str]()
        for number in range(40):
            arms = {await versions.version(messages=turns(f"question {number}", more)) for more in (0, 1, 3)}
            assert len(arms) == 1
            seen.update(arms)
        assert set(seen) == {"v1", "v2"}

    with_versions(test, model=HALVES)


@pytest.mark.parametrize(
    ("by", "members"),
    [
        ("session", [{"prompt_cache_key": "a"}, {"prompt_cache_key": "b"}]),
        ("user", [{"user": "a", "session_id": str(n)} for n in range(2)]),
    ],
)
def test_the_unit_is_what_the_configuration_says(by: str, members: list[dict[str, str]]) -> None:
    """Members of the body that name it; another member does not matter."""

    async def test(versions: RunningVersions) -> None:
        names = [f"name-{number}" for number in range(30)]
        arms = []
        for name in names:
            bodies = [
                {key: name if key != "session_id" else value for key, value in one.items()} for one in members
            ]
            answers = {
                await versions.version(messages=turns(f"{at} {name}"), **one) for at, one in enumerate(bodies)
            }
            assert len(answers) == 1
            arms += answers
        assert set(arms) == {"v1", "v2"}

    with_versions(test, model=f'split_by = "{by}"\n' + HALVES)


def test_requests_are_divided_one_by_one_if_wished() -> None:
    async def test(versions: RunningVersions) -> None:
        arms = Counter([await versions.version(session="one") for _ in range(60)])
        assert set(arms) == {"v1", "v2"}

    with_versions(test, model='split_by = "request"\n' + HALVES)


def test_a_rule_goes_before_the_weights_and_a_pin_before_the_rule() -> None:
    async def test(versions: RunningVersions) -> None:
        for number in range(10):
            session = {"x-session-id": str(number)}
            beta = await versions.chat(headers={**session, "x-beta": "1"})
            pinned = await versions.chat("m@v1", headers={**session, "x-beta": "1"})
            stable = await versions.chat("m:stable", headers={**session, "x-beta": "1"})
            answered = [answer.headers["x-turnout-version"] for answer in (beta, pinned, stable)]
            assert answered == ["v2", "v1", "v1"]
        assert len({await versions.version(session=str(number)) for number in range(20)}) == 2

    with_versions(test, model=RULES)


def test_a_name_of_a_canary_needs_a_release() -> None:
    async def test(versions: RunningVersions) -> None:
        answer = await versions.chat("m:canary")
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == "no release of 'm' is under way: it has no canary"

    with_versions(test, model=HALVES)


@pytest.mark.parametrize("fault", ["refuse", "reset", "status=500", "status=503", "error"])
@pytest.mark.parametrize("stream", [True, False])
def test_an_arm_that_fails_before_its_first_token_leaves_the_answer_to_stable(
    fault: str, stream: bool
) -> None:
    """Every client is answered, however many fail: what the arm gets is not retried in it."""

    async def test(versions: RunningVersions) -> None:
        (broken,) = versions.engines["v2"]
        broken.faults.set(fault)
        answers = await asyncio.gather(
            *(versions.chat(headers={"x-session-id": str(number)}, stream=stream) for number in range(30))
        )
        assert [answer.status_code for answer in answers] == [200] * 30
        assert {answer.headers["x-turnout-version"] for answer in answers} == {"v1"}
        # A pin is a pin.
        pinned = await versions.chat("m@v2", stream=stream)
        assert pinned.status_code >= 500

    with_versions(test, model=MOST_TO_V2)


def test_an_arm_without_a_replica_leaves_the_answer_to_stable() -> None:
    async def test(versions: RunningVersions) -> None:
        for replica in versions.running.router.fleet.pools["m", "v2"].replicas:
            replica.draining = True
        answers = [await versions.version(session=str(number)) for number in range(10)]
        assert answers == ["v1"] * 10

    with_versions(test, model=MOST_TO_V2)


def test_a_fault_of_the_request_is_not_tried_elsewhere() -> None:
    async def test(versions: RunningVersions) -> None:
        answer = await versions.chat(max_tokens=10**9)
        assert answer.status_code == 400
        assert answer.headers["x-turnout-attempts"] == "1"

    with_versions(test, model=MOST_TO_V2)
