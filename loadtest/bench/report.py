"""The results as tables for people and as JSON with every single run for everybody else."""

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.bench.peers import PEERS
from loadtest.bench.run import Plan, Results
from loadtest.bench.summary import REFERENCE, Row, Spread, Verdict, rows_of, unit_of, verdicts_of
from loadtest.bench.workloads import Workload

TABLE_WIDTH = 150
_NOTES = (
    "per CPU-second: user + system time of the router's processes in the measured window; min / median / max",
    "ratio: turnout's median / the row's (smallest-largest of one round); over 1 is turnout's lead",
    "cores: what the router used of its own, and client and replicas of theirs; * theirs was full, and",
    "  the router waited for them: figures per CPU-second stay valid, streams then arrive less merged",
    "TTFT, latency, chunk delay: p50 / p99 as the client saw them, each the median of the rounds",
)


def print_report(console: Console, plan: Plan, results: Results) -> None:
    """One table a workload, the goals, who was left out, the noise."""
    everything: list[Row] = []
    for workload in plan.workloads:
        rows = _rows(plan, results, workload)
        everything += rows
        if rows:
            console.print(_table(workload, rows), "")
    for note in _NOTES:
        console.print(f"[dim]{note}[/dim]")
    for line in (*_left_out(results, everything), *_noise(plan.workloads, everything)):
        console.print(line, markup=False)
    if verdicts := verdicts_of(everything):
        console.print("", _goals(verdicts))


def json_report(plan: Plan, results: Results) -> bytes:
    """All runs, the settings and the summary, indented."""
    document = {
        "machine": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "peers": {peer.package: peer.version for peer in PEERS.values()},
        "settings": {
            "rounds": plan.rounds,
            "seed": plan.seed,
            "router_core": plan.cores.router,
            "load_core": plan.cores.load,
            "workloads": plan.workloads,
        },
        "skipped": dict(results.skipped),
        "runs": results.samples,
        "summary": (summary := [row for w in plan.workloads for row in _rows(plan, results, w)]),
        "goals": verdicts_of(summary),
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _rows(plan: Plan, results: Results, workload: Workload) -> list[Row]:
    return rows_of(workload, [candidate.name for candidate in plan.candidates], results.samples)


def _table(workload: Workload, rows: Sequence[Row]) -> Table:
    table = Table(title=f"{workload.name}  {workload.what}", title_justify="left")
    table.add_column("candidate", no_wrap=True)
    columns = _columns(workload)
    for heading, _ in columns:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.candidate, *(cell(row) for _, cell in columns))
    return table


def _columns(workload: Workload) -> list[tuple[str, Callable[[Row], str]]]:
    requests = ("requests per CPU-s", lambda row: _rates(row.requests_per_cpu_s))
    chunks = ("SSE chunks per CPU-s", lambda row: _rates(row.chunks_per_cpu_s))
    ratio = (f"{REFERENCE} / row, {unit_of(workload)}", _ratio)
    cores = ("cores: router, load", _shares)
    if not workload.streams:
        return [requests, ratio, ("latency ms", lambda r: _ms(r.latency_p50_us, r.latency_p99_us)), cores]
    return [
        *((chunks, requests) if unit_of(workload) == "chunks" else (requests, chunks)),
        ratio,
        ("TTFT ms", lambda row: _ms(row.first_event_p50_us, row.first_event_p99_us)),
        ("chunk delay ms", lambda row: _ms(row.chunk_delay_p50_us, row.chunk_delay_p99_us)),
        cores,
    ]


def _goals(verdicts: Sequence[Verdict]) -> Table:
    table = Table(title="goals", title_justify="left")
    for heading in ("workload", "beside", "goal", "measured", ""):
        table.add_column(heading)
    for verdict in verdicts:
        goal = verdict.goal
        wanted = f">= {goal.ratio}x" if goal.ratio > 1 else f"level (>= {goal.ratio}x)"
        outcome = "[green]holds[/green]" if verdict.holds else "[red]does not hold[/red]"
        table.add_row(goal.workload, goal.peer, wanted, f"{verdict.measured:.2f}x", outcome)
    return table


def _left_out(results: Results, rows: Sequence[Row]) -> list[str]:
    skipped = [f"skipped {name}: {reason}" for name, reason in results.skipped.items()]
    return skipped + [f"errors  {row.workload} {row.candidate}: {row.errors}" for row in rows if row.errors]


def _noise(workloads: Sequence[Workload], rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    foreign = max(row.foreign_share.max for row in rows)
    middle = statistics.median(row.foreign_share.median for row in rows)
    others = f"other processes took {middle:.0%} of both cores in the middle, {foreign:.0%} in the worst run"
    return [f"noise   {others}; rounds of one row differ by up to {_widest(workloads, rows):.2f}x"]


def _rates(rates: Spread | None) -> str:
    return (
        f"{_short(rates.min)} / [bold]{_short(rates.median)}[/bold] / {_short(rates.max)}" if rates else "-"
    )


def _short(rate: float) -> str:
    """Three digits and perhaps a k."""
    if rate >= 1000:
        return f"{rate / 1000:.3g}k"
    return f"{rate:.3g}"


def _ratio(row: Row) -> str:
    if row.ratio is None or row.paired_ratio is None or row.candidate == REFERENCE:
        return "-"
    return f"[bold]{row.ratio:.2f}x[/bold] ({row.paired_ratio.min:.2f}-{row.paired_ratio.max:.2f})"


def _ms(p50_us: float | None, p99_us: float | None) -> str:
    return "-" if p50_us is None or p99_us is None else f"{p50_us / 1000:.2f} / {p99_us / 1000:.2f}"


def _shares(row: Row) -> str:
    return f"{row.router_share.median:.2f}, {row.load_share.median:.2f}{'*' if row.load_bound else ' '}"


def _widest(workloads: Sequence[Workload], rows: Sequence[Row]) -> float:
    """The largest quotient of two rounds of one candidate under one workload."""
    units = {workload.name: unit_of(workload) for workload in workloads}
    rates = [r.chunks_per_cpu_s if units[r.workload] == "chunks" else r.requests_per_cpu_s for r in rows]
    return max((rate.max / rate.min for rate in rates if rate and rate.min), default=1.0)


def _cpu_model() -> str:
    with Path("/proc/cpuinfo").open() as lines:
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
