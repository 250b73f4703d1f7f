"""The bytes of the simulated replicas beside the recorded shapes of vLLM."""

import json
from pathlib import Path
from typing import Any

from loadtest.bench.frames import (
    JSON_BODY_BYTES,
    json_answer,
    sent_times_us,
    stream_end,
    stream_start,
    token_template,
    usage_event,
)

VLLM = Path(__file__).parents[2] / "fixtures" / "engines" / "vllm"


def events_of(sse: bytes) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in sse.decode().splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def shape(value: object) -> object:
    """Keys in their order, without the values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else None


def test_stream_frames_have_the_keys_of_vllm_in_their_order() -> None:
    """Role, content, finish and usage chunks look like the recorded ones."""
    recorded = events_of((VLLM / "chat_stream_include_usage.sse").read_bytes())
    role, content, finish, usage = (recorded[i] for i in (0, 1, -2, -1))
    usage.pop("system_fingerprint", None)
    made = events_of(stream_start() + token_template() % 5 + stream_end(usage_event(3)))
    assert [shape(event) for event in made] == [shape(event) for event in (role, content, finish, usage)]


def test_a_token_chunk_keeps_its_length_and_its_time() -> None:
    """Chunked framing is made once, so the send time may not change the length; a reader finds it again."""
    early, late = token_template() % 1, token_template() % (10**16 - 1)
    assert len(early) == len(late)
    assert sent_times_us(early + late) == [1, 10**16 - 1]
    size, _, payload = late.partition(b"\r\n")
    assert int(size, 16) == len(payload) - 2
    assert 170 <= len(payload) <= 240


def test_a_json_answer_is_600_bytes_of_chat_completion() -> None:
    """The body is valid, of the promised size, and its head says so."""
    head, _, body = json_answer().partition(b"\r\n\r\n")
    assert len(body) == JSON_BODY_BYTES
    assert b"content-length: 600" in head
    assert json.loads(body)["choices"][0]["finish_reason"] == "stop"
