"""A simulated fleet and a router in front of it, all in this process and all over real sockets."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from loadtest.engine.server import RunningEngine, engine_options, serve_engine
from tests.support.routers import RunningRouter, config_text, running_router

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\\n{{ message.content }}<|im_end|>\\n{% endfor %}"
    "<|im_start|>assistant\\n"
)


@dataclass(frozen=True, slots=True)
class RunningFleet:
    engines: Sequence[RunningEngine]
    running: RunningRouter

    @property
    def base_url(self) -> str:
        return f"{self.running.url}/v1"


@contextlib.asynccontextmanager
async def simulated_engines(*dialects: str, **options: object) -> AsyncIterator[list[RunningEngine]]:
    """One replica per word; `options` change `EngineOptions` of all."""
    async with contextlib.AsyncExitStack() as stack:
        settings = {"model": "served", "speed": 20.0, **options}
        yield [
            await stack.enter_async_context(await serve_engine(engine_options(dialect, **settings)))
            for dialect in dialects
        ]


def replica_entry(engine: RunningEngine) -> str:
    """How a configuration names this replica."""
    entry = f'url = "{engine.url}", engine = "{engine.options.dialect}"'
    if engine.options.dialect == "triton":
        entry += f', model_name = "tensorrt_llm", chat_template = "{CHAT_TEMPLATE}"'
        metrics = [port for name, port in engine.ports.items() if name != "http"]
        if metrics:
            entry += f', metrics_url = "http://127.0.0.1:{metrics[0]}/metrics"'
    return entry


@contextlib.asynccontextmanager
async def simulated_fleet(
    *dialects: str,
    policy: str = "round_robin",
    more: str = "",
    server: str = "",
    version: str = "",
    **options: object,
) -> AsyncIterator[RunningFleet]:
    """Replicas of these dialects as one version of model `m`, and a router that serves it."""
    async with simulated_engines(*dialects, **options) as engines:
        text = config_text(
            *map(replica_entry, engines), policy=policy, more=more, server=server, version=version
        )
        async with running_router(text) as running:
            yield RunningFleet(engines, running)
