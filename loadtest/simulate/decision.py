"""What a decision costs, in time and in memory: G9, measured on this machine, by the clock.

One decision is what the router does for it: hash the prompt, choose, and note what was chosen. Requests are
pending on every replica, and half of each prompt is in some caches, the first block in all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import median, quantiles
from time import perf_counter
from typing import Final, NamedTuple

from loadtest.simulate.section import Asking, Field, Section, Verdict
from policies.outcome import Ending, Outcome
from policies.routing import POLICIES
from policies.routing.events import Dispatched, Done, FirstToken, Prompt
from policies.routing.index_budget import blocks_within
from policies.routing.policy import LoadView, Policy
from policies.routing.prefix_index import PrefixIndex
from router.fleet.prompts import BLOCK_BYTES, PromptHasher

_PROMPT_BYTES: Final = 32 * 1024
_DECISIONS: Final = 2_000
_FLEETS: Final = {8: (None, None), 64: (100.0, 250.0), 512: (400.0, None)}
"""Replicas, and the most microseconds at p50 and p99."""
_MILLION: Final = 1_000_000


class _Facts(NamedTuple):
    session: str | None
    prompt: Prompt


@dataclass(slots=True)
class _Replica:
    id: str
    weight: float = 1.0
    in_flight: int = 0
    load: LoadView | None = None
    load_at: float = 0.0


class Spans(NamedTuple):
    """Microseconds of one decision."""

    p50: float
    p99: float
    choose_p50: float
    """Of which the choice itself, the prompt's hashes at hand."""


class IndexCost(NamedTuple):
    bytes_per_block: float
    """Of resident memory, with a million blocks."""
    over_budget: float
    """Most resident memory while many more blocks went in than it has room for, over the budget."""


def decision(field: Field) -> Asking:
    """G9: of a decision at 8, 64 and 512 replicas, where the subject is shipped, and of the index."""
    yield []
    rows: list[list[str]] = []
    verdicts: list[Verdict] = []
    if field.subject in POLICIES:
        decide(field.subject, min(_FLEETS))  # the benchmark's other processes are only starting
    for count, wanted in _FLEETS.items() if field.subject in POLICIES else ():
        spans = decide(field.subject, count)
        rows.append([f"{count} replicas", f"{spans.p50:.0f}", f"{spans.p99:.0f}", f"{spans.choose_p50:.0f}"])
        for what, measured, most in zip(("p50", "p99"), spans, wanted, strict=False):
            if most is not None:
                verdicts.append(_at_most(f"{count} replicas, {what} us", measured, most))
    cost = index_cost_alone(_MILLION, 5 * _MILLION, 256 * _MILLION)
    if cost is not None:
        rows.append(["index", f"{cost.bytes_per_block:.0f} B/block", f"{cost.over_budget:.2f}x budget", ""])
        verdicts.append(_at_most("bytes a block, at a million", cost.bytes_per_block, 100.0))
        verdicts.append(_at_most("most memory over the budget", cost.over_budget, 1.1, "{:.2f}"))
    headings = [field.subject, "p50 us", "p99 us", "choice alone"]
    return Section("G9: cost of a decision, prompts of 32 KB", headings, rows, verdicts)


def decide(kind: str, replicas: int) -> Spans:
    """Time decisions of one shipped policy on a fleet that is busy. Raises KeyError for no kind."""
    policy: Policy = POLICIES[kind](POLICIES[kind].Options(), Random(0))
    fleet = [_Replica(f"10.0.{number >> 8}.{number & 255}:8000") for number in range(replicas)]
    hasher = PromptHasher(b"key", "model", "v1")
    texts = _texts(Random(1))
    _warm_up(policy, fleet, [hasher.hashed(text) for text in texts])
    whole, choosing, ticket = [], [], replicas * len(texts)
    for number in range(_DECISIONS):
        now = 100.0 + number * 1e-3
        text = texts[number % len(texts)]
        began = perf_counter()
        prompt = hasher.hashed(text)
        hashed = perf_counter()
        chosen = policy.choose(_Facts(None, prompt), fleet, now)
        chose = perf_counter()
        ticket += 1
        policy.observe(Dispatched(chosen.id, ticket, now, prompt))
        whole.append(perf_counter() - began)
        choosing.append(chose - hashed)
        policy.observe(Done(chosen.id, ticket, now, None))
    hundredths = quantiles(whole, n=100)
    return Spans(median(whole) * 1e6, hundredths[98] * 1e6, median(choosing) * 1e6)


def _texts(random: Random) -> list[str]:
    """Prompts that have the first block in common; pairs of them the first half."""
    first = _text(random, BLOCK_BYTES)
    halves = [_text(random, _PROMPT_BYTES // 2 - BLOCK_BYTES) for _ in range(20)]
    return [first + half + _text(random, _PROMPT_BYTES // 2) for half in halves for _ in range(2)]


def _text(random: Random, size: int) -> str:
    return "".join(random.choices("abcdefghijklmnopqrstuvwxyz     ", k=size))


def _warm_up(policy: Policy, fleet: Sequence[_Replica], prompts: Sequence[Prompt]) -> None:
    """Every replica has answered the first prompt, some others too, and one more is pending everywhere."""
    ticket = 0
    for number, replica in enumerate(fleet):
        for turn, prompt in enumerate((prompts[0], prompts[number % len(prompts)])):
            ticket += 1
            at = 10.0 * turn + 1e-3 * number
            policy.observe(Dispatched(replica.id, ticket, at, prompt))
            policy.observe(FirstToken(replica.id, ticket, at + 0.5))
            outcome = Outcome(Ending.COMPLETED, at, at + 0.5, at + 5.0, prompt.tokens, 0, 200)
            policy.observe(Done(replica.id, ticket, at + 5.0, outcome))
    for number, replica in enumerate(fleet):
        policy.observe(Dispatched(replica.id, -number - 1, 99.9, prompts[number % len(prompts)]))
        replica.in_flight = 1


# ---- memory ----


def index_cost(blocks: int, unique: int, budget_bytes: int) -> IndexCost | None:
    """Of 8 mirrors; None where the machine does not tell what memory a process has."""
    random, before = Random(2), resident_bytes()
    if before is None:
        return None
    index = PrefixIndex(blocks, blocks)
    _fill(index, random, blocks)
    bytes_per_block = ((resident_bytes() or before) - before) / blocks
    del index
    before = resident_bytes() or before
    bounded, most = blocks_within(budget_bytes), 0
    index = PrefixIndex(bounded, bounded)
    for _ in range(50):
        _fill(index, random, unique // 50)
        most = max(most, (resident_bytes() or 0) - before)
    return IndexCost(bytes_per_block, most / budget_bytes)


def _fill(index: PrefixIndex, random: Random, blocks: int) -> None:
    for number in range(blocks // 100):
        index.insert(f"r{number % 8}", [random.getrandbits(60) for _ in range(100)])


def resident_bytes() -> int | None:
    """Of this process; None where there is no /proc."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.exists() else None


def index_cost_alone(blocks: int, unique: int, budget_bytes: int) -> IndexCost | None:
    """The same, in a process that has allocated nothing yet."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(index_cost, (blocks, unique, budget_bytes))


def _at_most(what: str, measured: float, most: float, form: str = "{:.0f}") -> Verdict:
    return Verdict(what, f"<= {form.format(most)}", form.format(measured), measured <= most)
