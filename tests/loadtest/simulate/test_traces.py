import gzip
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from loadtest.simulate.traces import kind_of, read_access_log, read_conversation, read_mooncake, read_sessions


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


MOONCAKE = [
    {"timestamp": 3000, "input_length": 1300, "output_length": 5, "hash_ids": [0, 1, 9]},
    {"timestamp": 0, "input_length": 1030, "output_length": 50, "hash_ids": [0, 1, 2]},
    {"timestamp": 3000, "input_length": 600, "output_length": 7, "hash_ids": [0, 3]},
]


@pytest.mark.parametrize("name", ["trace.jsonl", "trace.jsonl.gz"])
def test_mooncake(tmp_path: Path, name: str) -> None:
    """Whole blocks of 512 tokens, equal as far as their ids are, in the order of time."""
    path = write(tmp_path / name, MOONCAKE)
    workload = read_mooncake(path)
    one, two, three = (each.turns[0] for each in workload.conversations)
    assert (one.at, one.output_tokens, one.prompt.tokens) == (0.0, 50, 1030)
    assert [len(ask.prompt.blocks) for ask in (one, two, three)] == [2, 2, 1]
    assert one.prompt.blocks == two.prompt.blocks
    assert one.prompt.blocks[:1] == three.prompt.blocks
    assert workload.block_tokens == 512
    assert kind_of(path) == "mooncake"


def test_mooncake_conversation_spreads_its_quantum(tmp_path: Path) -> None:
    path = write(tmp_path / "trace.jsonl", [dict(MOONCAKE[1], timestamp=3000) for _ in range(300)])
    times = [each.turns[0].at for each in read_conversation(path).conversations]
    assert 3.0 <= min(times) < 3.1
    assert 5.9 < max(times) < 6.0
    assert times == [each.turns[0].at for each in read_conversation(path).conversations]


CALLS = [
    {"timestamp": 1_000_000, "input": "system " * 100, "output": "yes " * 10},
    {"timestamp": 6_000_000, "input": "system " * 100 + "yes " * 10 + "more " * 100, "output": "no"},
]


def sessions(tmp_path: Path) -> Path:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.jsonl", CALLS)
    archive = tmp_path / "agents.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("a", "b"):
            tar.add(tmp_path / f"{name}.jsonl", arcname=f"agents/{name}.jsonl")
    return archive


def test_sessions_are_conversations(tmp_path: Path) -> None:
    """The second call begins with the first one's text and answer, and comes after it."""
    archive = sessions(tmp_path)
    workload = read_sessions(archive, copies=2)
    assert len(workload.conversations) == 4
    first, second = workload.conversations[0].turns
    assert first.answer is not None
    assert second.prompt.blocks[: len(first.answer.blocks)] == first.answer.blocks
    assert len(first.answer.blocks) >= len(first.prompt.blocks) == 2
    assert 0.1 <= second.at <= 5.0
    assert first.session == second.session
    starts = {each.turns[0].prompt.blocks for each in workload.conversations}
    assert len(starts) == 2, "copies are told apart, equal sessions are not"
    assert kind_of(archive) == "sessions"
    assert read_sessions(tmp_path).requests == 4


def test_access_log(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"time": "2026-01-01T00:00:01.500Z", "request_id": "a", "prompt_tokens": 300, "completion_tokens": 20,
         "prefix": ["1a", "2b"], "prefix_block_tokens": 128.0, "session": "s"},
        {"time": "2026-01-01T00:00:00.500Z", "request_id": "b", "prompt_tokens": 30, "completion_tokens": 1},
        {"time": "2026-01-01T00:00:02.500Z", "request_id": "c", "status": 400},
    ]  # fmt: skip
    path = write(tmp_path / "access.log", lines)
    workload = read_access_log(path)
    late = workload.conversations[-1].turns[0]
    assert workload.requests == 2
    assert late.prompt.blocks == (0x1A, 0x2B)
    assert (late.prompt.tokens, late.output_tokens, late.session) == (300, 20, "s")
    assert workload.block_tokens == 128
    assert kind_of(path) == "access-log"


def test_what_is_none_of_them_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="neither"):
        kind_of(write(tmp_path / "x.jsonl", [{"a": 1}]))
