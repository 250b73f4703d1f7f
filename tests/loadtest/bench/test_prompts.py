"""The request bytes: whole HTTP, whole JSON, the promised size and the promised likeness."""

import json
from itertools import islice
from typing import Any

import pytest

from loadtest.bench.prompts import CONVERSATIONS, requests_of, templates_for
from loadtest.bench.workloads import WORKLOADS, Workload

NAMED = {workload.name: workload for workload in WORKLOADS}


def document(request: bytes) -> Any:
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert f"content-length: {len(body)}".encode() in head
    return json.loads(body)


def shared_characters(first: str, second: str) -> int:
    return next((i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b), len(first))


def text_of(request: bytes) -> str:
    return "".join(message["content"] for message in document(request)["messages"])


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_requests_are_whole_and_have_the_size_of_the_table(workload: Workload) -> None:
    """Every request is valid HTTP around valid JSON, with `prompt_bytes` of text and the last turn the user's."""
    request = next(requests_of(workload, "127.0.0.1:1", 7))
    parsed = document(request)
    assert len(text_of(request)) == workload.prompt_bytes
    assert parsed["messages"][-1]["role"] == "user"
    assert parsed.get("stream", False) == workload.streams
    assert parsed.get("max_tokens", 0) == workload.output_tokens


def test_the_same_workload_repeats_one_request() -> None:
    """W1 asks the same thing again and again."""
    assert len(set(islice(requests_of(NAMED["W1"], "h", 0), 20))) == 1


def test_shared_prompts_differ_in_their_tail_only() -> None:
    """W2s: one system prompt of nearly 8 KB, no two questions alike."""
    first, second = (text_of(r) for r in islice(requests_of(NAMED["W2s"], "h", 0), 2))
    assert first != second
    assert shared_characters(first, second) > 8100


def test_unique_prompts_share_nothing_at_their_start() -> None:
    """W2u: the number that differs stands before everything else."""
    first, second = (text_of(r) for r in islice(requests_of(NAMED["W2u"], "h", 0), 2))
    assert shared_characters(first, second) < 12


@pytest.mark.parametrize("name", ["W3", "W5"])
def test_conversations_come_back_with_another_last_turn(name: str) -> None:
    """Multi-turn: a conversation's next request shares all but the tail; another conversation shares little."""
    texts = [text_of(r) for r in islice(requests_of(NAMED[name], "h", 0), CONVERSATIONS + 1)]
    assert shared_characters(texts[0], texts[CONVERSATIONS]) > NAMED[name].prompt_bytes - 64
    assert shared_characters(texts[0], texts[1]) < 64


def test_a_template_keeps_its_length() -> None:
    """Any number fills the same hole, so the content length stays true."""
    template = templates_for(NAMED["W4"], "h")[0]
    assert len(template.numbered(0)) == len(template.numbered(999_999_999_999))
