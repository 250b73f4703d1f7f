from random import Random

from loadtest.simulate.workload import Call, Session, Workload, poisson, spread
from policies.routing.events import Prompt


def call(tokens: int, *blocks: int, think_s: float = 0.0) -> Call:
    return Call(Prompt(blocks, tokens, 4), 2, think_s, (*blocks, 99))


WORK = Workload(
    "w",
    [
        Session(0.0, (call(8, 1, 2), call(12, 1, 2, 3, think_s=5.0)), "a"),
        Session(3.0, (call(4, 1),)),
        Session(9.0, (call(400),)),
    ],
    4,
)


def test_faster_moves_starts_and_not_think_times() -> None:
    fast = WORK.faster(3.0)
    assert [session.starts_s for session in fast.sessions] == [0.0, 1.0, 3.0]
    assert fast.sessions[0].calls[1].think_s == 5.0
    assert len(fast) == len(WORK) == 4


def test_first_keeps_sessions_whole() -> None:
    assert [session.starts_s for session in WORK.first(1).sessions] == [0.0]
    assert len(WORK.first(3)) == 3


def test_fitting_leaves_out_what_is_too_long() -> None:
    assert [len(session.calls) for session in WORK.fitting(13).sessions] == [1, 1]


def test_copies_share_nothing_with_each_other() -> None:
    """Within a copy everything that was equal still is."""
    copies = WORK.copied(3, 2.0, Random(1))
    assert len(copies) == 12
    heads = [
        session.calls[0].prompt.blocks[0] for session in copies.sessions if session.calls[0].prompt.blocks
    ]
    assert len(heads) == 6 and len(set(heads)) == 3
    named = [session for session in copies.sessions if session.name]
    assert len({session.name for session in named}) == 3
    for session in named:
        assert session.calls[1].prompt.blocks[:2] == session.calls[0].prompt.blocks
        assert session.calls[0].answer[:2] == session.calls[0].prompt.blocks
    starts = [session.starts_s for session in copies.sessions]
    assert starts == sorted(starts)


def test_poisson_has_the_rate_it_promises() -> None:
    times = poisson(4000, 5.0, Random(1))
    assert 760 < times[-1] < 840
    assert times == sorted(times)


def test_spread_keeps_different_numbers_apart() -> None:
    assert len({spread(number) for number in range(10_000)}) == 10_000
    assert all(0 <= spread(number) < 2**64 for number in range(100))
