"""`turnout engine DIALECT`: one simulated engine, or several, for trying things without a GPU."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final

import click
import msgspec

from loadtest.engine.core import EngineOptions
from loadtest.engine.dialect import DIALECTS
from loadtest.engine.latency import PROFILES
from loadtest.engine.server import MAIN, RunningEngine, engine_options, serve_engine
from router.fleet.extras import ExtraMissing
from router.fleet.zmq_links import LinkError

_PORTS: Final = {"vllm": 8000, "tgi": 3000, "trtllm": 8000, "triton": 8000}


@click.command(context_settings={"show_default": True})
@click.argument("dialect", type=click.Choice(sorted(DIALECTS)))
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", type=int, help="Port of the first replica; 0 takes free ones.  [default: the engine's own]"
)
@click.option("--replicas", type=click.IntRange(1), default=1, help="How many, on consecutive ports.")
@click.option("--model", default="demo-8b", help="Model name on the wire.")
@click.option("--alias", "aliases", multiple=True, help="Further served name.")
@click.option("--lora", "loras", multiple=True, help="LoRA adapter loaded at start.")
@click.option("--profile", type=click.Choice(sorted(PROFILES)), default="8b-h100", help="Model and hardware.")
@click.option(
    "--speed", type=click.FloatRange(0, min_open=True), default=1.0, help="Divides every step time."
)
@click.option("--seed", type=int, default=0, help="Stands for the weights: equal seeds answer equally.")
@click.option("--max-model-len", type=click.IntRange(2), help="Longest prompt plus output, tokens.")
@click.option("--max-num-seqs", type=click.IntRange(1), help="Largest running batch, requests.")
@click.option("--num-blocks", type=click.IntRange(1), help="KV cache size, blocks.")
@click.option("--block-size", type=click.IntRange(1), help="Tokens per KV block.")
@click.option("--api-key", envvar="ENGINE_API_KEY", help="Key that guarded paths require.")
@click.option("--set", "extra", multiple=True, metavar="NAME=VALUE", help="A knob of the dialect.")
@click.option(
    "--kv-events-config", metavar="JSON", help="vllm, trtllm: publish KV events, as vLLM's option says."
)
@click.option("--fault", "faults", multiple=True, help="Fault of every replica, such as reset@5;p=0.1.")
@click.option(
    "--shutdown-timeout", type=click.FloatRange(0), default=0.0, help="Seconds to drain on SIGTERM."
)
def engine(**given: Any) -> None:
    """Serve a simulated DIALECT engine until SIGINT or SIGTERM.

    \b
    Example:
      turnout engine vllm --port 8000 --model demo-8b
    """
    try:
        options = _options(given)
        faults: tuple[str, ...] = given["faults"]
        code = _run(_serve(options, given["host"], _port_list(given), faults, given["shutdown_timeout"]))
    except (msgspec.ValidationError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    except (OSError, LinkError, ExtraMissing) as error:
        raise click.ClickException(f"cannot listen: {error}") from error
    sys.exit(code)


def _options(given: Mapping[str, Any]) -> EngineOptions:
    """The dialect's defaults with what was given; raises ValueError for a bad knob."""
    names = ("max_model_len", "max_num_seqs", "num_blocks", "block_size", "api_key")
    changes = {name: given[name] for name in names if given[name] is not None}
    extra = dict(_knob(text) for text in given["extra"])
    if given["kv_events_config"] is not None:
        extra["kv_events_config"] = given["kv_events_config"]
    return replace(
        engine_options(given["dialect"], **changes),
        model=given["model"],
        aliases=given["aliases"],
        loras=given["loras"],
        latency=PROFILES[given["profile"]],
        speed=given["speed"],
        seed=given["seed"],
        extra=extra,
    )


def _knob(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write NAME=VALUE")
    return name, value


def _port_list(given: Mapping[str, Any]) -> list[int]:
    first = _PORTS[given["dialect"]] if given["port"] is None else given["port"]
    return [first + index if first else 0 for index in range(given["replicas"])]


async def _serve(
    options: EngineOptions, host: str, ports: list[int], faults: tuple[str, ...], drain_s: float
) -> int:
    """Run all replicas until a signal comes; the second one does not wait."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled.set)
    replicas: list[RunningEngine] = []
    try:
        for index, port in enumerate(ports):
            replica = await serve_engine(_of_index(options, index), host, port)
            replicas.append(replica)
            replica.faults.set(*faults)
            _announce(replica)
        await signalled.wait()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, os._exit, 1)
        await asyncio.gather(*(replica.shutdown(drain_s) for replica in replicas))
    finally:
        for replica in replicas:
            await replica.close()
    return 0


def _of_index(options: EngineOptions, index: int) -> EngineOptions:
    """Replicas of one command publish KV events on consecutive ports, too, as ranks do."""
    if not index or not options.extra.get("kv_events_config"):
        return options
    return replace(options, extra={**options.extra, "kv_events_rank": index})


def _announce(replica: RunningEngine) -> None:
    """One line per replica: the URL first, then whatever else listens."""
    others = [f"{name}={port}" for name, port in replica.ports.items() if name != MAIN]
    click.echo(" ".join([replica.url, replica.options.dialect, f"model={replica.options.model}", *others]))
    sys.stdout.flush()


def _run(main: Coroutine[Any, Any, int]) -> int:
    """Run with uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


if __name__ == "__main__":
    engine()
