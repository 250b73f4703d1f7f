"""litellm and guidellm, unchanged, through a router in front of simulated engines of every dialect."""

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environment import DEFAULT_HOME, missing
from tests.real_vllm.environment import executable
from tests.support.clients import DIALECTS, named_fleet, settled
from tests.support.simulated import RunningFleet

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=missing() or "")]

OFFLINE: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it is fetched on import
    "DO_NOT_TRACK": "1",
}
REQUESTS = 40
TOKENS = 12
TIMEOUT_S = 100.0


async def run_client(name: str, *arguments: str) -> str:
    """What a command of the clients' environment prints; it must end well and reach no other host."""
    process = await asyncio.create_subprocess_exec(
        str(executable(DEFAULT_HOME, name)),
        *arguments,
        env={**os.environ, **OFFLINE},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, complained = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complained.decode()[-3000:]
    return printed.decode()


@pytest.mark.parametrize("dialects", [("vllm",), DIALECTS], ids="+".join)
def test_a_conversation_with_litellm(dialects: tuple[str, ...]) -> None:
    """Whole, streamed, an embedding, and a model that is not there as litellm's own exception."""

    async def run() -> None:
        async with named_fleet(*dialects) as fleet:
            script = str(Path(__file__).with_name("litellm_conversation.py"))
            said = json.loads((await run_client("python", script, fleet.base_url, "m")).splitlines()[-1])
            await settled(fleet)
        assert len(said["text"].split()) == len(said["streamed_text"].split()) == 8
        assert said["finish_reason"] == "length"
        assert said["usage"][1] == said["streamed_usage"][1] == 8
        assert said["embedding"] == 64
        assert said["refusal"].startswith("404 ")
        assert "did you mean" in said["refusal"] or "GET /v1/models" in said["refusal"]
        if dialects == ("vllm",):
            assert said["text"] == said["streamed_text"]
            assert said["usage"] == said["streamed_usage"]

    asyncio.run(run())


@pytest.mark.parametrize("endpoint", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", ["true", "false"])
def test_a_benchmark_with_guidellm(tmp_path: Path, endpoint: str, stream: str) -> None:
    """Four at a time over four engines: every request succeeds, and its figures add up to what was sent.

    The prompts come from a file and the token counts from the answers' usage, so no tokenizer is needed.
    """
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": f"tell me story {n}", "output_tokens_count": TOKENS} for n in range(REQUESTS)]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))

    async def run() -> RunningFleet:
        async with named_fleet(*DIALECTS) as fleet:
            await run_client(
                "guidellm", "run",
                f"--backend=kind=openai_http,target={fleet.running.url},model=m,request_format={endpoint},stream={stream}",
                "--profile=kind=concurrent,streams=4",
                f"--constraint=kind=max_requests,count={REQUESTS}",
                f"--data=kind=json_file,path={prompts}",
                f"--output=kind=json,path={tmp_path / 'report.json'}",
                "--disable-console",
            )  # fmt: skip
            await settled(fleet)
            return fleet

    fleet = asyncio.run(run())
    (benchmark,) = json.loads((tmp_path / "report.json").read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert totals == {"successful": REQUESTS, "errored": 0, "incomplete": 0, "total": REQUESTS}
    requests: list[dict[str, Any]] = benchmark["requests"]["successful"]
    counts = [request["output_tokens"] for request in requests]
    # guidellm asks for no early end, which TGI and Triton do not know: theirs may be shorter.
    assert 1 <= min(counts) <= max(counts) == TOKENS
    if stream == "true":
        assert all(request["time_to_first_token_ms"] > 0 for request in requests)
    for engine in fleet.engines:
        posts = [record for record in engine.log if record.request.method == "POST"]
        assert len(posts) == REQUESTS // len(DIALECTS), "the policy takes turns"
