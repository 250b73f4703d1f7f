"""The results as tables for people and as JSON with every single run for everybody else."""

import statistics
from collections.abc import Callable, Iterable, Sequence

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.bench.peers import PEERS
from loadtest.bench.summary import Spread, spread
from loadtest.real_vllm.figures import RunFigures
from loadtest.real_vllm.run import Plan, Results

_NOTES = (
    "median (smallest-largest) of the rounds; hits: share of the prompt tokens, by vLLM's counters",
    "endless: the same for one cache that forgets nothing; TTFT in ms as the clients saw it",
    "replicas: requests of the busiest and the idlest; forecast: cached tokens expected / reported",
)

Column = tuple[str, Callable[[Sequence[RunFigures]], str]]


def print_report(console: Console, plan: Plan, results: Results) -> None:
    """One table a workload, who was left out, what went wrong."""
    for workload in plan.workloads:
        table = Table(title=f"{workload.name}  {workload.what}", title_justify="left")
        table.add_column("candidate", no_wrap=True)
        for heading, _ in _COLUMNS:
            table.add_column(heading, justify="right")
        for name, runs in _rows(plan, results, workload.name):
            table.add_row(name, *(cell(runs) for _, cell in _COLUMNS))
        console.print(table, "")
    for note in _NOTES:
        console.print(f"[dim]{note}[/dim]")
    for line in (*(f"skipped {name}: {why}" for name, why in results.skipped.items()), *_errors(results)):
        console.print(line, markup=False)


def json_report(plan: Plan, results: Results) -> bytes:
    """All runs and the settings, indented."""
    document = {
        "peers": {peer.package: peer.version for peer in PEERS.values()},
        "settings": {
            "rounds": plan.rounds,
            "seed": plan.seed,
            "workloads": plan.workloads,
            "replicas": plan.fleet.replicas,
            "blocks": plan.fleet.blocks,
            "cores_each": plan.fleet.cores_each,
            "block_tokens": plan.fleet.block_tokens,
        },
        "skipped": results.skipped,
        "runs": results.samples,
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _rows(plan: Plan, results: Results, workload: str) -> Iterable[tuple[str, list[RunFigures]]]:
    for candidate in plan.candidates:
        mine = [s for s in results.samples if (s.workload, s.candidate) == (workload, candidate.name)]
        if mine:
            yield candidate.name, [sample.figures for sample in mine]


def _errors(results: Results) -> Iterable[str]:
    for sample in results.samples:
        if errors := sample.figures.errors:
            yield f"errors  round {sample.round} {sample.workload} {sample.candidate}: {errors}"


def _written(values: Iterable[float | None], write: Callable[[float], str]) -> str:
    found: Spread | None = spread(values)
    if found is None:
        return "-"
    return f"[bold]{write(found.median)}[/bold] ({write(found.min)}-{write(found.max)})"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f}"


def _hits(runs: Sequence[RunFigures]) -> str:
    return _written((run.hit_share for run in runs), _percent)


def _endless(runs: Sequence[RunFigures]) -> str:
    return _percent(statistics.median(run.endless_share for run in runs))


def _p50(runs: Sequence[RunFigures]) -> str:
    return _written((run.first_token_p50_s for run in runs), _ms)


def _p90(runs: Sequence[RunFigures]) -> str:
    return _written((run.first_token_p90_s for run in runs), _ms)


def _seconds(runs: Sequence[RunFigures]) -> str:
    return _written((run.seconds for run in runs), lambda value: f"{value:.1f}")


def _replicas(runs: Sequence[RunFigures]) -> str:
    most = statistics.median(max(run.requests) for run in runs)
    return f"{most:.0f}, {statistics.median(min(run.requests) for run in runs):.0f}"


def _forecast(runs: Sequence[RunFigures]) -> str:
    ratios = [r.forecast.predicted / r.forecast.reported for r in runs if r.forecast and r.forecast.reported]
    return _written(ratios, lambda value: f"{value:.2f}")


_COLUMNS: Sequence[Column] = (
    ("hits %", _hits),
    ("endless %", _endless),
    ("TTFT p50", _p50),
    ("TTFT p90", _p90),
    ("whole run s", _seconds),
    ("replicas", _replicas),
    ("forecast", _forecast),
)
