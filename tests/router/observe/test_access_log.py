"""What a line says, what it never says, and that a target in trouble costs requests nothing."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.api.request import Usage
from router.observe.access_log import MAX_TEXT, AccessLog, open_target
from router.observe.events import GAP_BOUNDS_S, Attempt, Finished
from router.observe.log_writer import PIPE_BYTES, LogFile, Stream, pieces

FINISHED = Finished(
    at=1_700_000_000.25,
    request_id="r-1",
    path="/v1/chat/completions",
    model="m",
    version="v1",
    engine="vllm",
    replica="a:8000",
    stream=True,
    status=200,
    outcome="ok",
    attempts=(Attempt("a:8000", "first", "completed", 0.2),),
    duration_s=3.0,
    overhead_s=0.00018,
    queue_wait_s=0.02,
    time_to_first_token_s=0.21,
    gaps=(4, 2) + (0,) * (len(GAP_BOUNDS_S) - 1),
    gap_sum_s=0.06,
    usage=Usage(prompt_tokens=100, completion_tokens=7, cached_tokens=64),
    finish_reason="stop",
    bytes_in=900,
    bytes_out=2000,
)

EARLY = Finished(
    at=1.0,
    request_id="r",
    path="/v1/chat/completions",
    status=404,
    outcome="model_not_found",
    duration_s=0.001,
    overhead_s=0.001,
)


def written(path: Path, *events: Finished) -> list[dict[str, object]]:
    """The lines that a log of these events holds after it was closed."""

    async def run() -> None:
        log = AccessLog(LogFile(path))
        for event in events:
            log(event)
        await log.close()
        assert log.dropped_lines == 0

    asyncio.run(run())
    return [json.loads(line) for line in path.read_text().splitlines()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def test_a_line_says_what_happened(tmp_path: Path) -> None:
    """Every field of the event that operators want is there, with its unit in its name."""
    assert written(tmp_path / "log", FINISHED) == [
        {
            "time": "2023-11-14T22:13:20.250000Z",
            "request_id": "r-1",
            "path": "/v1/chat/completions",
            "status": 200,
            "outcome": "ok",
            "attempts": 1,
            "duration_ms": 3000.0,
            "overhead_ms": 0.18,
            "bytes_in": 900,
            "bytes_out": 2000,
            "model": "m",
            "version": "v1",
            "engine": "vllm",
            "replica": "a:8000",
            "stream": True,
            "queue_wait_ms": 20.0,
            "time_to_first_token_ms": 210.0,
            "mean_gap_ms": 10.0,
            "prompt_tokens": 100,
            "cached_tokens": 64,
            "completion_tokens": 7,
            "finish_reason": "stop",
        }
    ]


def test_what_does_not_apply_is_left_out(tmp_path: Path) -> None:
    """A request that was refused at once has a short line."""
    [line] = written(tmp_path / "log", EARLY)
    assert line.keys() == {
        "time", "request_id", "path", "status", "outcome", "attempts", "duration_ms", "overhead_ms",
        "bytes_in", "bytes_out",
    }  # fmt: skip


def test_retries_are_listed(tmp_path: Path) -> None:
    """A request that needed several attempts says where each went and how it ended."""
    attempts = (Attempt("a", "first", "failed", 0.1), Attempt("b", "upstream_reset", "completed", 0.0255))
    [line] = written(tmp_path / "log", replace(FINISHED, attempts=attempts))
    assert line["attempts"] == 2
    assert line["tries"] == [
        {"replica": "a", "reason": "first", "ending": "failed", "wait_ms": 100.0},
        {"replica": "b", "reason": "upstream_reset", "ending": "completed", "wait_ms": 25.5},
    ]


def test_neither_a_query_nor_an_error_message_is_written(tmp_path: Path) -> None:
    """A key in the query and a prompt that an engine quotes in its error stay out of the log."""
    path = tmp_path / "log"
    event = replace(FINISHED, path="/v1/models?api_key=sk-secret", error="cannot parse 'my private prompt'")
    [line] = written(path, event)
    assert line["path"] == "/v1/models"
    assert "secret" not in path.read_text()
    assert "private" not in path.read_text()


@pytest.mark.parametrize("evil", ['"}\n{"status":1', "\x1b[2J", "\x9b2J", "a\r\nb", "\udc80", "é", "\x7f"])
def test_text_of_clients_cannot_break_a_line(tmp_path: Path, evil: str) -> None:
    """Line ends, terminal commands and broken Unicode are escaped: one request, one line, plain ASCII."""
    path = tmp_path / "log"
    [line] = written(path, replace(FINISHED, path=f"/{evil}", request_id=evil, finish_reason=evil))
    assert line["status"] == 200
    content = path.read_bytes()
    assert content.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in content[:-1])


def test_a_line_is_bounded(tmp_path: Path) -> None:
    """Long paths and words are cut."""
    path = tmp_path / "log"
    [line] = written(path, replace(FINISHED, path="/" + "a" * 100_000, finish_reason="\x00" * 100_000))
    assert line["path"] == "/" + "a" * (MAX_TEXT - 1)
    assert len(path.read_bytes()) < PIPE_BYTES


def test_lines_are_written_without_being_closed(tmp_path: Path) -> None:
    """The log does not wait for its end: lines appear soon, in order."""
    path = tmp_path / "log"

    async def run() -> None:
        log = AccessLog(LogFile(path), flush_s=0.01)
        for i in range(500):
            log(replace(FINISHED, bytes_in=i))
        await until(lambda: path.read_bytes().count(b"\n") == 500)
        await log.close()

    asyncio.run(run())
    assert [json.loads(line)["bytes_in"] for line in path.read_text().splitlines()] == list(range(500))


def test_a_moved_file_is_opened_again(tmp_path: Path) -> None:
    """After logrotate has moved the file, lines go to a new one of the old name."""
    path = tmp_path / "log"

    async def run() -> None:
        log = AccessLog(LogFile(path), flush_s=0.01)
        log(FINISHED)
        await until(lambda: path.stat().st_size > 0)
        path.rename(tmp_path / "log.1")
        log(FINISHED)
        await log.close()

    asyncio.run(run())
    assert path.read_bytes() == (tmp_path / "log.1").read_bytes() != b""


def test_a_blocked_pipe_costs_lines_and_nothing_else() -> None:
    """Nobody reads: events are still taken at once, lines beyond the bound are counted, close gives up."""
    reader, writer = os.pipe()

    async def run() -> AccessLog:
        log = AccessLog(Stream(writer), flush_s=0.001, max_pending_bytes=100_000)
        for _ in range(2000):
            log(FINISHED)
            await asyncio.sleep(0)
        await log.close(timeout_s=0.05)
        return log

    log = asyncio.run(run())
    assert log.dropped_lines > 1000
    os.close(reader)
    # Its number must not mean another pipe while the thread still writes to it.
    log._writer._thread.join(10)
    os.close(writer)


def test_a_pipe_that_is_read_again_gets_whole_lines() -> None:
    """After a stall the log goes on, and no line is torn."""
    reader, writer = os.pipe()

    async def run() -> int:
        log = AccessLog(Stream(writer), flush_s=0.001, max_pending_bytes=200_000)
        for _ in range(3000):
            log(FINISHED)
            await asyncio.sleep(0)
        dropped = log.dropped_lines
        assert dropped > 0
        received = bytearray()
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, lambda: received.extend(os.read(reader, 1 << 16)))
        await until(lambda: received.count(b"\n") == 3000 - dropped)
        # The thread books a batch after it wrote it.
        await until(lambda: log._writer.pending_bytes == 0)
        log(FINISHED)
        await until(lambda: received.count(b"\n") == 3001 - dropped)
        loop.remove_reader(reader)
        await log.close()
        assert all(json.loads(line)["status"] == 200 for line in received.splitlines())
        return log.dropped_lines - dropped

    try:
        assert asyncio.run(run()) == 0
    finally:
        os.close(reader)
        os.close(writer)


def test_workers_that_share_a_pipe_do_not_mix_their_lines() -> None:
    """Two writers and a slow reader: every line arrives whole."""
    reader, writer = os.pipe()

    async def run() -> None:
        logs = [AccessLog(Stream(writer), flush_s=0.001) for _ in range(2)]
        for i in range(1000):
            for log in logs:
                log(FINISHED)
            if i % 100 == 0:
                await asyncio.sleep(0.002)
        received = bytearray()
        loop = asyncio.get_running_loop()
        loop.add_reader(reader, lambda: received.extend(os.read(reader, 5000)))
        await until(lambda: received.count(b"\n") == 2000)
        loop.remove_reader(reader)
        for log in logs:
            await log.close()
        assert all(json.loads(line)["request_id"] == "r-1" for line in received.splitlines())

    try:
        asyncio.run(run())
    finally:
        os.close(reader)
        os.close(writer)


def test_a_pipe_in_non_blocking_mode_works_too() -> None:
    """Standard output may be set non-blocking by another process that shares it."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    async def run() -> None:
        log = AccessLog(Stream(writer), flush_s=0.001)
        for _ in range(1000):
            log(FINISHED)
        received = bytearray()
        loop = asyncio.get_running_loop()
        loop.call_later(
            0.05, lambda: loop.add_reader(reader, lambda: received.extend(os.read(reader, 1 << 16)))
        )
        await until(lambda: received.count(b"\n") == 1000)
        loop.remove_reader(reader)
        await log.close()
        assert log.dropped_lines == 0

    try:
        asyncio.run(run())
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """Lines that the disk refuses are counted, and the log keeps trying."""

    async def run() -> None:
        log = AccessLog(LogFile(Path("/dev/full")), flush_s=0.001)
        log(FINISHED)
        await until(lambda: log.dropped_lines == 1)
        log(FINISHED)
        log(FINISHED)
        await until(lambda: log.dropped_lines == 3)
        await log.close()

    asyncio.run(run())


def test_a_line_torn_by_a_full_disk_does_not_spoil_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write that stopped midway, the next line begins on a line of its own."""
    path = tmp_path / "log"
    real_write = os.write
    calls = iter(range(100))

    def write(descriptor: int, data: bytes) -> int:
        if (call := next(calls)) < 2:
            if call == 0:
                return real_write(descriptor, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data)

    monkeypatch.setattr(os, "write", write)

    async def run() -> None:
        log = AccessLog(LogFile(path), flush_s=0.001)
        log(FINISHED)
        await until(lambda: log.dropped_lines == 1)
        log(FINISHED)
        await log.close()

    asyncio.run(run())
    torn, whole = path.read_text().splitlines()
    assert torn == '{"time":"2'
    assert json.loads(whole)["status"] == 200


@pytest.mark.parametrize(("sizes", "most"), [([10] * 9, 25), ([30, 10, 10], 25), ([5], 25), ([], 25)])
def test_pieces_hold_whole_lines(sizes: list[int], most: int) -> None:
    """Nothing is lost or reordered, and a piece is small enough unless one line alone is too long."""
    lines = [bytes([i]) * size for i, size in enumerate(sizes)]
    found = list(pieces(lines, most))
    assert [line for piece in found for line in piece] == lines
    assert all(len(piece) == 1 or sum(map(len, piece)) <= most for piece in found)
    assert all(piece for piece in found)


def test_targets_are_named_as_in_the_configuration(tmp_path: Path) -> None:
    """`off`, the two standard streams, a file; a file that cannot be opened is an error at once."""
    assert open_target("off") is None
    stdout, stderr = open_target("stdout"), open_target("stderr")
    assert stdout is not None
    assert stderr is not None
    assert (stdout.descriptor(), stderr.descriptor()) == (1, 2)
    with pytest.raises(FileNotFoundError):
        open_target(str(tmp_path / "missing" / "log"))
