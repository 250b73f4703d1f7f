"""The goals that a router which learns is held to, one generator each: jobs out, answers in, a table out.

Ratios are to other policies in this same harness, at their defaults. G9 alone is measured by the clock.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import geometric_mean, mean
from types import MappingProxyType
from typing import Final

from loadtest.simulate.capacity import Capacity, capacities
from loadtest.simulate.decision import decision
from loadtest.simulate.job import Job
from loadtest.simulate.scenarios import SCENARIOS
from loadtest.simulate.section import Asking, Field, Section, Verdict

SIX: Final = ("conv8", "synth8", "agent8", "gmi8", "conv8mix", "synth8mix")
MIXED: Final = ("conv8mix", "synth8mix")
_ANY: Final = Job(scenario="", policy="", speed=1.0)
_FOUR_WORKERS: Final = replace(_ANY, workers=4, gossip_loss=0.01, incident="worker killed")


def slo_misses(field: Field) -> Asking:
    """G1: requests outside the SLO at a fixed load, mean of six workloads and of the seeds."""
    names = field.of(*SIX)
    jobs = {
        (policy, name): [_at(name, policy, seed, seed - field.seeds[0]) for seed in field.seeds]
        for policy in field.everybody
        for name in names
    }
    answers = iter((yield [job for some in jobs.values() for job in some]))
    missed = {key: mean(1 - next(answers).summary.goodput for _ in some) for key, some in jobs.items()}
    means = {policy: mean(missed[policy, name] for name in names) for policy in field.everybody}
    rows = [
        [policy, f"{means[policy]:.2%}", *(f"{missed[policy, name]:.1%}" for name in names)]
        for policy in field.everybody
    ]
    best = min(field.peers, key=means.__getitem__)
    verdicts = [
        _at_most(f"against the best single peer, {best}", means[field.subject] / means[best], 0.50),
        _at_most("against the oracle", means[field.subject] / means[field.oracle], 1.05),
    ]
    return Section("G1: requests outside the SLO", ["policy", "mean", *names], rows, verdicts)


def capacity(field: Field) -> Asking:
    """G2 and G3: speed at which nine in ten are inside the SLO."""
    names = list(field.scenarios)
    found = yield from capacities(names, field.everybody, field.steps, _ANY)
    rows = _capacity_rows(field, names, found)
    verdicts = [_beside_the_best(field, name, found, 1.4 if name in MIXED else 0.97) for name in names]
    for peer in field.peers:
        ratio = geometric_mean([_ratio(found, name, field.subject, peer) for name in names])
        verdicts.append(_at_least(f"geometric mean against {peer}", ratio, 1.35))
    return Section("G2, G3: capacity at the SLO", ["policy", *names], rows, verdicts)


def four_workers(field: Field) -> Asking:
    """G4: the same with four workers, 1 % of their messages lost, and one of them killed on the way."""
    names = field.of("conv8", "synth8", "agent8")
    alone = yield from capacities(names, [field.subject], field.steps, _ANY)
    found = yield from capacities(names, [field.subject, *field.peers], field.steps, _FOUR_WORKERS)
    rows = _capacity_rows(replace(field, oracle=""), names, found)
    rows.append([f"{field.subject}, one worker", *(str(alone[name, field.subject]) for name in names)])
    verdicts: list[Verdict] = []
    for name in names:
        share = found[name, field.subject].speed / alone[name, field.subject].speed
        verdicts.append(_at_least(f"{name}: against one worker", share, 0.95))
        verdicts.append(_beside_the_best(field, name, found, 1.4))
    return Section("G4: capacity with four workers", ["policy", *names], rows, verdicts)


def hits(field: Field) -> Asking:
    """G5: prompt tokens found in caches, beside one LRU of the fleet's size, where replicas are alike."""
    names = [name for name in field.scenarios if name not in MIXED]
    jobs = [replace(_at(name, field.subject, field.seeds[0]), pooled=True) for name in names]
    answers = yield jobs
    rows, verdicts = [], []
    for name, answer in zip(names, answers, strict=True):
        pooled = answer.pooled_hit or 1.0
        rows.append([name, f"{answer.summary.hit:.3f}", f"{pooled:.3f}"])
        verdicts.append(_at_least(f"{name}: against the pool", answer.summary.hit / pooled, 0.90))
    return Section("G5: hit rate", ["workload", field.subject, "pooled LRU"], rows, verdicts)


def stale_metrics(field: Field) -> Asking:
    """G6: goodput when what engines say of themselves is old, or not there."""
    ages = (0.05, 1.0, 5.0, 30.0, None)
    names = field.of("conv8", "gmi8")
    jobs = [
        replace(_at(name, field.subject, seed), scrape_interval_s=age, speed=0.93 * SCENARIOS[name].speed)
        for name in names
        for age in ages
        for seed in field.seeds
    ]
    answers = iter((yield jobs))
    rows, verdicts = [], []
    for name in names:
        goodputs = [mean(next(answers).summary.goodput for _ in field.seeds) for _ in ages]
        rows.append([name, *(f"{goodput:.1%}" for goodput in goodputs)])
        verdicts.append(_at_most(f"{name}: most less least", max(goodputs) - min(goodputs), 0.01, "{:.2%}"))
    headings = ["workload", *("none" if age is None else f"every {age:g} s" for age in ages)]
    return Section("G6: goodput by age of metrics", headings, rows, verdicts)


def incidents(field: Field) -> Asking:
    """G7: goodput of the three minutes after an incident, and of the five after more replicas joined."""
    names = field.of("conv8")
    kinds = {"cold restart": 2.2, "silent flush": 2.2, "4x slower": 2.2}
    policies = [field.subject, *field.peers]
    jobs = [
        replace(_at(name, policy, seed), speed=speed, incident=kind)
        for name in names
        for policy in policies
        for kind, speed in {"nothing": 2.2, **kinds, "half as many again": 3.1}.items()
        for seed in field.seeds
    ]
    answers = iter((yield jobs))
    rows, verdicts = [], []
    for _ in names:
        for policy in policies:
            found = [mean(next(answers).summary.goodput for _ in field.seeds) for _ in range(len(kinds) + 2)]
            rows.append([policy, *(f"{goodput:.1%}" for goodput in found)])
            if policy == field.subject:
                verdicts += [
                    _at_most(f"loss by {kind}", found[0] - after, 0.015, "{:.2%}")
                    for kind, after in zip(kinds, found[1:], strict=False)
                ]
                verdicts.append(_at_least("goodput once half as many have joined", found[-1], 0.93))
    headings = ["policy", "nothing", *kinds, "half as many again, overloaded"]
    return Section("G7: goodput after incidents, conv8", headings, rows, verdicts)


def overload(field: Field) -> Asking:
    """G8: a tenth more than the best peer can bear."""
    names = field.of("conv8", "tool8", "synth8")
    found = yield from capacities(names, field.peers, field.steps, _ANY)
    best = {name: _best_peer(field, name, found) for name in names}
    jobs = [
        replace(_at(name, policy, seed), speed=1.1 * found[name, best[name]].speed)
        for name in names
        for policy in (field.subject, best[name])
        for seed in field.seeds
    ]
    answers = iter((yield jobs))
    rows, verdicts = [], []
    for name in names:
        ours, theirs = (mean(next(answers).summary.goodput for _ in field.seeds) for _ in range(2))
        rows.append([name, f"{ours:.1%}", f"{theirs:.1%}", best[name]])
        verdicts.append(_at_least(f"{name}: against {best[name]}", ours / max(theirs, 1e-3), 1.2))
    return Section(
        "G8: goodput a tenth beyond", ["workload", field.subject, "best peer", "which"], rows, verdicts
    )


GOALS: Final[Mapping[str, Callable[[Field], Asking]]] = MappingProxyType(
    {
        "G1": slo_misses,
        "G2": capacity,
        "G4": four_workers,
        "G5": hits,
        "G6": stale_metrics,
        "G7": incidents,
        "G8": overload,
        "G9": decision,
    }
)
"""G3 is a part of G2."""


def _at(name: str, policy: str, seed: int, perturbed: int = 0) -> Job:
    """The fixed load, every seed a little faster than the one before."""
    speed = SCENARIOS[name].speed * (1 + 0.01 * perturbed)
    return Job(scenario=name, policy=policy, speed=speed, seed=seed)


Capacities = Mapping[tuple[str, str], Capacity]


def _capacity_rows(field: Field, names: Sequence[str], found: Capacities) -> list[list[str]]:
    everybody = [policy for policy in field.everybody if policy]
    return [[policy, *(str(found[name, policy]) for name in names)] for policy in everybody]


def _ratio(found: Capacities, name: str, subject: str, peer: str) -> float:
    return found[name, subject].speed / found[name, peer].speed


def _best_peer(field: Field, name: str, found: Capacities) -> str:
    return max(field.peers, key=lambda peer: found[name, peer].speed)


def _beside_the_best(field: Field, name: str, found: Capacities, least: float) -> Verdict:
    best = _best_peer(field, name, found)
    if not found[name, field.subject].found:
        return Verdict(f"{name}: against {best}", f">= {least:g}", "below the range", None)
    return _at_least(f"{name}: against {best}", _ratio(found, name, field.subject, best), least)


def _at_least(what: str, measured: float, least: float) -> Verdict:
    return Verdict(what, f">= {least:g}", f"{measured:.3f}", measured >= least)


def _at_most(what: str, measured: float, most: float, form: str = "{:.3f}") -> Verdict:
    return Verdict(what, f"<= {form.format(most)}", form.format(measured), measured <= most)
