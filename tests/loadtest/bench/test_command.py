"""`turnout bench` from its command line."""

import json
from pathlib import Path

from click.testing import CliRunner

from loadtest.bench.command import bench


def test_a_quick_look_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    """Without a router, straight to the replicas: nothing to install, no rate, but requests and latencies."""
    out = tmp_path / "out.json"
    arguments = [
        "--workloads",
        "W1",
        "--candidates",
        "direct",
        "--rounds",
        "1",
        "--window-s",
        "0.3",
        "--quick",
    ]
    done = CliRunner().invoke(bench, [*arguments, "--json", str(out), "--peers-dir", str(tmp_path / "peers")])
    assert done.exit_code == 0, done.output
    assert "W1  200 B prompt, JSON answer" in done.output
    (run,) = json.loads(out.read_bytes())["runs"]
    assert run["candidate"] == "direct"
    assert run["figures"]["requests"] > 0
    assert not (tmp_path / "peers").exists()


def test_unknown_names_are_bad_usage() -> None:
    """Exit code 2 and what there is, before anything starts."""
    for arguments in (["--workloads", "W9"], ["--candidates", "envoy"]):
        done = CliRunner().invoke(bench, arguments)
        assert done.exit_code == 2
        assert "unknown" in done.output
