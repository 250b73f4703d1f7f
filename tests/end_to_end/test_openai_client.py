"""The official OpenAI client against every dialect alone and against a pool of all four: who can do what.

The two tables say it: `YES`, the feature that a 501 names as missing, or the status and code of a refusal.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from openai import APIStatusError, AsyncOpenAI, BadRequestError, InternalServerError

from tests.support.clients import ALIASES, DIALECTS, Said, StandingFleets, dialect_of, say, standing_fleets

QUESTION = [{"role": "user", "content": "tell me a story"}]
PARTS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
]
SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA}}
IGNORED = {
    "user": "u",
    "metadata": {"a": "b"},
    "store": False,
    "parallel_tool_calls": True,
    "service_tier": "auto",
}
OTHERS = {"extra_body": {"top_k": 1, "a_field_that_nobody_has": 1}}
PENALTIES = {"presence_penalty": 0.5, "frequency_penalty": 0.5}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}

Check = Callable[[Said], None]


class Refused(NamedTuple):
    """An engine's own refusal."""

    status: int
    code: str
    param: str | None


YES = True
Cell = bool | str | Refused


class Row(NamedTuple):
    """A wish, what each dialect makes of it alone, and what must be true of the answer."""

    name: str
    wish: dict[str, Any]
    vllm: Cell
    trtllm: Cell
    tgi: Cell
    triton: Cell
    check: Check

    def of(self, dialect: str) -> Cell:
        return getattr(self, dialect)  # type: ignore[no-any-return]


def eight_tokens(said: Said) -> None:
    (choice,) = said.choices
    assert choice.text
    assert choice.finish_reason == "length"
    assert said.usage is None or said.usage[1] == 8


def some_text(said: Said) -> None:
    assert [bool(choice.text) for choice in said.choices] == [True]


def two_texts(said: Said) -> None:
    assert len({choice.text for choice in said.choices}) == 2


def a_document(said: Said) -> None:
    assert json.loads(said.text).keys() == {"answer"}
    assert said.choices[0].finish_reason == "stop"


def with_logprobs(alternatives: int) -> Check:
    def check(said: Said) -> None:
        (choice,) = said.choices
        assert "".join(choice.tokens) == choice.text
        assert len(choice.tokens) == 8
        assert choice.most_alternatives == alternatives

    return check


def after_the_prompt(said: Said) -> None:
    assert said.text.startswith("tell me a story ")


NO_SUFFIX = Refused(400, "invalid_request", "suffix")

# fmt: off
CHATS = [
    #   wish              what is sent                                      vLLM       trtllm     TGI            Triton
    Row("a question",     {},                                               YES,       YES,       YES,           YES,           eight_tokens),
    Row("parts",          {"messages": PARTS},                              YES,       YES,       YES,           YES,           eight_tokens),
    Row("greedy",         {"temperature": 0, "top_p": 1},                   YES,       YES,       YES,           YES,           eight_tokens),
    Row("a seed",         {"seed": 7, "temperature": 1},                    YES,       YES,       YES,           YES,           eight_tokens),
    Row("a negative seed", {"seed": -7},                                    YES,       YES,       YES,           YES,           eight_tokens),
    Row("penalties",      PENALTIES,                                        YES,       YES,       YES,           YES,           some_text),
    Row("ignored fields", IGNORED,                                          YES,       YES,       YES,           YES,           eight_tokens),
    Row("others' fields", OTHERS,                                            YES,       YES,       YES,           YES,           eight_tokens),
    Row("newer limit",    {"max_completion_tokens": 8, "max_tokens": None}, YES,       YES,       YES,           YES,           eight_tokens),
    Row("two choices",    {"n": 2},                                         YES,       YES,       "n",           "n",           two_texts),
    Row("logprobs",       {"logprobs": True},                               YES,       YES,       YES,           "logprobs",    with_logprobs(0)),
    Row("alternatives",   {"logprobs": True, "top_logprobs": 2},            YES,       YES,       YES,           "logprobs",    with_logprobs(2)),
    Row("biased tokens",  {"logit_bias": {"5": -100}},                      YES,       YES,       "logit_bias",  "logit_bias",  some_text),
    Row("plain format",   {"response_format": {"type": "text"}},            YES,       YES,       YES,           YES,           eight_tokens),
    Row("any JSON",       {"response_format": {"type": "json_object"}},     YES,       YES,       "json_object", "json_object", a_document),
    Row("a schema",       {"response_format": FORMAT},                      YES,       YES,       YES,           "json_schema", a_document),
]
COMPLETIONS = [
    Row("a prompt",       {},                                               YES,       YES,       YES,           YES,           eight_tokens),
    Row("a list of one",  {"prompt": ["tell me a story"]},                  YES,       YES,       YES,           YES,           eight_tokens),
    Row("two prompts",    {"prompt": ["one", "two"]},                       YES,       YES,       "batch_prompt", "batch_prompt", two_texts),
    Row("token ids",      {"prompt": [11, 12, 13]},                         YES,       YES,       "token_prompt", "token_prompt", some_text),
    Row("lists of ids",   {"prompt": [[11, 12], [13, 14]]},                 YES,       YES,       "batch_prompt, token_prompt",
                                                                                                                 "batch_prompt, token_prompt", two_texts),
    Row("two choices",    {"n": 2},                                         YES,       YES,       "n",           "n",           two_texts),
    Row("best of two",    {"best_of": 2},                                   "best_of", YES,       "best_of",     "best_of",     some_text),
    Row("logprobs",       {"logprobs": 2},                                  YES,       YES,       "logprobs",    "logprobs",    with_logprobs(2)),
    Row("an echo",        {"echo": True},                                   YES,       YES,       "echo",        "echo",        after_the_prompt),
    Row("a suffix",       {"suffix": " end"},                               NO_SUFFIX, "suffix",  "suffix",      "suffix",      some_text),
]
# fmt: on
ROWS = [
    row._replace(name=f"chat: {row.name}", wish={"messages": QUESTION, "max_tokens": 8} | row.wish)
    for row in CHATS
]
ROWS += [
    row._replace(
        name=f"completion: {row.name}", wish={"prompt": "tell me a story", "max_tokens": 8} | row.wish
    )
    for row in COMPLETIONS
]


@pytest.fixture(scope="module")
def fleets() -> Iterator[StandingFleets]:
    with standing_fleets() as fleets:
        yield fleets


def by_name(row: Row) -> str:
    return row.name


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_alone(fleets: StandingFleets, row: Row, dialect: str) -> None:
    """What the engine can do is the same with and without a stream; what it cannot is refused by name."""

    async def test(client: AsyncOpenAI) -> None:
        cell = row.of(dialect)
        if cell is not YES:
            for stream in (False, True):
                await refused(client, row, cell, stream=stream)
            return
        whole = await say(client, row.wish)
        row.check(whole)
        streamed = await say(client, row.wish, **USAGE)
        assert streamed.without_ids() == whole.without_ids()
        assert streamed.usage == whole.usage
        assert [choice.tokens for choice in streamed.choices] == [choice.tokens for choice in whole.choices]
        assert (await say(client, row.wish, stream=True)).without_ids() == whole.without_ids()

    fleets.run(test, dialect)


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_in_a_pool_of_all(fleets: StandingFleets, row: Row) -> None:
    """Every replica that can do it does it in turn, and no other is asked."""
    able = {dialect for dialect in DIALECTS if row.of(dialect) is YES}
    fleet = fleets.of(*DIALECTS)

    async def test(client: AsyncOpenAI) -> None:
        if not able:
            cell = next(row.of(dialect) for dialect in DIALECTS if isinstance(row.of(dialect), Refused))
            await refused(client, row, cell, stream=True)
            return
        for how in ({}, USAGE):
            answers = [await say(client, row.wish, **how) for _ in range(2 * len(able))]
            for said in answers:
                row.check(said)
            assert {dialect_of(fleet, said.replica) for said in answers} == able

    fleets.run(test, *DIALECTS)


async def refused(client: AsyncOpenAI, row: Row, cell: Cell, *, stream: bool) -> None:
    """As the client's own exception, before any stream has begun."""
    with pytest.raises(APIStatusError) as raised:
        await say(client, row.wish, stream=stream)
    error = raised.value
    assert error.response.headers["x-should-retry"] == "false"
    if isinstance(cell, Refused):
        assert isinstance(error, BadRequestError)
        assert (error.status_code, error.code, error.param) == cell
    else:
        assert isinstance(error, InternalServerError)
        assert (error.status_code, error.code) == (501, "endpoint_not_supported")
        assert str(cell) in error.message


# ---- what a table cannot say ----


KEEPS_ITS_STOP = {"tgi"}
"""TGI's texts end with the stop string that ended them; OpenAI's, and everybody else's, without it."""


@pytest.mark.parametrize("wrapped", [str, lambda word: ["never said", word]], ids=["string", "list"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stop_string_ends_the_text(
    fleets: StandingFleets, dialect: str, wrapped: Callable[[str], Any]
) -> None:
    """Wherever the string falls in a token, and in chats and completions alike."""

    async def test(client: AsyncOpenAI) -> None:
        for wish in ({"messages": QUESTION}, {"prompt": "tell me a story"}):
            plain = await say(client, wish, max_tokens=8)
            stop = plain.text[12:15]
            end = plain.text.index(stop) + (len(stop) if dialect in KEEPS_ITS_STOP else 0)
            for how in ({}, USAGE):
                said = await say(client, wish, max_tokens=8, stop=wrapped(stop), **how)
                assert said.without_ids() == [(plain.text[:end], [], "stop")]

    fleets.run(test, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_seed_decides_the_text(fleets: StandingFleets, dialect: str) -> None:
    """The same seed says the same, another one something else."""

    async def test(client: AsyncOpenAI) -> None:
        wish = {"messages": QUESTION, "max_tokens": 8, "temperature": 1}
        texts = [(await say(client, wish, seed=seed)).text for seed in (7, 7, 8, -7)]
        assert texts[0] == texts[1]
        assert len(set(texts)) == 3

    fleets.run(test, dialect)


@pytest.mark.parametrize("name", ["m", "m@v1", "m:stable", *ALIASES])
def test_every_name_of_a_model_is_answered_to(fleets: StandingFleets, name: str) -> None:
    """The answer carries the model's public name, whichever name led there and whatever the engine calls it."""
    fleet = fleets.of(*DIALECTS)

    async def test(client: AsyncOpenAI) -> None:
        for _ in fleet.engines:
            for how in ({}, USAGE):
                await say(client, {"messages": QUESTION, "max_tokens": 2, "model": name}, **how)

    fleets.run(test, *DIALECTS)
