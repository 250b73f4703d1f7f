"""What the others have in flight: whatever is lost, late, told twice or left open by a crash comes right."""

from random import Random

import pytest

from policies.routing.events import Dispatched, Done, FirstToken, Forgotten, Prompt
from router.control.ledger import Ledger, Told, serial_of, ticket_of, wire_answer, wire_prompt
from router.control.messages import (
    Answered,
    Batch,
    Began,
    Bye,
    Ended,
    Entry,
    Flushed,
    Hello,
    Member,
    Open,
    Place,
    wire_outcome,
)
from tests.support.sharing import OUTCOME

A, B = Place("m", "v1", "a"), Place("m", "v1", "b")
ONE, TWO = Member(1, 1, 0), Member(1, 2, 0)
PROMPT = Prompt((1, 2, 3), 400, 128.0)


class Book:
    """A ledger, and what it said."""

    def __init__(self) -> None:
        self.counts: dict[Place, int] = {}
        self.ledger = Ledger(self.counts.__setitem__)

    def hear(
        self, *entries: Entry, member: Member = ONE, now: float = 0.0, shift_s: float = 0.0
    ) -> list[Told]:
        return list(self.ledger.hear(Batch(member, now, list(entries)), now, shift_s))


def began(serial: int, place: Place = A, prompt: Prompt | None = None) -> Began:
    return Began(place, serial, 1.0, True, None if prompt is None else wire_prompt(prompt))


def ended(serial: int, prompt: Prompt | None = None, answer: Prompt | None = None) -> Ended:
    rest = None if answer is None else wire_answer(prompt, answer)
    return Ended(serial, 3.0, wire_outcome(OUTCOME), rest)


def test_the_life_of_a_request() -> None:
    """Its events come out as they went in, with times of this clock and a ticket that is the sender's alone."""
    book = Book()
    answer = Prompt((1, 2, 3, 4), 500, 128.0, exact=True)
    told = book.hear(began(7, A, PROMPT), Answered(7, 2.0), ended(7, PROMPT, answer), shift_s=10.0)
    ticket = ticket_of(ONE, 7)
    later = OUTCOME._replace(sent_at=11.0, first_token_at=12.0, ended_at=13.0)
    assert told == [
        Told("m", "v1", Dispatched("a", ticket, 11.0, PROMPT, True)),
        Told("m", "v1", FirstToken("a", ticket, 12.0)),
        Told("m", "v1", Done("a", ticket, 13.0, later, answer)),
    ]
    assert serial_of(ticket) == 7
    assert ticket >> 32 == ONE.origin
    assert book.counts == {A: 0}


def test_counts_are_kept_by_replica_and_by_version() -> None:
    """One process that serves two versions has two counts, and one sum."""
    book = Book()
    other = Place("m", "v2", "a")
    book.hear(began(1), began(2), began(3, other), began(4, B))
    book.hear(began(1), member=TWO)
    assert book.counts == {A: 3, other: 1, B: 1}
    assert [book.ledger.in_flight(each) for each in "abc"] == [4, 1, 0]


def test_what_is_told_twice_counts_once() -> None:
    """Beginnings, ends, and ends of what never began."""
    book = Book()
    book.hear(began(1), began(1))
    assert book.counts[A] == 1
    assert len(book.hear(ended(1), ended(1), ended(2), Answered(2, 0.0))) == 1
    assert book.counts[A] == 0


def test_a_list_puts_right_what_was_lost() -> None:
    """A lost end is made up for without an outcome; a lost beginning is counted, and ends as any other."""
    book = Book()
    book.hear(began(1), began(2))
    told = book.hear(Open({A: [2], B: [3]}), now=5.0)
    assert told == [Told("m", "v1", Done("a", ticket_of(ONE, 1), 5.0, None))]
    assert book.counts == {A: 1, B: 1}
    assert [each.event.replica for each in book.hear(ended(3), ended(2))] == ["b", "a"]
    assert book.counts == {A: 0, B: 0}


def test_an_answer_whose_prompt_was_lost_is_left_out() -> None:
    """Half a chain of hashes would be a wrong one."""
    book = Book()
    book.hear(Open({A: [1]}))
    (told,) = book.hear(ended(1, PROMPT, Prompt((1, 2, 3, 4), 500, 128.0)))
    assert isinstance(told.event, Done)
    assert told.event.answer is None
    assert told.event.outcome is not None


@pytest.mark.parametrize("answer", [(), (1,), (1, 2, 3), (1, 9, 9), (9,), (1, 2, 3, 4, 5)])
def test_an_answer_travels_without_what_is_known(answer: tuple[int, ...]) -> None:
    """However it is like its prompt, it arrives whole."""
    book = Book()
    book.hear(began(1, A, PROMPT))
    entry = ended(1, PROMPT, Prompt(answer, 500, 128.0))
    assert entry.answer is not None
    assert entry.answer.alike + len(entry.answer.blocks) == len(answer)
    (told,) = book.hear(entry)
    assert isinstance(told.event, Done)
    assert told.event.answer == Prompt(answer, 500, 128.0)


def test_who_is_silent_is_gone() -> None:
    """All it had is taken back and told to be over; the others stay."""
    book = Book()
    book.hear(began(1), began(2, B), now=1.0)
    book.hear(began(1), member=TWO, now=2.0)
    told = list(book.ledger.silent(before=1.5, now=3.0))
    assert told == [
        Told("m", "v1", Done("a", ticket_of(ONE, 1), 3.0, None)),
        Told("m", "v1", Done("b", ticket_of(ONE, 2), 3.0, None)),
    ]
    assert book.counts == {A: 1, B: 0}
    assert book.ledger.members == (TWO,)


def test_who_leaves_is_gone_at_once() -> None:
    """And may come back."""
    book = Book()
    assert len(book.hear(began(1), Bye())) == 2
    assert book.ledger.members == ()
    book.hear(Hello(), began(2))
    assert (book.counts, book.ledger.members) == ({A: 1}, (ONE,))


def test_a_flushed_cache_is_told() -> None:
    """It changes no count."""
    book = Book()
    assert book.hear(Flushed(A, 1.0), shift_s=1.0) == [Told("m", "v1", Forgotten("a", 2.0))]
    assert book.counts == {}


@pytest.mark.parametrize("seed", range(20))
def test_any_loss_is_healed_by_one_list(seed: int) -> None:
    """Half of all messages are lost, then one list comes through: the counts are right, and go to nothing."""
    random, book = Random(seed), Book()
    really: dict[int, Place] = {}
    for serial in range(200):
        really[serial] = random.choice((A, B))
        if random.random() < 0.5:
            book.hear(began(serial, really[serial]))
        if random.random() < 0.8:
            gone = random.choice(list(really))
            del really[gone]
            if random.random() < 0.5:
                book.hear(ended(gone))
    serials = {place: [s for s, at in really.items() if at is place] for place in (A, B)}
    book.hear(Open(serials))
    assert {place: book.counts.get(place, 0) for place in (A, B)} == {p: len(s) for p, s in serials.items()}
    book.hear(Open({}))
    assert not any(book.counts.values())
