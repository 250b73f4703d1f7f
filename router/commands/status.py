"""`turnout status`: what a running router says of its models and replicas, as a table or as JSON."""

import time
from collections.abc import Callable, Iterator

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from router.admin.model_views import ModelView, VersionView
from router.admin.views import ConfigView, ReplicaView, StatusView
from router.commands.admin_client import AdminClient, admin_options
from router.commands.limit_table import limits_table
from router.fleet.kv_figures import KvFigures

REFRESH_S = 1.0

UNKNOWN = Text("–", style="dim")

Format = Callable[[float], str]


@click.command()
@admin_options
@click.option("--watch", is_flag=True, help="Refresh each second until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the document, one line each time.")
def status(admin: str, token: str | None, watch: bool, as_json: bool) -> None:
    """Show models, versions and replicas of a running router, and what they are doing.

    \b
    Example:
      turnout status --watch
      turnout status --admin http://10.0.0.5:8081 --json
    """
    with AdminClient(admin, token) as client:
        _show(client, watch=watch, as_json=as_json)


def _show(client: AdminClient, *, watch: bool, as_json: bool) -> None:
    first = _read(client)
    if as_json:
        click.echo(first)
        while watch:
            time.sleep(REFRESH_S)
            click.echo(_read(client))
        return
    # A pipe has no width of its own: wide enough for every column.
    console = Console(width=None if Console().is_terminal else 170, highlight=False)
    if watch:
        _watch(console, client, first)
    else:
        console.print(rendered(client.decode(first, StatusView)))


def _read(client: AdminClient) -> str:
    """The document as it came, once it is known to be one."""
    document = client.get("/api/status")
    client.decode(document, StatusView)
    return document


def _watch(console: Console, client: AdminClient, document: str) -> None:
    """Refresh until interrupted; a listener that stops answering is said so and asked again."""
    shown = rendered(client.decode(document, StatusView))
    with Live(shown, console=console, screen=console.is_terminal, auto_refresh=False) as live:
        try:
            while True:
                live.update(shown, refresh=True)
                time.sleep(REFRESH_S)
                try:
                    shown = rendered(client.decode(_read(client), StatusView))
                except click.ClickException as error:
                    shown = Text(error.format_message(), style="red")
        except KeyboardInterrupt:
            return


# ---- the table ----


def rendered(status: StatusView) -> RenderableType:
    """The whole of it for a terminal."""
    parts: list[RenderableType] = [_headline(status)]
    parts += [_table(model, status.replicas) for model in status.models]
    if status.limits.limits:
        parts.append(limits_table(status.limits))
    parts += [
        Text(f"! {replica.id} ({replica.version}): {warning}", style="yellow")
        for replica in status.replicas
        for warning in replica.warnings
    ]
    parts += [
        Text(f"! {id_} ({version.version}) {complaint}", style="red")
        for model in status.models
        for version in model.versions
        for id_, complaints in version.unverified.items()
        for complaint in complaints
    ]
    if any(replica.figures.from_router for replica in status.replicas):
        parts.append(Text("* measured by this router, because the engine does not say", style="dim"))
    return Group(*parts)


def _headline(status: StatusView) -> Text:
    ready = Text("ready", style="green") if status.ready else Text("no replica is ready", style="red")
    config = f"configuration {status.config.generation}"
    about = f", turnout {status.turnout_version}, up {_age(status.uptime_s)}, {config}"
    return Text.assemble(ready, about, *_troubles(status.config))


def _troubles(config: ConfigView) -> Iterator[Text]:
    """Where the configuration is not simply what the file says."""
    if config.rolled_back_to is not None:
        yield Text(f" (rolled back to {config.rolled_back_to})", style="yellow")
    if config.behind:
        yield Text(f", not yet in {config.behind} of the workers", style="yellow")
    if config.reload_failed:
        yield Text(", last reload refused", style="red")
    yield from (Text(f"\n! {mistake}", style="red") for mistake in config.mistakes)


def _table(model: ModelView, replicas: list[ReplicaView]) -> Table:
    heard = any(replica.kv_events for replica in replicas)
    table = Table(title=Text(model.model), title_justify="left", title_style="bold", header_style="dim")
    for name in ("version", "replica", "engine", "state"):
        table.add_column(name)
    for name in (
        "in flight",
        "running",
        "waiting",
        "prefill t/s",
        "decode t/s",
        "batch",
        "KV",
        "hits",
        "queue",
        *(["KV events"] if heard else []),
    ):
        table.add_column(name, justify="right")
    for version in model.versions:
        own = [each for each in replicas if (each.model, each.version) == (model.model, version.version)]
        title = _version(version, model)
        for i, replica in enumerate(own):
            events = [_kv_events(replica.kv_events)] if heard else []
            table.add_row(title if i == 0 else "", *_cells(replica), *events)
        if not own:
            table.add_row(title, Text("no replicas", style="dim"))
        table.add_section()
    return table


def _version(version: VersionView, model: ModelView) -> Text:
    """Its name, its share where traffic is divided, and how many wait in the router for it."""
    name = f"{version.version} (stable)" if version.version == model.stable else version.version
    divided = any(one.percent not in (None, 0.0, 100.0) for one in model.versions)
    share = Text(f" {version.percent:g} %" if divided and version.percent is not None else "", style="cyan")
    queued = Text(f" {version.queued} queued", style="yellow") if version.queued else Text()
    return Text.assemble(name, share, queued)


def _cells(replica: ReplicaView) -> list[RenderableType]:
    limit = "" if replica.max_in_flight is None else f"/{replica.max_in_flight}"
    return [
        Text(replica.id),
        Text(replica.engine),
        _state(replica),
        f"{replica.in_flight}{limit}",
        _figure(replica, "running_requests", rounded),
        _figure(replica, "waiting_requests", rounded),
        _figure(replica, "prefill_tokens_per_s", rounded),
        _figure(replica, "decode_tokens_per_s", rounded),
        _figure(replica, "batch_utilisation", _per_cent),
        _figure(replica, "kv_usage_ratio", _per_cent),
        _figure(replica, "prefix_hit_ratio", _per_cent),
        _figure(replica, "queue_wait_s", duration),
    ]


def _state(replica: ReplicaView) -> Text:
    verification = replica.verification.state
    if verification == "mismatch":
        return Text("not verified", style="red")
    if verification == "warming":
        return Text("warming", style="yellow")
    if not replica.up:
        return Text("down", style="red")
    if replica.draining:
        return Text("draining" if replica.in_flight else "drained", style="yellow")
    if not replica.ready:
        return Text("full", style="yellow")
    return Text("up", style="green")


def _kv_events(events: KvFigures | None) -> Text:
    """How many come, and what was missed of them for good."""
    if events is None:
        return UNKNOWN
    if not events.connected:
        return Text("not heard", style="red")
    rate = f"{rounded(events.events_per_s)}/s"
    return Text(f"{rate}, {events.losses} lost" if events.losses else rate)


def _figure(replica: ReplicaView, name: str, form: Format) -> Text:
    value = getattr(replica.figures, name)
    if value is None:
        return UNKNOWN
    return Text(form(value) + ("*" if name in replica.figures.from_router else ""))


def rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _per_cent(value: float) -> str:
    return f"{value:.0%}"


def duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
