"""The replicas of a setup as simulated vLLM engines on loopback, in this event loop."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from loadtest.drive.pace import Pace
from loadtest.engine.options import EngineOptions
from loadtest.engine.server import engine_options, serve_engine
from loadtest.simulate.setup import ReplicaSetup, Setup

MODEL = "driven"


@dataclass(frozen=True, slots=True)
class Engines:
    urls: Mapping[str, str]
    """By the replicas' ids."""
    pace: Pace


@asynccontextmanager
async def engines_running(setup: Setup, block_tokens: int) -> AsyncIterator[Engines]:
    """All of them listen; the blocks of their caches are the workload's, as in the simulation."""
    pace = Pace()
    async with AsyncExitStack() as stack:
        urls: dict[str, str] = {}
        for replica in setup.replicas:
            running = await serve_engine(options_of(replica, block_tokens))
            engine = await stack.enter_async_context(running)
            engine.core.listeners.append(pace)
            urls[replica.id] = engine.url
        yield Engines(urls, pace)


def options_of(replica: ReplicaSetup, block_tokens: int) -> EngineOptions:
    """The same engine for real time as a `VirtualReplica` is for virtual time."""
    hardware = replica.hardware
    blocks = hardware.kv_tokens // block_tokens
    return engine_options(
        "vllm",
        model=MODEL,
        latency=hardware.latency,
        speed=1 / replica.slowdown,
        max_model_len=blocks * block_tokens,
        max_num_seqs=hardware.max_num_seqs,
        max_num_batched_tokens=hardware.max_num_batched_tokens,
        num_blocks=blocks,
        block_size=block_tokens,
        extra={"enable_prompt_tokens_details": True},
    )
