"""`turnout simulate`: a configuration's policy on recorded or made traffic, under virtual time."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import TypedDict, Unpack

import click
from rich.console import Console
from rich.table import Table

from loadtest.peers import PEERS, SCRAPES_FAST, WANTS_KV_EVENTS
from loadtest.simulate.asks import Workload, faster
from loadtest.simulate.compare import COLUMNS, Run, verdict
from loadtest.simulate.figures import Promise, figures
from loadtest.simulate.fleet import Setting, Simulation
from loadtest.simulate.generators import GENERATORS, Shape
from loadtest.simulate.html import report
from loadtest.simulate.replica import HARDWARE
from loadtest.simulate.traces import READERS, kind_of
from policies.routing import POLICIES
from policies.routing.policy import Policy
from router.commands.configuration import load_or_exit
from router.config.model import Config, ModelConfig, PolicyConfig
from router.fleet.build import make_policy


class Options(TypedDict):
    """The command's options, as click hands them over."""

    config_path: Path
    against: tuple[str, ...]
    model: str | None
    trace: Path | None
    trace_kind: str | None
    generator: str | None
    requests: int
    per_s: float
    speed: float
    hardware: str
    host_tokens: int
    workers: int
    gossip_ms: float
    gossip_loss: float
    scrape_s: float
    ttft_s: float
    tpot_ms: float
    seed: int
    html_path: Path | None
    as_json: bool


@click.command()
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    required=True,
    help="The policy and the fleet.",
)
@click.option(
    "--against",
    multiple=True,
    help="Another configuration file, a kind of policy, or a peer's name; again for more.",
)
@click.option("--model", help="Which model of the configuration; needed where there are several.")
@click.option("--trace", type=click.Path(exists=True, path_type=Path), help="Recorded traffic.")
@click.option(
    "--trace-kind", type=click.Choice(sorted(READERS)), help="How to read it; default: by its first line."
)
@click.option("--generator", type=click.Choice(sorted(GENERATORS)), help="Made traffic instead of a trace.")
@click.option(
    "--requests", type=click.IntRange(10), default=6_000, show_default=True, help="How many, of a generator."
)
@click.option(
    "--per-s",
    type=click.FloatRange(0.01),
    default=10.0,
    show_default=True,
    help="How many a second, of a generator.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0.01),
    default=1.0,
    show_default=True,
    help="Arrivals so many times as dense.",
)
@click.option(
    "--hardware",
    type=click.Choice(sorted(HARDWARE)),
    default="8b-h100",
    show_default=True,
    help="What the replicas are.",
)
@click.option(
    "--host-tokens", type=click.IntRange(0), default=0, help="Tokens of host memory behind each cache."
)
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Router processes, each with its share.",
)
@click.option(
    "--gossip-ms",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="How late workers hear of each other.",
)
@click.option(
    "--gossip-loss",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Share of requests that others never hear of.",
)
@click.option(
    "--scrape-s",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="How often metrics are read; 0: never.",
)
@click.option(
    "--ttft-s",
    type=click.FloatRange(0.001),
    default=2.0,
    show_default=True,
    help="The promise: first token within.",
)
@click.option(
    "--tpot-ms",
    type=click.FloatRange(0.1),
    default=50.0,
    show_default=True,
    help="The promise: mean time per token.",
)
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--html",
    "html_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a report with plots here.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def simulate(**options: Unpack[Options]) -> None:
    """Replay traffic through the real routing policies, on simulated replicas, under virtual time.

    Each replica of the model's stable version becomes a virtual one, as much faster as its weight says. A
    trace is Mooncake's block hashes, agent sessions with their text, or this router's own access log.

    \b
    Example:
      turnout simulate --config turnout.toml --generator tool --per-s 30 --against least_requests
      turnout simulate --config turnout.toml --against new.toml --trace access.log --html report.html
    """
    config = load_or_exit(options["config_path"])
    name, model = _model(config, options["model"])
    workload = _workload(options)
    setting = _setting(model, options)
    promise = Promise(options["ttft_s"], options["tpot_ms"] / 1000)
    contenders = [_of_config(options["config_path"], config, model)]
    contenders += [_contender(other, name, setting) for other in options["against"]]
    console = Console(stderr=True)
    runs = []
    for title, make, adjusted in _distinct(contenders, setting):
        with console.status(f"simulating {workload.requests:,} requests with {title}"):
            runs.append(_run(title, workload, adjusted, make, promise))
    if options["as_json"]:
        click.echo(
            json.dumps([{"policy": run.name, "wall_s": run.wall_s, **asdict(run.figures)} for run in runs])
        )
    else:
        _print(workload, runs, promise)
    if options["html_path"]:
        processes = "one router process" if setting.workers == 1 else f"{setting.workers} router processes"
        about = f"{len(setting.slowdowns)} replicas of {options['hardware']}, {processes}"
        options["html_path"].write_text(report(workload, about, runs, promise))


Make = Callable[[Random], Policy]


def _distinct(
    contenders: list[tuple[str, Make, frozenset[str]]], setting: Setting
) -> list[tuple[str, Make, Setting]]:
    """With what each of them needs of the engines."""
    adjusted = []
    for title, make, wishes in contenders:
        own = replace(setting, scrape_s=0.05) if "fast scrapes" in wishes else setting
        own = replace(own, kv_events_s=0.03) if "kv events" in wishes else own
        adjusted.append((title, make, own))
    return adjusted


def _model(config: Config, name: str | None) -> tuple[str, ModelConfig]:
    if name is None and len(config.models) == 1:
        name = next(iter(config.models))
    if name is None:
        raise click.UsageError(f"say which model with --model: {', '.join(config.models)}")
    if name not in config.models:
        raise click.UsageError(f"there is no model {name!r}; there are: {', '.join(config.models)}")
    return name, config.models[name]


def _workload(options: Options) -> Workload:
    trace, generator = options["trace"], options["generator"]
    if (trace is None) == (generator is None):
        raise click.UsageError("give either --trace FILE or --generator NAME")
    if trace is not None:
        read = READERS[options["trace_kind"] or kind_of(trace)]
        try:
            workload = read(trace, options["seed"])
        except (ValueError, KeyError, TypeError) as error:
            raise click.ClickException(f"{trace} is no such trace: {error!r}; see --trace-kind") from error
    else:
        assert generator is not None
        workload = GENERATORS[generator](Shape(options["requests"], options["per_s"], options["seed"]))
    if not workload.conversations:
        raise click.ClickException(f"{trace or generator} holds no requests")
    return faster(workload, options["speed"])


def _setting(model: ModelConfig, options: Options) -> Setting:
    weights = tuple(replica.weight for replica in model.versions[model.stable].replicas)
    if not weights:
        raise click.ClickException("the model's stable version lists no replicas")
    return Setting(
        hardware=replace(HARDWARE[options["hardware"]], host_tokens=options["host_tokens"]),
        slowdowns=tuple(1 / weight for weight in weights),
        weights=weights,
        workers=options["workers"],
        gossip_s=options["gossip_ms"] / 1000,
        gossip_loss=options["gossip_loss"],
        scrape_s=options["scrape_s"] or None,
        seed=options["seed"],
    )


def _of_config(path: Path, config: Config, model: ModelConfig) -> tuple[str, Make, frozenset[str]]:
    policy = config.policy_of(model)
    return f"{policy.name} ({path.name})", lambda random: make_policy(policy, random), frozenset()


def _contender(name: str, model: str, setting: Setting) -> tuple[str, Make, frozenset[str]]:
    """A configuration file, a kind with its defaults, or a peer."""
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        config = load_or_exit(path)
        return _of_config(path, config, _model(config, model if model in config.models else None)[1])
    if name in POLICIES:
        policy = PolicyConfig(name=name, kind=name)
        return name, lambda random: make_policy(policy, random), frozenset()
    if name in PEERS:
        cache_tokens = setting.hardware.kv_tokens + setting.hardware.host_tokens
        wishes = (
            {"fast scrapes"} if name in SCRAPES_FAST else {"kv events"} if name in WANTS_KV_EVENTS else set()
        )
        return name, lambda random: PEERS[name](random, cache_tokens), frozenset(wishes)
    known = ", ".join(sorted({*POLICIES, *PEERS}))
    raise click.UsageError(f"--against: {name!r} is no file, policy or peer; known: {known}")


def _run(title: str, workload: Workload, setting: Setting, make: Make, promise: Promise) -> Run:
    began = time.monotonic()
    simulation = Simulation(workload, setting, make).run()
    wall_s = time.monotonic() - began
    return Run(title, simulation.records, figures(simulation.records, promise), simulation.decisions, wall_s)


def _print(workload: Workload, runs: list[Run], promise: Promise) -> None:
    console = Console(width=None if Console().is_terminal else 160, highlight=False)
    table = Table(
        title=f"{workload.name}, {workload.requests:,} requests", title_justify="left", header_style="dim"
    )
    table.add_column("policy")
    for column in COLUMNS:
        table.add_column(column.title, justify="right")
    table.add_column("simulated", justify="right")
    for run in runs:
        cells = [column.form(column.read(run.figures)) for column in COLUMNS]
        table.add_row(run.name, *cells, f"{workload.requests / max(run.wall_s, 1e-9) * 60:,.0f}/min")
    console.print(table)
    for other in runs[1:]:
        for sentence in verdict(runs[0], other, promise):
            console.print(sentence)
