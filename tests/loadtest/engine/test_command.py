import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from loadtest.engine.command import engine
from router.fleet.zmq_links import Links
from tests.support.kv import config_json


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest.engine.command", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def announced(process: subprocess.Popen[str]) -> str:
    """The next line that it prints."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def asked(url: str, body: object) -> object:
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_replicas_with_their_options() -> None:
    """One line with the URL per replica; options, knobs and faults reach the engine; SIGTERM ends it well."""
    arguments = [
        "--port",
        "0",
        "--replicas",
        "2",
        "--model",
        "tiny",
        "--speed",
        "100",
        "--max-model-len",
        "99",
    ]
    with started("vllm", *arguments, "--set", "version=9.9", "--fault", "status=503;path=/load") as process:
        urls = [announced(process).split(" ")[0] for _ in range(2)]
        assert len(set(urls)) == 2
        for url in urls:
            with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
                card = json.load(answer)["data"][0]
            assert (card["id"], card["max_model_len"]) == ("tiny", 99)
            with urllib.request.urlopen(f"{url}/version", timeout=10) as answer:
                assert json.load(answer) == {"version": "9.9"}
            with pytest.raises(urllib.error.HTTPError, match="503") as caught:
                urllib.request.urlopen(f"{url}/load", timeout=10)
            caught.value.close()
        assert asked(f"{urls[0]}/tokenize", {"prompt": "abc"})
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_interrupt_ends_it_well() -> None:
    """Ctrl-C is no error."""
    with started("vllm", "--port", "0") as process:
        announced(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nope"], "nope"),
        (["vllm", "--set", "frobnicate=1"], "frobnicate"),
        (["vllm", "--set", "version"], "NAME=VALUE"),
        (["vllm", "--port", "0", "--fault", "reset@soon"], "reset@soon"),
        (["vllm", "--num-blocks", "3"], "smaller"),
        (["vllm", "--speed", "0"], "speed"),
        (["vllm", "--kv-events-config", "{"], "JSON"),
        (["vllm", "--kv-events-config", '{"endpoints": "tcp://*:1"}'], "endpoints"),
        (["tgi", "--kv-events-config", "{}"], "kv_events_config"),
    ],
)
def test_mistakes_are_usage_errors(arguments: list[str], complaint: str) -> None:
    """Exit code 2, and the message says which."""
    result = CliRunner().invoke(engine, arguments)
    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize("dialect", ["vllm", "trtllm"])
def test_kv_events_are_published(dialect: str, tmp_path: Path) -> None:
    """As the real one's option says; each replica has its own endpoints."""

    async def run(count: int) -> list[int]:
        links = Links()
        ends = [links.dealer(f"ipc://{tmp_path / 're'}{suffix}", 10) for suffix in ("", "_dp1")[:count]]
        seen = []
        for link in ends:
            await link.send((b"", bytes(8)))
            async with asyncio.timeout(10):
                first = await link.receive()
            seen.append(int.from_bytes(first[-2], "big"))
        links.close()
        return seen

    arguments = ["--port", "0", "--replicas", "2", "--kv-events-config", config_json(tmp_path)]
    with started(dialect, *arguments) as process:
        url = announced(process).split(" ")[0]
        announced(process)
        asked(
            f"{url}/v1/completions", {"model": "demo-8b", "prompt": list(range(5000, 5100)), "max_tokens": 1}
        )
        assert asyncio.run(run(2)) == [0, 2**64 - 1]


def test_without_the_library_there_are_no_events(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exit code 1, and the message says what to install."""
    monkeypatch.setitem(sys.modules, "zmq", None)
    result = CliRunner().invoke(engine, ["vllm", "--port", "0", "--kv-events-config", config_json(tmp_path)])
    assert (result.exit_code, "turnout[kv-events]" in result.output) == (1, True)


def test_a_taken_port_is_a_failure() -> None:
    """Exit code 1 with the reason, not a traceback."""
    with started("vllm", "--port", "0") as process:
        port = announced(process).split(" ")[0].rsplit(":", 1)[1]
        result = CliRunner().invoke(engine, ["vllm", "--port", port])
        assert (result.exit_code, "cannot listen" in result.output) == (1, True)
