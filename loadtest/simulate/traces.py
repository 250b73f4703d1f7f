"""The forms of traces there are. The traces are not part of this repository; their owners publish them.

| form | where it comes from | what it has |
|---|---|---|
| `mooncake` | github.com/kvcache-ai/Mooncake, FAST25-release/traces; Apache-2.0 | 512-token prefix blocks |
| `gmi` | github.com/LMCache/LMBench, the GMI cloud trace; no licence stated | the same, 32-token blocks, ns |
| `agent` | github.com/LMCache/lmcache-agent-trace; Apache-2.0 | sessions of text |
| `access_log` | this router | whatever your users do |
"""

from pathlib import Path
from random import Random
from typing import Final

from loadtest.simulate.access_log import read_access_log
from loadtest.simulate.agent_trace import read_agent_trace
from loadtest.simulate.json_lines import rows_of
from loadtest.simulate.mooncake import read_mooncake
from loadtest.simulate.workload import Workload

FORMS: Final = ("mooncake", "gmi", "agent", "access_log")


def read_trace(path: Path, form: str, random: Random, *, spread_s: float = 0.0) -> Workload:
    """See `read_mooncake` for `spread_s`, which other forms have no need of. Raises TraceError, OSError."""
    if form == "agent":
        return read_agent_trace(path)
    if form == "access_log":
        return read_access_log(path)
    if form == "gmi":
        return read_mooncake(path, random, block_tokens=32, stamps_per_s=1e9, spread_s=spread_s)
    return read_mooncake(path, random, spread_s=spread_s)


def form_of(path: Path) -> str:
    """What the file looks like, by its first line; `agent` where it is no file of lines. Raises OSError."""
    if path.is_dir() or ".tar" in path.name or path.suffix == ".tgz":
        return "agent"
    _, row = next(rows_of(path), (0, {}))
    return "mooncake" if "hash_ids" in row else "access_log"
