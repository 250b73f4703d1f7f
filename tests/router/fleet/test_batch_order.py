"""Numbers of batches, live and replayed."""

from router.fleet.batch_order import BatchOrder, Verdict


def test_the_table() -> None:
    """What each number means after 0 to 4 were applied, and 3 was the last live one."""
    for number, verdict in {
        0: Verdict.ANEW,
        3: Verdict.ANEW,
        4: Verdict.SEEN,
        5: Verdict.NEXT,
        6: Verdict.GAP,
        900: Verdict.GAP,
    }.items():
        assert BatchOrder(expected=5, live=3).judge(number) is verdict, number


def test_a_life() -> None:
    """In order, a gap, its replay, the queue's overlap, another life."""
    order = BatchOrder()
    assert order.judge(0) is Verdict.NEXT
    order.applied(0)
    assert order.judge(2) is Verdict.GAP
    for number in (1, 2, 3, 4):
        order.applied(number)
    assert [order.judge(number) for number in (3, 4)] == [Verdict.SEEN, Verdict.SEEN]
    assert order.judge(5) is Verdict.NEXT
    order.applied(5)
    assert order.judge(0) is Verdict.ANEW
    order.begin_anew()
    assert order.judge(0) is Verdict.NEXT
