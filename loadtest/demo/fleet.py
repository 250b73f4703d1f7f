"""The demo's fleet: simulated engines of all four kinds in this process, a router process before them."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.engine.options import EngineOptions
from loadtest.engine.server import RunningEngine, engine_options, serve_engine
from loadtest.router_process import router_running

MODEL = "llama-8b"
SERVED_NAME = "demo-8b"
GUEST = "guest"
"""A user who may ask less than one would like to."""
VERSIONS = {
    "v1": ("vllm", "vllm", "tgi", "trtllm", "triton"),
    "v2": ("vllm", "trtllm"),
}
"""What serves each version; versions answer differently, replicas of one version alike."""

_SEEDS = {"v1": 1, "v2": 2}
_LIMITS = f"""[[limits]]
name = "per-user"
per = ["user"]
tokens_per_minute = 600000
concurrency = 8

[[limits]]
name = "guests"
match = {{ user = "{GUEST}" }}
requests_per_minute = 60
burst_s = 5
"""
_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}"
    "<|im_start|>assistant\n"
)


@dataclass(frozen=True, slots=True)
class Member:
    """One replica of the demo."""

    name: str
    version: str
    engine: RunningEngine


@dataclass(frozen=True, slots=True)
class DemoFleet:
    members: Sequence[Member]
    endpoint: str
    """Base URL for OpenAI clients, with `/v1`."""
    admin: str
    config: Path


@contextlib.asynccontextmanager
async def demo_fleet(folder: Path, port: int, admin_port: int) -> AsyncIterator[DemoFleet]:
    """Everything up; files in `folder`. Raises `RouterDidNotStart`."""
    async with contextlib.AsyncExitStack() as stack:
        members: list[Member] = []
        for version, dialects in VERSIONS.items():
            for number, dialect in enumerate(dialects):
                engine = await stack.enter_async_context(await serve_engine(_options(dialect, version)))
                members.append(Member(f"{version}-{dialect}-{number}", version, engine))
        config = folder / "turnout.toml"
        config.write_text(config_text(members, port, admin_port, folder))
        endpoint, admin = await stack.enter_async_context(router_running(config))
        yield DemoFleet(members, f"{endpoint}/v1", admin, config)


def config_text(members: Sequence[Member], port: int, admin_port: int, folder: Path) -> str:
    """The configuration a user would write for this fleet."""
    template = folder / "chat_template.jinja"
    template.write_text(_CHAT_TEMPLATE)
    lines = [
        f'[server]\nport = {port}\nsettle_s = 0\ndrain_timeout_s = 5\naccess_log = "{folder}/access.log"\n',
        f"[admin]\nport = {admin_port}\n",
        f'[models.{MODEL}]\nstable = "v1"\naliases = ["gpt-4o-mini"]\npolicy = "session_affinity"\n',
        f"[models.{MODEL}.canary]\nsteps = [10, 50, 100]\nmin_requests = 100\n",
    ]
    for version in VERSIONS:
        entries = "".join(f"  {{ {_entry(member)} }},\n" for member in members if member.version == version)
        lines.append(
            f'[models.{MODEL}.versions.{version}]\nserved_name = "{SERVED_NAME}"\nreplicas = [\n{entries}]\n'
        )
    lines.append(_LIMITS)
    return "\n".join(lines)


def _entry(member: Member) -> str:
    engine = member.engine
    entry = f'id = "{member.name}", url = "{engine.url}", engine = "{engine.options.dialect}"'
    if engine.options.dialect == "triton":
        metrics = next(port for name, port in engine.ports.items() if name != "http")
        entry += ', model_name = "tensorrt_llm", chat_template = "file:chat_template.jinja"'
        entry += f', metrics_url = "http://127.0.0.1:{metrics}/metrics"'
    return entry


def _options(dialect: str, version: str) -> EngineOptions:
    # vLLM tells the cached tokens of a request only with this flag; trtllm-serve always does.
    extra = {"enable_prompt_tokens_details": True} if dialect == "vllm" else {}
    return engine_options(dialect, model=SERVED_NAME, seed=_SEEDS[version], extra=extra)
