"""What the demo shows at its end: who served what, how fast, from which cache, and what to try next."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.panel import Panel
from rich.table import Table

from loadtest.demo.fleet import MODEL, DemoFleet
from loadtest.demo.traffic import Turn
from router.admin.limits import LimitsView
from router.commands.limit_table import limits_table

K = TypeVar("K")

_BAR = 16
Figures = Mapping[str, Mapping[str, object]]


def print_report(
    console: Console, fleet: DemoFleet, turns: Sequence[Turn], replicas: Figures, limits: LimitsView
) -> None:
    """`replicas` is what the admin listener says of each, by id."""
    answered = [turn for turn in turns if turn.status == 200 and not turn.error]
    console.print()
    console.print(_by_replica(fleet, answered, replicas))
    console.print(_by_name(answered))
    console.print(limits_table(limits))
    console.print(_summary(turns, answered))
    console.print(Panel(_next_steps(fleet), title="try next", title_align="left", padding=(1, 2)))


def _by_replica(fleet: DemoFleet, turns: Sequence[Turn], replicas: Figures) -> Table:
    table = _table("who served what")
    table.add_column("replica", no_wrap=True)
    for column in ("answers", "tokens", "cached", "1st token", "tok/s"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("share of answers", no_wrap=True)
    served = _grouped(turns, lambda turn: turn.replica)
    most = max((len(group) for group in served.values()), default=1)
    for member in fleet.members:
        group = served.get(member.name, [])
        figures = replicas.get(member.name, {}).get("figures")
        said = figures if isinstance(figures, dict) else {}
        table.add_row(
            member.name,
            str(len(group)),
            str(sum(turn.completion_tokens for turn in group)),
            _cached(group, said.get("prefix_hit_ratio")),
            _milliseconds([turn.first_token_s for turn in group]),
            _rate(said.get("decode_tokens_per_s")),
            f"[cyan]{'█' * round(_BAR * len(group) / most)}[/]",
        )
    return table


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)


def _by_name(turns: Sequence[Turn]) -> Table:
    table = _table("what the clients asked for")
    table.add_column("model name")
    table.add_column("answered by")
    for column in ("answers", "1st token", "router's own time"):
        table.add_column(column, justify="right")
    for (name, version), group in sorted(_grouped(turns, lambda turn: (turn.model, turn.version)).items()):
        overhead = f"{median(turn.overhead_ms for turn in group):.2f} ms"
        first = _milliseconds([turn.first_token_s for turn in group])
        table.add_row(name, version, str(len(group)), first, overhead)
    return table


def _summary(turns: Sequence[Turn], answered: Sequence[Turn]) -> str:
    retried = sum(turn.attempts > 1 for turn in answered)
    refused = [turn for turn in turns if turn.refused]
    failed = len(turns) - len(answered) - len(refused)
    tokens = sum(turn.completion_tokens for turn in answered)
    text = (
        f"{len(answered)} answers, {tokens} tokens, {retried} retried, {failed} failed; "
        f"limits made a guest wait {len(refused)} times"
    )
    bad = [turn for turn in turns if turn not in answered and not turn.refused]
    problems = sorted({turn.error or f"status {turn.status}" for turn in bad})
    return "\n".join([text, *problems])


def _next_steps(fleet: DemoFleet) -> str:
    message = '"messages": [{"role": "user", "content": "Hello!"}]'
    return (
        f"[bold]endpoint[/]   {fleet.endpoint}\n"
        f"[bold]models[/]     {MODEL}  {MODEL}@v2  gpt-4o-mini\n"
        f"[bold]dashboard[/]  {fleet.admin}/\n"
        f"[bold]metrics[/]    {fleet.admin}/metrics\n"
        f"[bold]config[/]     {fleet.config}\n\n"
        f"curl -N {fleet.endpoint}/chat/completions \\\n"
        "  -H 'content-type: application/json' \\\n"
        f'  -d \'{{"model": "{MODEL}", "stream": true,\n'
        f"       {message}}}'\n"
        f"turnout status --admin {fleet.admin} --watch\n"
        f"turnout release start {MODEL} v2 --admin {fleet.admin}\n\n"
        "All this lives as long as the demo: `make demo KEEP=1` stays up."
    )


def _grouped(turns: Sequence[Turn], key: Callable[[Turn], K]) -> dict[K, list[Turn]]:
    groups: dict[K, list[Turn]] = defaultdict(list)
    for turn in turns:
        groups[key(turn)].append(turn)
    return groups


def _cached(group: Sequence[Turn], hit_ratio: object) -> str:
    """Share of the prompt tokens that came from the prefix cache, as the answers or the metrics tell."""
    told = [turn for turn in group if turn.cached_tokens is not None]
    prompt = sum(turn.prompt_tokens for turn in told)
    if prompt:
        return _percent(sum(turn.cached_tokens or 0 for turn in told) / prompt)
    return _percent(hit_ratio)


def _milliseconds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known) * 1000:.0f} ms" if known else "-"


def _rate(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, (int, float)) else "-"


def _percent(value: object) -> str:
    return f"{value:.0%}" if isinstance(value, (int, float)) else "-"
