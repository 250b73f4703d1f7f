"""A book takes all or nothing, gives back what was not used, and forgets what is full again."""

from policies.limits.ask import Ask, Budget, Slots
from policies.limits.book import _SWEEP_EVERY, Book

REQUEST = Budget("r", 10, 100)
TOKENS = Budget("t", 50, 100)


def test_a_refusal_takes_nothing_anywhere() -> None:
    book = Book()
    both = Ask("1", [REQUEST, TOKENS], [Slots("s", 9)])
    book.admit(both, 0)
    book.admit(both, 0)

    refused = book.admit(both, 0)

    assert not refused.admitted
    assert refused.refused == 1
    after = book.look(Ask("", [REQUEST._replace(cost_us=0), TOKENS._replace(cost_us=0)], [Slots("s", 9)]), 0)
    assert list(after.backlogs_us) == [20, 100]
    assert list(after.held) == [3]  # two are held, and `look` says what a third would make it


def test_looking_takes_nothing() -> None:
    book = Book()
    for _ in range(50):
        assert book.look(Ask("1", [TOKENS], [Slots("s", 1)]), 0).admitted
    assert len(book) == 0


def test_what_was_not_used_is_there_again() -> None:
    book = Book()
    ask = Ask("1", [TOKENS])
    book.admit(ask, 0)
    book.admit(ask, 0)
    assert not book.admit(ask, 0).admitted

    book.settle(ask, [-50], 0)

    assert book.admit(ask, 0).admitted
    assert not book.admit(ask, 0).admitted


def test_more_use_than_reserved_is_debt_and_has_to_be_earned() -> None:
    book = Book()
    ask = Ask("1", [TOKENS])
    book.admit(ask, 0)
    book.settle(ask, [250], 0)

    refused = book.admit(ask, 0)

    assert refused.wait_us == 250
    assert not book.admit(ask, 249).admitted
    assert book.admit(ask, 250).admitted


def test_giving_back_fills_a_bucket_and_never_more() -> None:
    book = Book()
    ask = Ask("1", [TOKENS])
    book.admit(ask, 0)
    book.settle(ask, [-50], 1000)

    assert [book.admit(ask, 1000).admitted for _ in range(3)] == [True, True, False]


def test_a_debt_counts_from_now_even_where_the_bucket_was_full() -> None:
    book = Book()
    ask = Ask("1", [TOKENS])
    book.admit(ask, 0)
    book.settle(ask, [60], 1000)

    assert book.look(Ask("", [TOKENS]), 1000).wait_us == 10


def test_slots_are_free_again_after_the_settlement() -> None:
    book = Book()
    ask = Ask("1", [], [Slots("s", 1)])
    assert book.admit(ask, 0).admitted
    assert not book.admit(ask, 10**9).admitted

    book.settle(ask, [], 10**9)

    assert book.admit(ask, 10**9).admitted


def test_buckets_that_are_full_again_are_forgotten() -> None:
    book = Book()
    for number in range(3 * _SWEEP_EVERY):
        book.admit(Ask("", [Budget(f"tenant-{number}", 50, 100)]), number)

    assert len(book) <= _SWEEP_EVERY + 100
