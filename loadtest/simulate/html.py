"""The report as one HTML file that needs nothing else: table, curves, and where each policy wins."""

from collections.abc import Sequence
from html import escape

from loadtest.simulate.asks import Workload
from loadtest.simulate.compare import COLUMNS, Run, seconds, verdict
from loadtest.simulate.figures import Promise, Record, judged
from loadtest.simulate.plot import COLOURS, Axis, Line, plot

_BUCKETS = 60
_CURVE_POINTS = 200

_STYLE = """
:root { color-scheme: light dark; --fg: #1f2937; --bg: #ffffff; --dim: #6b7280; --grid: #e5e7eb; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e5e7eb; --bg: #111827; --dim: #9ca3af; --grid: #374151; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg);
       max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; }
td.best { font-weight: 700; }
svg { width: 100%; height: auto; } svg text { font-size: 11px; fill: var(--dim); }
svg .grid { stroke: var(--grid); } polyline { fill: none; stroke-width: 1.8; }
.key span { display: inline-block; margin-right: 1.2rem; }
.key i { display: inline-block; width: 1.4rem; height: 3px; vertical-align: middle; margin-right: .4rem; }
.dim { color: var(--dim); }
"""

_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    '<meta name="viewport" content="width=device-width"><style>{style}</style><body>{body}</body></html>'
)
_PROMISE = (
    "Goodput is the share of requests with a first token within {} and {} per token on average. "
    "The first 15 % of the requests are warm-up and not judged."
)


def report(workload: Workload, about: str, runs: Sequence[Run], promise: Promise) -> str:
    """The whole page. `about` says what fleet it was."""
    said = [(other.name, " ".join(verdict(runs[0], other, promise))) for other in runs[1:]]
    title = f"{workload.name}: {', '.join(run.name for run in runs)}"
    ttft, tpot = seconds(promise.ttft_s), seconds(promise.tpot_s)
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="dim">{workload.requests:,} requests, {escape(about)}. {_PROMISE.format(ttft, tpot)}</p>',
        _table(runs),
        *(f"<p><b>Beside {escape(name)}</b>: {escape(text)}</p>" for name, text in said),
        "<h2>Time to first token</h2>",
        _key(runs),
        _ttft(runs),
        "<h2>Prompt tokens found in caches, over time</h2>",
        _hits(runs),
        *(_loads(run) for run in runs),
    ]
    return _PAGE.format(title=escape(title), style=_STYLE, body="".join(parts))


def _table(runs: Sequence[Run]) -> str:
    head = "".join(f"<th>{escape(column.title)}</th>" for column in COLUMNS)
    rows = []
    for run in runs:
        cells = []
        for column in COLUMNS:
            values = [column.read(each.figures) for each in runs]
            value = column.read(run.figures)
            best = value == (max(values) if column.more else min(values)) and len(set(values)) > 1
            cells.append(f"<td{' class=best' if best else ''}>{column.form(value)}</td>")
        rows.append(f"<tr><td>{escape(run.name)}</td>{''.join(cells)}</tr>")
    return f"<table><tr><th>policy</th>{head}</tr>{''.join(rows)}</table>"


def _key(runs: Sequence[Run]) -> str:
    names = "".join(
        f'<span><i style="background:{COLOURS[place]}"></i>{escape(run.name)}</span>'
        for place, run in enumerate(runs)
    )
    return f'<p class="key">{names}</p>'


def _ttft(runs: Sequence[Run]) -> str:
    lines = []
    for place, run in enumerate(runs):
        values = sorted(record.ttft_s for record in judged(run.records))
        shares = [number / _CURVE_POINTS for number in range(_CURVE_POINTS + 1)]
        points = [
            (max(1e-4, values[min(len(values) - 1, int(share * len(values)))]), share) for share in shares
        ]
        lines.append(Line(run.name, points, COLOURS[place]))
    return plot(lines, Axis("time to first token", seconds, log=True), Axis("share of requests", _per_cent))


def _hits(runs: Sequence[Run]) -> str:
    lines = []
    for place, run in enumerate(runs):
        buckets = _buckets(run.records)
        points = []
        for at, records in buckets:
            prompt_tokens = sum(record.prompt_tokens for record in records)
            if prompt_tokens:
                points.append((at, sum(record.cached_tokens for record in records) / prompt_tokens))
        lines.append(Line(run.name, points, COLOURS[place]))
    return plot(lines, Axis("seconds", _plain), Axis("share of prompt tokens", _per_cent))


def _loads(run: Run) -> str:
    """Requests in flight per replica, means over stretches of time."""
    names = sorted({record.replica for record in run.records}, key=lambda name: (len(name), name))
    end = max(record.ended_at for record in run.records)
    width = end / _BUCKETS or 1.0
    busy = {name: [0.0] * (_BUCKETS + 1) for name in names}
    for record in run.records:
        for bucket in range(int(record.asked_at / width), int(record.ended_at / width) + 1):
            begin, stop = bucket * width, (bucket + 1) * width
            busy[record.replica][bucket] += min(stop, record.ended_at) - max(begin, record.asked_at)
    lines = [
        Line(name, [(place * width, seconds_ / width) for place, seconds_ in enumerate(busy[name][:-1])],
             COLOURS[number % len(COLOURS)])
        for number, name in enumerate(names)
    ]  # fmt: skip
    picture = plot(lines, Axis("seconds", _plain), Axis("requests in flight", _plain))
    return f"<h2>Load of each replica, over time: {escape(run.name)}</h2>{picture}"


def _buckets(records: Sequence[Record]) -> list[tuple[float, list[Record]]]:
    end = max(record.asked_at for record in records)
    width = end / _BUCKETS or 1.0
    buckets: list[list[Record]] = [[] for _ in range(_BUCKETS + 1)]
    for record in records:
        buckets[int(record.asked_at / width)].append(record)
    return [(place * width, bucket) for place, bucket in enumerate(buckets)]


def _per_cent(value: float) -> str:
    return f"{value:.0%}"


def _plain(value: float) -> str:
    return f"{value:,.6g}"
