"""Faults as they are written on the command line: `WHAT@SECONDS:WHO`."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from loadtest.simulate.faults import Flush, Restart, ScaleUp, SlowDown, WorkerCrash
from loadtest.simulate.setup import Fault, Setup

_FORM: Final = re.compile(r"([a-z]+)@([0-9.]+):(\d+)")


def fault_of(text: str, setup: Setup) -> Fault:
    """`restart`, `flush`, `slow` and a replica's number from 0, `scale` and how many, `crash` and a worker.

    Raises ValueError.
    """
    found = _FORM.fullmatch(text)
    make = _KINDS.get(found[1]) if found else None
    if found is None or make is None:
        raise ValueError(f"--fault {text}: {', '.join(_KINDS)} @ SECONDS : NUMBER is expected")
    try:
        return make(float(found[2]), int(found[3]), setup)
    except IndexError:
        raise ValueError(f"--fault {text}: there is no number {found[3]}; the first is 0") from None


def _scale_up(at: float, count: int, setup: Setup) -> Fault:
    first = setup.replicas[0]
    return ScaleUp(at, tuple(first.named(f"new{number}") for number in range(count)))


def _crash(at: float, number: int, setup: Setup) -> Fault:
    return WorkerCrash(at, range(setup.workers)[number])


_KINDS: Final[Mapping[str, Callable[[float, int, Setup], Fault]]] = MappingProxyType(
    {
        "restart": lambda at, number, setup: Restart(at, setup.replicas[number].id),
        "flush": lambda at, number, setup: Flush(at, setup.replicas[number].id),
        "slow": lambda at, number, setup: SlowDown(at, setup.replicas[number].id),
        "scale": _scale_up,
        "crash": _crash,
    }
)
