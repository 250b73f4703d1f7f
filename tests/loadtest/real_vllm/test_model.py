"""The model's files: what vLLM's own libraries make of them."""

import json
from pathlib import Path

import jinja2
import pytest
from tokenizers import Tokenizer

from loadtest.real_vllm.model import CONTEXT_TOKENS, TOKENS_PER_MESSAGE, make, words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models" / "bench"
    make(made)
    return made


def read(file: Path) -> dict[str, object]:
    document = json.loads(file.read_bytes())
    assert isinstance(document, dict)
    return document


def test_a_word_is_a_token_and_comes_back_as_it_was(folder: Path) -> None:
    """No word is unknown, none is two; answers put back into a prompt make the same tokens again."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = " ".join(words())
    ids = tokenizer.encode(text).ids
    assert len(set(ids)) == len(words())
    assert tokenizer.decode(ids) == text


def test_the_template_adds_what_is_said(folder: Path) -> None:
    """Two messages and the opening of the answer, counted by the tokenizer."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    template = jinja2.Template(str(read(folder / "tokenizer_config.json")["chat_template"]))
    messages = [{"role": role, "content": " ".join(words()[:7])} for role in ("system", "user")]
    prompt = template.render(messages=messages, add_generation_prompt=True)
    assert len(tokenizer.encode(prompt).ids) == 2 * (7 + TOKENS_PER_MESSAGE) + 2
    assert len(tokenizer.encode(template.render(messages=messages)).ids) == 2 * (7 + TOKENS_PER_MESSAGE)


def test_the_settings_fit_the_vocabulary(folder: Path) -> None:
    """The embedding has a row for every token, heads make up the width, the context is the server's."""
    config = read(folder / "config.json")
    assert config["vocab_size"] == Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    assert config["num_attention_heads"] * config["head_dim"] == config["hidden_size"]
    assert config["num_attention_heads"] % config["num_key_value_heads"] == 0
    assert config["max_position_embeddings"] == CONTEXT_TOKENS


def test_words_are_about_as_long_as_english_ones() -> None:
    """With the blank 4 to 6 bytes a token: what routers assume of prose."""
    assert 4 < sum(len(word) + 1 for word in words()) / len(words()) < 6


def test_a_model_that_is_there_is_left_alone(folder: Path) -> None:
    """And a half-made one beside it is no hindrance."""
    (folder / "config.json").write_text("{}")
    make(folder)
    assert read(folder / "config.json") == {}
    other = folder.with_name("other")
    other.with_name("other.unfinished").mkdir()
    make(other)
    assert (other / "config.json").is_file()
    assert not other.with_name("other.unfinished").exists()
