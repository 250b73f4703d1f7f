"""An answer's blocks are what the next turn's prompt begins with, wherever the prompt before ended."""

import json
from random import Random
from typing import Any

import pytest

from router.api.openai import RequestRules, read_request
from router.api.request import Endpoint
from router.fleet.facts import Facts
from router.fleet.prompts import BLOCK_BYTES, PromptHasher

HASHER = PromptHasher(b"key", "m", "v1")


def facts(endpoint: Endpoint, scope: str = "tenant", **members: Any) -> Facts:
    body = json.dumps({"model": "m", **members}).encode()
    headers = {"content-type": "application/json"}
    return Facts(read_request(endpoint, "id", headers, body, RequestRules()), HASHER, scope)


def words(rng: Random, most: int) -> str:
    return "".join(rng.choices("abc é\n日", k=rng.randrange(most)))


def test_the_next_turn_of_a_chat_extends_the_answer_block_by_block() -> None:
    rng = Random(7)
    for _ in range(200):
        asked = [{"role": "user", "content": words(rng, 2_000)}]
        said = {"role": "assistant", "content": words(rng, 2_000)}
        before = facts(Endpoint.CHAT, messages=asked)
        after = facts(Endpoint.CHAT, messages=[*asked, said, {"role": "user", "content": words(rng, 50)}])
        assert before.prompt is not None
        assert after.prompt is not None
        answer = before.answered(json.dumps({"choices": [{"message": said}]}).encode())
        assert answer is not None
        assert after.prompt.blocks[: len(answer.blocks)] == answer.blocks
        assert answer.blocks[: len(before.prompt.blocks)] == before.prompt.blocks
        assert len(after.prompt.blocks) - len(answer.blocks) <= 1, "all that the answer fills is there"
        assert before.prompt.tokens <= answer.tokens <= after.prompt.tokens
        assert answer.block_tokens == before.prompt.block_tokens


def test_the_next_part_of_a_text_extends_the_answer_block_by_block() -> None:
    rng = Random(8)
    for _ in range(200):
        asked, said = words(rng, 2_000), words(rng, 2_000)
        answer_of = facts(Endpoint.COMPLETIONS, prompt=asked)
        after = facts(Endpoint.COMPLETIONS, prompt=asked + said + "x" * rng.randrange(BLOCK_BYTES)).prompt
        assert answer_of.prompt is not None
        answer = answer_of.answered(json.dumps({"choices": [{"text": said}]}).encode())
        assert answer is not None
        assert after is not None
        assert after.blocks[: len(answer.blocks)] == answer.blocks
        assert len(answer.blocks) == len((asked + said).encode()) // BLOCK_BYTES


def test_scopes_stay_apart_in_answers_too() -> None:
    answer = json.dumps({"choices": [{"text": "y" * 2_000}]}).encode()
    made = []
    for scope in ("one", "other"):
        each = facts(Endpoint.COMPLETIONS, scope, prompt="x")
        assert each.prompt is not None
        extended = each.answered(answer)
        assert extended is not None
        made.append(set(extended.blocks))
    assert len(made[0]) == 3
    assert not made[0] & made[1]


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_no_text_follows_token_ids(prompt: list[Any]) -> None:
    each = facts(Endpoint.COMPLETIONS, prompt=prompt)
    assert each.prompt is not None
    assert each.answered(b'{"choices": [{"text": "more"}]}') is None


def test_nothing_is_known_of_the_answer_to_a_prompt_that_nobody_asked_for() -> None:
    assert facts(Endpoint.COMPLETIONS, prompt="x").answered(b'{"choices": [{"text": "more"}]}') is None
