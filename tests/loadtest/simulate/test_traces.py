import gzip
import io
import json
import tarfile
from pathlib import Path
from random import Random

import pytest

from loadtest.simulate.json_lines import TraceError
from loadtest.simulate.traces import form_of, read_trace
from loadtest.simulate.workload import spread


def write(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return path


def mooncake(timestamp: int, tokens: int, ids: list[int], out: int = 5) -> dict[str, object]:
    return {"timestamp": timestamp, "input_length": tokens, "output_length": out, "hash_ids": ids}


def test_mooncake(tmp_path: Path) -> None:
    """Full blocks only, in order of time; equal ids are equal hashes."""
    path = write(tmp_path / "t.jsonl", mooncake(1500, 1100, [0, 1, 2]), mooncake(500, 1024, [0, 3], out=0))
    assert form_of(path) == "mooncake"
    work = read_trace(path, "mooncake", Random(0))
    first, second = (session.calls[0] for session in work.sessions)
    assert [session.starts_s for session in work.sessions] == [0.5, 1.5]
    assert first.prompt[:3] == ((spread(0), spread(3)), 1024, 512)
    assert second.prompt[:3] == ((spread(0), spread(1)), 1100, 512)
    assert (first.completion_tokens, second.completion_tokens) == (1, 5)
    assert work.block_tokens == 512


def test_mooncake_compressed_and_spread(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(mooncake(3000, 10, [])) for _ in range(50)).encode()))
    starts = [session.starts_s for session in read_trace(path, "mooncake", Random(0), spread_s=3.0).sessions]
    assert starts == sorted(starts)
    assert 3.0 <= starts[0] < 3.5 and 5.5 < starts[-1] < 6.0


def test_gmi_is_nanoseconds_and_small_blocks(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", mooncake(2_000_000_000, 70, [4, 5, 6]))
    work = read_trace(path, "gmi", Random(0))
    assert work.sessions[0].starts_s == 2.0
    assert work.sessions[0].calls[0].prompt[:3] == ((spread(4), spread(5)), 70, 32)


def test_the_next_turn_tells_what_the_answer_was(tmp_path: Path) -> None:
    """The prompt of 1,030 tokens and its answer of 600 fill three blocks, the third as in the next turn.

    Whoever shares but the first block, or is too short to hold the answer, is no next turn.
    """
    path = write(
        tmp_path / "t.jsonl",
        mooncake(0, 1030, [0, 1, 2], out=600),
        mooncake(1, 1100, [0, 9, 8], out=600),
        mooncake(2, 1600, [0, 1, 3, 4], out=600),
        mooncake(3, 2100, [0, 1, 5, 6, 7], out=1),
        mooncake(4, 2100, [0, 1, 15, 16, 17], out=1),
    )
    calls = list(read_trace(path, "mooncake", Random(0)).calls)
    assert calls[0].answer == (spread(0), spread(1), spread(5))
    assert not calls[0].answer_seen
    assert [call.answer for call in calls[1:]] == [(), (), (), ()]


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"timestamp": 1}',
        '{"timestamp": "x", "input_length": 1, "output_length": 1, "hash_ids": []}',
    ],
)
def test_what_is_no_trace_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(mooncake(0, 10, [])) + "\n" + line)
    with pytest.raises(TraceError, match=r"t\.jsonl:2: "):
        read_trace(path, "mooncake", Random(0))


def agent_call(at_us: int, text: str, answer: str) -> dict[str, object]:
    return {"timestamp": at_us, "input": text, "output": answer, "session_id": "x"}


def agent_rows() -> list[dict[str, object]]:
    """Out of order, as some files are."""
    return [
        agent_call(9_500_000, "a" * 600 + "b" * 100, "c" * 8),
        agent_call(8_000_000, "a" * 600, "d" * 40),
    ]


@pytest.mark.parametrize("packed", [True, False])
def test_agent_sessions(tmp_path: Path, packed: bool) -> None:
    """Calls of a session in order of time, the recorded gap between them, blocks that extend each other."""
    folder = tmp_path / "agents"
    folder.mkdir()
    write(folder / "one.jsonl", *agent_rows())
    write(folder / "two.jsonl", agent_call(7_000_000, "z" * 300, "y"))
    (folder / "notes.txt").write_text("no trace")
    path = folder
    if packed:
        path = tmp_path / "agents.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            archive.add(folder, "agents")
    assert form_of(path) == "agent"
    work = read_trace(path, "agent", Random(0))
    two, one = work.sessions
    assert (two.name, two.starts_s, one.name, one.starts_s) == ("two", 0.0, "one", 1.0)
    first, second = one.calls
    assert (first.think_s, second.think_s) == (0.0, 1.5)
    assert (first.prompt.tokens, first.completion_tokens, second.prompt.tokens) == (150, 10, 175)
    assert len(first.prompt.blocks) == 2 and first.prompt.blocks == second.prompt.blocks
    assert first.answer[:2] == first.prompt.blocks and first.answer_seen
    assert two.calls[0].prompt.blocks[0] != first.prompt.blocks[0]


def test_an_archive_without_sessions_is_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("readme.md")
        archive.addfile(member, io.BytesIO())
    with pytest.raises(TraceError, match=r"no \.jsonl file"):
        read_trace(path, "agent", Random(0))
    path.write_bytes(b"no archive")
    with pytest.raises(TraceError, match="no tar archive"):
        read_trace(path, "agent", Random(0))


def log_line(time: str, **fields: object) -> dict[str, object]:
    return {"time": time, "status": 200, "prompt_tokens": 300, "completion_tokens": 20, **fields}


def test_access_log(tmp_path: Path) -> None:
    """Hex or integers; a line without prefix or without tokens."""
    path = write(
        tmp_path / "access.log",
        log_line("2026-01-01T00:00:02.500Z", session="s", prefix=["ff", "0a", "7"], prefix_block_tokens=128),
        log_line("2026-01-01T00:00:00Z", prefix=[255, 11], prefix_block_tokens=128),
        log_line("2026-01-01T00:00:01+00:00"),
        {"time": "2026-01-01T00:00:03Z", "status": 429},
    )
    assert form_of(path) == "access_log"
    work = read_trace(path, "access_log", Random(0))
    assert [session.starts_s for session in work.sessions] == [0.0, 1.0, 2.5]
    assert [session.name for session in work.sessions] == [None, None, "s"]
    assert [call.prompt[:3] for call in work.calls] == [
        ((255, 11), 300, 128),
        ((), 300, 128),
        ((255, 10), 300, 128),
    ]
    assert work.block_tokens == 128


def test_access_log_whose_estimates_move(tmp_path: Path) -> None:
    """The router learns how many tokens a block of text is; the median stands for all lines."""
    sizes = (128.0, 113.78, 112.2)
    lines = [
        log_line(f"2026-01-01T00:00:0{n}Z", prefix=[1], prefix_block_tokens=size)
        for n, size in enumerate(sizes)
    ]
    work = read_trace(write(tmp_path / "access.log", *lines), "access_log", Random(0))
    assert work.block_tokens == 114
    assert {call.prompt[:3] for call in work.calls} == {((1,), 300, 114)}


def test_access_log_of_two_block_sizes_or_of_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "access.log",
        log_line("2026-01-01T00:00:00Z", prefix=[1], prefix_block_tokens=128),
        log_line("2026-01-01T00:00:00Z", prefix=[1], prefix_block_tokens=16),
    )
    with pytest.raises(TraceError, match="blocks of 16 and of 128 tokens"):
        read_trace(path, "access_log", Random(0))
    with pytest.raises(TraceError, match="no line has both"):
        read_trace(write(path, {"time": "2026-01-01T00:00:00Z"}), "access_log", Random(0))
