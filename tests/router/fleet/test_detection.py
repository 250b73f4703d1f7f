"""Telling engines apart by what they say of themselves."""

import asyncio
import json
from typing import Any

import pytest

from router.fleet.control_client import ControlClient, NoAnswer
from router.fleet.detection import Seen, detect, mismatches, seen_in
from router.fleet.stations import Station
from tests.support.scripted_server import Reply, answer, hang, raw, serving

VLLM = {
    "/v1/models": {
        "object": "list",
        "data": [
            {"id": "llama", "object": "model", "owned_by": "vllm", "root": "llama"},
            {"id": "support-lora", "object": "model", "owned_by": "vllm", "parent": "llama"},
        ],
    },
    "/version": {"version": "0.27.0"},
}
TGI = {
    "/v1/models": {"object": "list", "data": [{"id": "llama", "owned_by": "llama", "created": 0}]},
    "/info": {"model_id": "llama", "max_total_tokens": 4096, "router": "tgi", "version": "3.3.7", "sha": "x"},
}
TRTLLM = {
    "/v1/models": {"object": "list", "data": [{"id": "llama", "owned_by": "tensorrt_llm"}]},
    "/version": {"version": "1.3.0rc1"},
}
TRITON = {"/v2": {"name": "triton", "version": "2.73.0", "extensions": ["generate"]}}
TRITON_OPENAI = {"/v1/models": {"data": [{"id": "llama", "owned_by": "Triton Inference Server"}]}}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (VLLM, Seen(engine="vllm", engine_version="0.27.0", model_ids=("llama", "support-lora"))),
        (TGI, Seen(engine="tgi", engine_version="3.3.7", model_ids=("llama",))),
        (TRTLLM, Seen(engine="trtllm", engine_version="1.3.0rc1", model_ids=("llama",))),
        (TRITON, Seen(engine="triton", engine_version="2.73.0")),
        (TRITON_OPENAI | TRITON, Seen(engine="triton", engine_version="2.73.0", model_ids=("llama",))),
        (TRITON_OPENAI, Seen(engine="triton", model_ids=("llama",))),
        ({}, Seen()),
        ({"/v1/models": {"data": [{"id": "x", "owned_by": "someone"}]}}, Seen(model_ids=("x",))),
    ],
)
def test_engines_are_told_apart(answers: dict[str, Any], expected: Seen) -> None:
    """Each engine is known by the answers that only it gives."""
    assert seen_in(answers) == expected


@pytest.mark.parametrize(
    "answers",
    [
        {"/v1/models": {"data": None}},
        {"/v1/models": {"data": [None, 1, "x", {"id": 7, "owned_by": ["vllm"]}]}},
        {"/info": {"model_id": None, "max_total_tokens": 1, "router": 1, "version": 7}},
        {"/v2": {"name": 1, "version": None, "extensions": 1}},
        {"/version": {"version": {"a": 1}}},
    ],
)
def test_nonsense_is_survived(answers: dict[str, Any]) -> None:
    """Values of any type are read without an error and are not believed."""
    seen = seen_in(answers)
    assert seen.engine_version is None
    assert seen.model_ids == ()


def test_lists_and_texts_are_bounded() -> None:
    """A hostile process cannot fill the memory or the page with names."""
    data = [{"id": "x" * 10_000, "owned_by": "vllm"}] * 10_000
    seen = seen_in({"/v1/models": {"data": data}})
    assert sum(map(len, seen.model_ids)) < 100_000
    assert len(mismatches(seen, engine="vllm", served_name="y")[0]) < 2000


@pytest.mark.parametrize(
    ("seen", "engine", "served_name", "words"),
    [
        (Seen(engine="vllm", model_ids=("a", "b")), "vllm", "b", []),
        (Seen(engine="vllm", model_ids=("a", "b")), "tgi", "a", ["configured as tgi but answers as vllm"]),
        (Seen(engine="vllm", model_ids=("a", "b")), "vllm", "c", ["it serves 'a', 'b', not 'c'"]),
        (Seen(engine="vllm", model_ids=("a",)), "tgi", "c", ["answers as vllm", "not 'c'"]),
        (Seen(engine="triton", model_ids=("a",)), "triton", "c", []),
        (Seen(), "vllm", "c", []),
    ],
)
def test_differences_are_said_in_words(seen: Seen, engine: str, served_name: str, words: list[str]) -> None:
    """A wrong engine and a wrong name are each one sentence; silence is no difference."""
    found = mismatches(seen, engine=engine, served_name=served_name)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def asked(replies: dict[str, Reply]) -> Seen:
    async def run() -> Seen:
        async with serving() as server:
            server.replies = replies
            client = ControlClient(keep_alive=True)
            try:
                return await detect(client, Station(engine="vllm", url=server.url, api_key="k"), 0.3)
            finally:
                await client.close()
                assert all(headers["authorization"] == "bearer k" for headers in server.headers)

    return asyncio.run(run())


def test_it_is_asked_over_http() -> None:
    """Missing paths, broken JSON and a hung answer do not spoil the others."""
    replies = {path: answer(200, json.dumps(body).encode()) for path, body in VLLM.items()}
    replies |= {"/info": hang, "/v2": answer(200, b"{nonsense")}
    assert asked(replies) == seen_in(VLLM)


def test_lists_at_the_top_are_not_objects() -> None:
    """An answer that is JSON but no object counts as none."""
    assert asked({"/v1/models": answer(200, b"[]"), "/v2": answer(200, b'"x"')}) == Seen()


def test_no_answer_at_all_is_an_error() -> None:
    """It is for the caller to ask again later."""
    broken = raw(b"")
    with pytest.raises(NoAnswer):
        asked({"/v1/models": broken, "/version": broken, "/info": broken, "/v2": broken})
