"""Fleets from configurations: what a version's prompts are compared by."""

import logging
from pathlib import Path
from random import Random

import pytest

from router.api.request import Endpoint
from router.config.decode import decode
from router.fleet.build import build_fleet
from router.fleet.routes import Fleet
from router.fleet.token_blocks import TokenBlocks
from tests.router.engines.making import request
from tests.support.tokenizers import ids, write_tokenizer

TEXT = """
[models.m]
stable = "v1"
[models.m.versions.v1]
served_name = "org/m"
tokenizer = "tok"
kv_block_tokens = 2
replicas = [ { url = "http://10.0.0.1:8000", engine = "vllm" } ]
[models.m.versions.v2]
served_name = "org/m"
replicas = [ { url = "http://10.0.0.2:8000", engine = "vllm" } ]
"""
ASKED = request(Endpoint.COMPLETIONS, {"model": "m", "prompt": "hello there what"})


def built(folder: Path) -> Fleet:
    return build_fleet(decode(TEXT, directory=folder), Random(1), b"key")


def test_with_a_tokenizer_prompts_are_token_ids(tmp_path: Path) -> None:
    """Where the ids are known; elsewhere, and without one, they are texts."""
    write_tokenizer(tmp_path / "tok")
    fleet = built(tmp_path)
    facts, text_facts = (fleet.routes[f"m@{version}"].pool.facts(ASKED) for version in ("v1", "v2"))
    first, second = facts.prompt, text_facts.prompt
    assert first is not None
    assert second is not None
    assert first.blocks == TokenBlocks(b"key", 2).hash(ids("<s> hello there what"))
    assert (first.exact, first.block_tokens, second.exact) == (True, 2, False)
    parts = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    image = request(Endpoint.CHAT, {"model": "m", "messages": [{"role": "user", "content": parts}]})
    unknown = fleet.routes["m@v1"].pool.facts(image).prompt
    assert unknown is not None
    assert not unknown.exact
    answer = b'{"choices": [{"text": "new"}]}'
    assert facts.answered(answer) is None, "the engine tells it"
    assert text_facts.answered(answer) is not None


def test_a_tokenizer_that_cannot_be_used_is_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, and prompts are texts."""
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "tokenizer.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        prompt = built(tmp_path).routes["m@v1"].pool.facts(ASKED).prompt
    assert prompt is not None
    assert not prompt.exact
    assert caplog.text.count("for want of a tokenizer") == 1
