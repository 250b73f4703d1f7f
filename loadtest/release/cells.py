"""What is measured: which traffic, which defect, and what is aimed at."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from loadtest.release.traffic import Defect, Witness


class Aim(enum.Enum):
    """What a cell is about."""

    KEEP = "keep"
    """The canary is as good as stable: it must not be taken back."""
    CATCH = "catch"
    """It is worse: it must be taken back soon."""
    STOP = "stop"
    """It is a little worse: it must not get all traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """`most`: share of the releases, for `KEEP` and `STOP`. `within`: for `CATCH`, requests by quantile."""

    name: str
    aim: Aim
    defect: Defect = field(default_factory=Defect)
    witness: Witness = Witness.REQUEST
    per_tenant: bool = False
    most: float = 0.01
    within: Sequence[tuple[float, int]] = ()
    steps: Sequence[float] = (1.0, 5.0, 25.0, 50.0, 100.0)
    rivals: bool = False


_FROM_10: Final = (10.0, 25.0, 50.0, 100.0)
_CELLS: Final = (
    Cell(name="equal", aim=Aim.KEEP, rivals=True),
    Cell(name="equal, sessions", aim=Aim.KEEP, witness=Witness.SESSION, steps=_FROM_10, rivals=True),
    Cell(
        name="equal, tenants",
        aim=Aim.KEEP,
        witness=Witness.TENANT,
        per_tenant=True,
        steps=_FROM_10,
        rivals=True,
    ),
    Cell(name="equal, cold cache", aim=Aim.KEEP, defect=Defect(cold=True)),
    Cell(name="all fail", aim=Aim.CATCH, defect=Defect(errors=1.0), within=((0.99, 12),)),
    Cell(
        name="errors +10 points",
        aim=Aim.CATCH,
        defect=Defect(errors=0.10),
        within=((0.50, 60), (0.95, 150), (0.99, 200)),
    ),
    Cell(
        name="errors +10 points from 10 %",
        aim=Aim.CATCH,
        defect=Defect(errors=0.10),
        within=((0.50, 60), (0.95, 150), (0.99, 200)),
        steps=_FROM_10,
    ),
    Cell(
        name="first token +100 %",
        aim=Aim.CATCH,
        defect=Defect(time_to_first_token=2.0),
        within=((0.95, 100),),
    ),
    Cell(
        name="first token +50 %",
        aim=Aim.CATCH,
        defect=Defect(time_to_first_token=1.5),
        within=((0.95, 250),),
    ),
    Cell(
        name="first token +20 %",
        aim=Aim.CATCH,
        defect=Defect(time_to_first_token=1.2),
        within=((0.95, 1200),),
    ),
    Cell(name="cut off 15 %, not 5 %", aim=Aim.CATCH, defect=Defect(cut=0.15), within=((0.95, 300),)),
    Cell(name="errors +2 points", aim=Aim.STOP, defect=Defect(errors=0.02)),
    Cell(
        name="errors +2 points, sessions", aim=Aim.STOP, defect=Defect(errors=0.02), witness=Witness.SESSION
    ),
)
CELLS: Final = {cell.name: cell for cell in _CELLS}
