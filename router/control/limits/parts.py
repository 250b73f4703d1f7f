"""An ask in parts that each live at one node, and one verdict from those of the parts."""

from collections.abc import Sequence
from typing import NamedTuple

from policies.limits.ask import ADMITTED, Ask, Verdict
from router.control.limits.scripts import prefix_of


class Part(NamedTuple):
    """`budgets` and `slots` say at which places of the whole ask its own stand."""

    tag: str
    ask: Ask
    budgets: Sequence[int]
    slots: Sequence[int]

    def shifts(self, shifts_us: Sequence[int]) -> Sequence[int]:
        """Its own of the shifts of the whole ask."""
        return [shifts_us[place] for place in self.budgets]

    @property
    def nothing_used(self) -> Sequence[int]:
        return [-budget.cost_us for budget in self.ask.budgets]


def parts_of(ask: Ask) -> Sequence[Part]:
    """By tag, in the order in which the tags first stand in the ask: a tenant's own before the pool's."""
    places: dict[str, tuple[list[int], list[int]]] = {}
    for index, budget in enumerate(ask.budgets):
        places.setdefault(prefix_of(budget.key), ([], []))[0].append(index)
    for index, slots in enumerate(ask.slots):
        places.setdefault(prefix_of(slots.key), ([], []))[1].append(index)
    return [
        Part(
            tag,
            Ask(ask.id, [ask.budgets[at] for at in budgets], [ask.slots[at] for at in slots]),
            budgets,
            slots,
        )
        for tag, (budgets, slots) in places.items()
    ]


def combine(ask: Ask, parts: Sequence[Part], verdicts: Sequence[Verdict]) -> Verdict:
    """What `policies.limits.gcra.decide` would say of the whole, from what it said of each part alone."""
    admitted = all(verdict.admitted for verdict in verdicts)
    backlogs, held = [0] * len(ask.budgets), [0] * len(ask.slots)
    for part, verdict in zip(parts, verdicts, strict=True):
        given_back = verdict.admitted and not admitted
        for place, backlog_us in zip(part.budgets, verdict.backlogs_us, strict=True):
            backlogs[place] = backlog_us - (ask.budgets[place].cost_us if given_back else 0)
        for place, count in zip(part.slots, verdict.held, strict=True):
            held[place] = count - given_back
    if admitted:
        return Verdict(ADMITTED, backlogs, held)
    refusals = [
        (-verdict.wait_us, _place(ask, part, verdict.refused))
        for part, verdict in zip(parts, verdicts, strict=True)
        if not verdict.admitted
    ]
    wait, refused = min(refusals)
    return Verdict(refused, backlogs, held, -wait)


def _place(ask: Ask, part: Part, refused: int) -> int:
    if refused < len(part.budgets):
        return part.budgets[refused]
    return len(ask.budgets) + part.slots[refused - len(part.budgets)]
