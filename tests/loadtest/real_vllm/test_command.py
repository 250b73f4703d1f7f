"""`turnout bench-real-vllm` from its command line, as far as it can be told without vLLM."""

from pathlib import Path

from click.testing import CliRunner

from loadtest.real_vllm.command import bench_real_vllm


def test_bad_usage_is_told_before_anything_starts(tmp_path: Path) -> None:
    """Exit code 2: unknown names, and no vLLM."""
    vllm = tmp_path / "vllm"
    missing = CliRunner().invoke(bench_real_vllm, ["--vllm", str(vllm)])
    assert missing.exit_code == 2
    assert "does not exist" in missing.output
    vllm.touch()
    for arguments in (["--workloads", "tools"], ["--candidates", "envoy"]):
        done = CliRunner().invoke(bench_real_vllm, ["--vllm", str(vllm), *arguments])
        assert done.exit_code == 2
        assert "unknown" in done.output


def test_a_vllm_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    """Exit code 1 and its last words; the model was made before."""
    vllm = tmp_path / "vllm"
    vllm.write_text("#!/bin/sh\necho no kernel for this; exit 4\n")
    vllm.chmod(0o755)
    model = tmp_path / "model"
    arguments = ["--vllm", str(vllm), "--model-dir", str(model), "--candidates", "turnout:round_robin"]
    done = CliRunner().invoke(bench_real_vllm, arguments)
    assert done.exit_code == 1
    assert "no kernel for this" in done.output
    assert (model / "tokenizer.json").is_file()
