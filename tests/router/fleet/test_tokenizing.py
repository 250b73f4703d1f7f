"""From requests to token ids, with a tokenizer that the test makes itself."""

import sys
from pathlib import Path
from typing import Any

import pytest

from router.api.request import Endpoint
from router.fleet.extras import ExtraMissing
from router.fleet.tokenizing import Tokenizer
from tests.router.engines.making import request
from tests.support.tokenizers import ids, write_tokenizer

HELLO = {"role": "user", "content": "hello there"}


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return Tokenizer(write_tokenizer(tmp_path))


def chat(*messages: Any, **more: Any) -> Any:
    return request(Endpoint.CHAT, {"model": "m", "messages": list(messages), **more})


def test_a_chat_goes_through_the_template(tokenizer: Tokenizer) -> None:
    """Which writes the special tokens itself; truncation and padding of the file do not count."""
    assert tokenizer.ids_of(chat(HELLO)) == ids("<s> <|user|> hello there <|assistant|>")


def test_a_turn_extends_the_turn_before(tokenizer: Tokenizer) -> None:
    """Up to where the assistant began."""
    before = tokenizer.ids_of(chat(HELLO))
    after = tokenizer.ids_of(
        chat(HELLO, {"role": "assistant", "content": "what"}, {"role": "user", "content": "new"})
    )
    assert before is not None
    assert after is not None
    assert after[: len(before)] == before


def test_parts_tools_and_variables(tokenizer: Tokenizer) -> None:
    """Parts are joined with line ends, as engines do; tools count unless they are forbidden."""
    parts = {
        "role": "user",
        "content": [{"type": "text", "text": "hello"}, {"type": "text", "text": "there"}],
    }
    tool = {"type": "function", "function": {"name": "new"}}
    plain = ids("<s> <|user|> hello there <|assistant|>")
    assert tokenizer.ids_of(chat(parts)) == plain
    with_tool = ids("<s> <|tools|> new <|user|> hello there <|assistant|>")
    assert tokenizer.ids_of(chat(parts, tools=[tool])) == with_tool
    assert tokenizer.ids_of(chat(parts, tools=[tool], tool_choice="none")) == plain
    shouted = ids("<s> <|user|> hello there ? <|assistant|>")
    assert tokenizer.ids_of(chat(parts, chat_template_kwargs={"shout": True})) == shouted
    assert tokenizer.ids_of(chat(parts, chat_template_kwargs={"add_generation_prompt": False})) == plain[:-1]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("hello there", ids("<s> hello there")),
        (["hello", "there"], ids("<s> hello")),
        ([5, 6], [5, 6]),
        ([[5, 6], [7]], [5, 6]),
        ([], []),
    ],
)
def test_completions(tokenizer: Tokenizer, prompt: object, expected: list[int]) -> None:
    """A text gets the tokens that the model wants before it; ids are what they are."""
    assert tokenizer.ids_of(request(Endpoint.COMPLETIONS, {"model": "m", "prompt": prompt})) == expected


def test_tgis_own_endpoints(tokenizer: Tokenizer) -> None:
    """Their text is `inputs`."""
    for endpoint in (Endpoint.GENERATE, Endpoint.GENERATE_STREAM, Endpoint.GENERATE_ROOT):
        assert tokenizer.ids_of(request(endpoint, {"inputs": "what is"})) == ids("<s> what is")


@pytest.mark.parametrize(
    "asked",
    [
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}),
        chat(HELLO, chat_template="{{ messages }}"),
        chat(HELLO, continue_final_message=True),
        chat(HELLO, chat_template_kwargs=7),
        chat("no message"),
        request(Endpoint.CHAT, {"model": "m", "messages": 7}),
        request(Endpoint.COMPLETIONS, {"model": "m"}),
        request(Endpoint.COMPLETIONS, {"model": "m", "prompt": [1.5]}),
        request(Endpoint.GENERATE, {"inputs": 7}),
        request(Endpoint.EMBEDDINGS, {"model": "m", "input": "hello"}),
        request(Endpoint.COMPLETIONS, {"model": "m", "prompt": "x" * 200_001}),
    ],
)
def test_what_takes_more_than_a_tokenizer(tokenizer: Tokenizer, asked: Any) -> None:
    """Images, other templates, nonsense, and what would take too long: unknown, and no error."""
    assert tokenizer.ids_of(asked) is None


def test_templates_in_other_places(tmp_path: Path) -> None:
    """A file of its own comes first; of several the default; without one, chats are unknown."""
    directory = write_tokenizer(tmp_path, None)
    assert Tokenizer(directory).ids_of(chat(HELLO)) is None
    (directory / "tokenizer_config.json").write_text(
        '{"chat_template": [{"name": "tool_use", "template": "what"}, {"name": "default", "template": "hello"}]}'
    )
    assert Tokenizer(directory).ids_of(chat(HELLO)) == ids("hello")
    (directory / "chat_template.jinja").write_text("new {{ bos_token }}")
    assert Tokenizer(directory).ids_of(chat(HELLO)) == ids("new")
    (directory / "tokenizer_config.json").unlink()
    assert Tokenizer(directory).ids_of(chat(HELLO)) == ids("new")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("tokenizer.json", "{}", "is no tokenizer"),
        ("tokenizer_config.json", "{", "tokenizer_config.json"),
        ("tokenizer_config.json", '{"bos_token": 7}', "tokenizer_config.json"),
        ("chat_template.jinja", "{% for %}", "is not valid Jinja"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    """Told when the tokenizer is made."""
    directory = write_tokenizer(tmp_path)
    (directory / name).write_text(content)
    with pytest.raises(ValueError, match=complaint):
        Tokenizer(directory)


def test_without_the_extra_it_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name."""
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ExtraMissing, match=r"pip install 'turnout\[tokenizer\]'"):
        Tokenizer(tmp_path)
