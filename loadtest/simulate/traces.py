"""Recorded traffic: Mooncake's block hashes, text of agent sessions, and this router's own access log.

The recordings are not shipped. Mooncake's are in the repository kvcache-ai/Mooncake (FAST25-release/traces),
the agents' in LMCache/lmcache-agent-trace; both are Apache-2.0.
"""

import gzip
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Final

from loadtest.simulate.asks import Ask, Conversation, Workload, chained, open_loop
from policies.routing.events import Prompt

MOONCAKE_BLOCK_TOKENS = 512
_QUANTUM_S = 3.0
_TEXT_BLOCK_CHARS = 256
_CHARS_PER_TOKEN = 4
_MOST_THINKING_S = 30.0


def read_mooncake(path: Path, *, spread_s: float = 0.0, seed: int = 1) -> Workload:
    """`timestamp` (ms), `input_length`, `output_length`, `hash_ids` a line, gzipped or not.

    `spread_s`: how long the quantum of its time stamps is, within which requests are spread evenly; 3 s for
    the conversation trace.
    """
    random = Random(seed)
    asks = []
    for line in _lines(path):
        length = line["input_length"]
        whole = line["hash_ids"][: length // MOONCAKE_BLOCK_TOKENS]
        prompt = Prompt(chained(whole), length, MOONCAKE_BLOCK_TOKENS)
        at = line["timestamp"] / 1000 + (random.random() * spread_s if spread_s else 0.0)
        asks.append(Ask(at, prompt, line["output_length"]))
    return open_loop(path.name.split(".")[0], asks, MOONCAKE_BLOCK_TOKENS)


def read_conversation(path: Path, seed: int = 1) -> Workload:
    """Mooncake's conversation trace, whose time stamps are multiples of 3 s."""
    return read_mooncake(path, spread_s=_QUANTUM_S, seed=seed)


def read_sessions(path: Path, copies: int = 1, sessions_per_s: float = 1.0, seed: int = 1) -> Workload:
    """Agent sessions with their texts, a closed loop: each call follows the answer before it.

    A tar archive or a folder of files, one session each; a line has `timestamp` (us), `input`, `output`.
    `copies` are told apart by their texts. Sessions begin as a Poisson process.
    """
    random = Random(seed)
    block_tokens = _TEXT_BLOCK_CHARS // _CHARS_PER_TOKEN
    read = [calls for calls in _session_files(path) if calls]
    sessions = [(calls, copy) for copy in range(copies) for calls in read]
    random.shuffle(sessions)
    conversations = []
    at = 0.0
    for number, (calls, copy) in enumerate(sessions):
        at += random.expovariate(sessions_per_s)
        conversations.append(_session(calls, copy, f"session {number}", at))
    return Workload(path.name.split(".")[0], tuple(conversations), block_tokens)


def read_access_log(path: Path, block_tokens: int | None = None) -> Workload:
    """Lines of this router's own access log, with `prefix` (hashed blocks) switched on."""
    asks = []
    size = block_tokens or 0
    for line in _lines(path):
        if "prompt_tokens" not in line:
            continue
        blocks = tuple(int(block, 16) for block in line.get("prefix", ()))
        size = size or round(line.get("prefix_block_tokens", 128))
        prompt = Prompt(blocks, line["prompt_tokens"], size)
        at = _seconds(line["time"])
        asks.append(Ask(at, prompt, line.get("completion_tokens", 1), line.get("session")))
    begin = min((ask.at for ask in asks), default=0.0)
    asks = [replace(ask, at=ask.at - begin) for ask in asks]
    return open_loop(path.name.split(".")[0], asks, size or 128)


def _session(calls: list[dict[str, Any]], copy: int, name: str, at: float) -> Conversation:
    starts = [call["timestamp"] / 1e6 for call in calls]
    pauses = [min(max(0.0, later - earlier), _MOST_THINKING_S) for earlier, later in pairwise(starts)]
    turns = []
    for number, call in enumerate(calls):
        whole = call["input"] + call["output"]
        prompt, answer = _prompt(call["input"], copy), _prompt(whole, copy)
        output_tokens = max(1, len(call["output"]) // _CHARS_PER_TOKEN)
        pause = at if number == 0 else _thinking(pauses[number - 1], output_tokens)
        turns.append(Ask(pause, prompt, output_tokens, name, answer))
    return Conversation(tuple(turns))


def _thinking(pause_s: float, output_tokens: int) -> float:
    """What is left of the time between two calls when the model's own part, at 50 tokens/s, is taken off."""
    return max(0.1, pause_s - output_tokens / 50)


def _prompt(text: str, copy: int) -> Prompt:
    size = _TEXT_BLOCK_CHARS
    whole = range(0, len(text) - size + 1, size)
    return Prompt(
        chained([text[begin : begin + size] for begin in whole], salt=copy),
        max(1, len(text) // _CHARS_PER_TOKEN),
        size // _CHARS_PER_TOKEN,
    )


def _session_files(path: Path) -> Iterator[list[dict[str, Any]]]:
    if path.is_dir():
        for file in sorted(path.glob("*.jsonl")):
            yield [json.loads(line) for line in file.read_text().splitlines() if line.strip()]
        return
    with tarfile.open(path) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            content = archive.extractfile(member) if member.name.endswith(".jsonl") else None
            if content is not None:
                yield [json.loads(line) for line in content if line.strip()]


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def kind_of(path: Path) -> str:
    """Which of `READERS` a file is for, by its name and its first line. Raises ValueError."""
    if path.is_dir() or tarfile.is_tarfile(path):
        return "sessions"
    first = next(_lines(path), {})
    if "hash_ids" in first:
        return "mooncake"
    if "request_id" in first:
        return "access-log"
    raise ValueError(f"{path} is neither a Mooncake trace, nor agent sessions, nor an access log")


READERS: Final[Mapping[str, Callable[[Path, int], Workload]]] = {
    "mooncake": lambda path, seed: read_mooncake(path, seed=seed),
    "mooncake-conversation": read_conversation,
    "sessions": lambda path, seed: read_sessions(path, seed=seed),
    "access-log": lambda path, _seed: read_access_log(path),
}
"""How to read a trace, by its kind."""
