"""A request's prompt and an engine's events meet in the same blocks."""

from pathlib import Path
from typing import Any

import pytest

from policies.routing.events import Prompt
from router.api.request import Endpoint
from router.engines.kv_cache_events import Stored, extra_of
from router.fleet.block_map import BlockMap
from router.fleet.token_blocks import TokenBlocks
from router.fleet.token_prompts import TokenPrompts
from router.fleet.tokenizing import Tokenizer
from tests.router.engines.making import request
from tests.support.tokenizers import ids, write_tokenizer

BLOCKS = TokenBlocks(b"key", 2)


@pytest.fixture
def prompts(tmp_path: Path) -> TokenPrompts:
    return TokenPrompts(Tokenizer(write_tokenizer(tmp_path)), BLOCKS)


def chat(**more: Any) -> Any:
    members = {"model": "m", "messages": [{"role": "user", "content": "hello there ?"}], **more}
    return request(Endpoint.CHAT, members)


def test_a_prompt(prompts: TokenPrompts) -> None:
    """Its exact length, and a hash per full block."""
    expected = ids("<s> <|user|> hello there ? <|assistant|> ")
    assert prompts.prompt_of(chat()) == Prompt(BLOCKS.hash(expected), 6, 2, exact=True)


@pytest.mark.parametrize("salt", [None, "", "tenant"])
def test_it_meets_the_engines_blocks(prompts: TokenPrompts, salt: str | None) -> None:
    """Also a salted one's."""
    members = {} if salt is None else {"cache_salt": salt}
    prompt = prompts.prompt_of(chat(**members))
    known = BlockMap(BLOCKS, "", 100)
    tokens = ids("<s> <|user|> hello there ? <|assistant|>")
    extras = [extra_of([salt] if salt else None), b"", b""]
    known.apply(Stored(None, [1, 2, 3], tokens, 2, extras=extras))
    assert prompt is not None
    assert set(prompt.blocks) == known.hashes


def test_what_has_no_ids(prompts: TokenPrompts) -> None:
    """No prompt, and no error."""
    assert prompts.prompt_of(request(Endpoint.EMBEDDINGS, {"input": "x"})) is None
    assert prompts.prompt_of(request(Endpoint.COMPLETIONS, {"prompt": [-1, 2]})) is None
