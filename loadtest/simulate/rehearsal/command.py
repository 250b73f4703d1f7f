"""`turnout simulate --release`: its options, and what is done with them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import click
from rich.console import Console

from loadtest.simulate.plan import Plan
from loadtest.simulate.rehearsal.defects import KINDS, defects_of
from loadtest.simulate.rehearsal.page import page
from loadtest.simulate.rehearsal.plan import Rehearsal, rehearsal_of
from loadtest.simulate.rehearsal.report import json_report, print_report
from loadtest.simulate.rehearsal.results import Rehearsed
from loadtest.simulate.results import Slo
from router.commands.configuration import load_or_exit
from router.config.model import ModelConfig


class Rehearsing(TypedDict):
    """These options, and those that they do not go with, as click hands them over."""

    config: Path
    against: str | None
    model: str | None
    release: str | None
    release_at_s: float
    defects: Sequence[str]
    html_path: Path | None
    as_json: bool


_OPTIONS = (
    click.option(
        "--release", metavar="MODEL@VERSION", help="Rehearse: replace stable by it, as the canary table says."
    ),
    click.option(
        "--release-at-s",
        type=click.FloatRange(0),
        default=0.0,
        help="When the release begins; stable's caches are warm by then.",
    ),
    click.option(
        "--defect",
        "defects",
        multiple=True,
        metavar="KIND=SIZE",
        help=f"What is wrong with the canary: {', '.join(KINDS)}, such as errors=0.1 or slow=1.2.",
    ),
)


def rehearsal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a command with them."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def asked_for(options: Rehearsing) -> bool:
    """Raises click.UsageError for options that do not go together."""
    release, model = options["release"], options["model"]
    if release is None:
        if options["defects"]:
            raise click.UsageError("--defect is of a canary: say which with --release MODEL@VERSION")
        return False
    if options["against"] is not None:
        raise click.UsageError("--against compares policies: rehearse a release without it")
    if model is not None and model != release.rpartition("@")[0]:
        raise click.UsageError(f"--release {release} names the model: leave --model {model} out")
    return True


def rehearsal_asked_for(options: Rehearsing, plan: Plan) -> Rehearsal:
    """Raises ValueError."""
    config, target = load_or_exit(options["config"]), options["release"] or ""
    defects = defects_of(options["defects"])
    return rehearsal_of(config, options["config"].name, target, plan, defects, options["release_at_s"])


def show(
    console: Console, plan: Rehearsal, found: Rehearsed, slo: Slo, options: Rehearsing, subtitle: str
) -> None:
    """As a table or as JSON, and as a page if one is wished."""
    notes = _notes(plan.settings, found, slo)
    if options["as_json"]:
        settings = {key: str(value) for key, value in options.items() if value is not None}
        click.echo(json_report(found, notes, settings), nl=False)
    else:
        print_report(console, found, notes)
    if options["html_path"]:
        options["html_path"].write_text(page(found, subtitle, slo, notes), encoding="utf-8")


def _notes(settings: ModelConfig, found: Rehearsed, slo: Slo) -> list[str]:
    """What a reader must know beside the figures."""
    lines = [
        f"goodput: first token within {slo.ttft_s:g} s, {slo.tpot_s * 1e3:g} ms per output token on average",
        "the evidence is compared between requests of one size and one state of the cache; the table is not",
    ]
    if settings.split_by not in ("session", "request"):
        lines.append(f"no trace says who a {settings.split_by} is: sessions are what stays on one version")
    if settings.split is not None and settings.split.rules:
        lines.append("no trace has headers: the rules of the split are left out")
    if found.left_out:
        lines.append(f"{found.left_out:,} requests are longer than a replica's memory and were left out")
    return lines
