import pytest

from policies.outcome import Ending, Outcome
from policies.routing.events import Dispatched, Done, FirstToken
from policies.routing.ledger import Ledger, Models

BASE_S, TOKEN_S = 0.1, 0.001
"""1,000 uncached tokens take 1.1 s."""


def ledger() -> Ledger:
    models = Models(drift=1e-5)
    models.prefill.base_s, models.prefill.token_s, models.prefill.pair_s = BASE_S, TOKEN_S, 0.0
    return Ledger(models, slowness=1.0, now=0.0)


def send(
    books: Ledger, ticket: int, at: float, tokens: float, hit: float = 0.0, *, streamed: bool = True
) -> None:
    books.dispatched(Dispatched("r", ticket, at, None, streamed), tokens, hit)


def completed(sent_at: float, first_at: float, ended_at: float, completion_tokens: int) -> Outcome:
    return Outcome(Ending.COMPLETED, sent_at, first_at, ended_at, 1_000, 0, completion_tokens)


def test_an_idle_replica_makes_nobody_wait() -> None:
    assert ledger().wait_s(5.0) == 0.0


def test_what_was_sent_before_is_waited_for() -> None:
    """The head less what it has had, the others in full; cached tokens cost nothing."""
    books = ledger()
    send(books, 1, 10.0, 1_000)
    send(books, 2, 10.0, 2_000, hit=1_500)
    assert books.wait_s(10.0) == pytest.approx(1.1 + 0.6)
    assert books.wait_s(10.5) == pytest.approx(0.6 + 0.6)
    assert (books.batch, books.pending, books.tokens_held, books.sent_tokens) == (2, 2, 3_000, 1_500)


def test_a_first_token_starts_the_next_prefill() -> None:
    books = ledger()
    send(books, 1, 10.0, 1_000)
    send(books, 2, 10.0, 1_000)
    books.first_token(FirstToken("r", 1, 11.1))
    assert books.wait_s(11.1) == pytest.approx(1.1)
    assert (books.batch, books.pending) == (2, 1)
    books.first_token(FirstToken("r", 2, 12.2))
    assert books.wait_s(12.3) == 0.0
    books.done(Done("r", 1, 13.0, completed(10.0, 11.1, 13.0, 2)))
    assert (books.batch, books.pending, books.tokens_held) == (1, 0, 1_000)


def test_a_late_prefill_is_never_taken_to_be_over() -> None:
    """A tenth of it at least is left; and once it takes far too long, half of what it has taken is added."""
    books = ledger()
    send(books, 1, 10.0, 1_000)
    assert books.wait_s(12.0) == pytest.approx(0.11)
    assert books.wait_s(20.0) == pytest.approx(5.0)


def test_what_nobody_hears_of_again_is_given_up() -> None:
    """Its events were lost: after five times its prediction and a minute it is not there."""
    books = ledger()
    send(books, 1, 10.0, 1_000)
    assert books.wait_s(10.0 + 5 * 1.1 + 59.0) > 0
    assert books.wait_s(10.0 + 5 * 1.1 + 61.0) == 0.0
    send(books, 2, 90.0, 1_000)
    books.done(Done("r", 2, 91.0, None))
    assert (books.batch, books.pending, books.tokens_held) == (0, 0, 0)


def test_an_answer_that_comes_whole_holds_up_prefills_no_longer_than_its_own() -> None:
    """Its first token is never seen; its decoding is not taken for a queue."""
    books = ledger()
    send(books, 1, 10.0, 1_000, streamed=False)
    send(books, 2, 10.0, 1_000, streamed=False)
    assert books.wait_s(10.0) == pytest.approx(2.2)
    assert books.wait_s(11.2) == pytest.approx(1.1, abs=0.11)
    assert books.wait_s(12.3) == 0.0
    assert books.batch == 2
    books.first_token(FirstToken("r", 1, 15.0))
    assert books.prefill_pace.samples == 0


def test_prefills_are_learned_from_the_time_since_the_last_first_token() -> None:
    """Twice as slow as believed: a queue of prompts, one first token after the other."""
    books = ledger()
    at = 0.0
    for ticket in range(1, 60):
        send(books, ticket, 0.0, 500 * (1 + ticket % 4))
    for ticket in range(1, 60):
        at += 2 * BASE_S + 2 * TOKEN_S * 500 * (1 + ticket % 4)
        books.first_token(FirstToken("r", ticket, at))
    assert books.prefill_s(1_000, 1_000) == pytest.approx(2.2, rel=0.05)
    assert books.prefill_pace.samples == 58 // 8


def test_first_tokens_of_one_step_are_one_sample() -> None:
    """Two prompts prefilled in one step took its time together, not one of them all of it and the other none."""
    books = ledger()
    at = 0.0
    for ticket in range(0, 80, 2):
        send(books, ticket, at, 500)
        send(books, ticket + 1, at, 1_500)
        at += BASE_S + TOKEN_S * 2_000
        books.first_token(FirstToken("r", ticket, at))
        books.first_token(FirstToken("r", ticket + 1, at + 0.0001))
        at += 1.0
    assert books.prefill_pace.samples == 39
    assert books.prefill_s(2_000, 2_000) == pytest.approx(2.1, rel=0.05)


def test_decoding_is_learned_with_the_batch_it_had() -> None:
    """20 ms alone, 0.5 ms more for each neighbour: one, then 21 at a time, whose prefills take no time."""
    books = ledger()
    books.prefill.base_s = books.prefill.token_s = 1e-9
    at, ticket = 0.0, 0
    for round_ in range(60):
        batch = 1 + 20 * (round_ % 2)
        tickets = range(ticket, ticket + batch)
        ticket += batch
        for one in tickets:
            send(books, one, at, 100)
            books.first_token(FirstToken("r", one, at))
        ended = at + 99 * (0.02 + 0.0005 * batch)
        for one in tickets:
            books.done(Done("r", one, ended, completed(at, at, ended, 100)))
        at = ended + 1.0
    assert books.decode_s(1) == pytest.approx(0.0205, rel=0.05)
    assert books.decode_s(21) == pytest.approx(0.0305, rel=0.05)


def test_released_tokens_fade() -> None:
    books = ledger()
    for ticket in range(100):
        send(books, ticket, ticket * 1.0, 1_000)
        books.done(Done("r", ticket, ticket + 0.5, completed(ticket, ticket + 0.2, ticket + 0.5, 100)))
    assert books.released_per_s(99.5) == pytest.approx(1_100, rel=0.06)
    assert books.released_per_s(109.5) == pytest.approx(1_100 / 2.718, rel=0.06)


def test_events_of_unknown_requests_change_nothing() -> None:
    """They are late, told twice, or from before this router knew the replica."""
    books = ledger()
    books.first_token(FirstToken("r", 1, 1.0))
    assert books.done(Done("r", 1, 2.0, completed(0.0, 1.0, 2.0, 10))) is None
    send(books, 2, 3.0, 100)
    books.first_token(FirstToken("r", 2, 4.0))
    books.first_token(FirstToken("r", 2, 4.5))
    assert books.done(Done("r", 2, 5.0, None)) is not None
    assert books.done(Done("r", 2, 5.0, None)) is None
    assert (books.batch, books.pending, books.tokens_held) == (0, 0, 0)


def test_first_tokens_of_one_step_drift_apart_on_their_way() -> None:
    """What comes far too soon after another was in its step: a busy replica does not look a fast one."""
    books = ledger()
    for ticket in range(40):
        at = 10.0 * ticket
        send(books, 2 * ticket, at, 1_000)
        send(books, 2 * ticket + 1, at, 1_000)
        books.first_token(FirstToken("r", 2 * ticket, at + 2.2))
        books.first_token(FirstToken("r", 2 * ticket + 1, at + 2.21))
    assert books.prefill_s(2_000, 2_000) == pytest.approx(2.2, rel=0.15)


def test_a_pace_that_nobody_hears_of_is_doubted() -> None:
    """Half the way back to the fleet's, every time; whoever answers is believed."""
    models = Models(drift=1e-5)
    slow, fast = (Ledger(models, slowness=1.0, now=0.0) for _ in range(2))
    for ticket in range(40):
        at = 10.0 * ticket
        for books, factor in ((slow, 4.0), (fast, 1.0)):
            send(books, ticket, at, 1_000)
            books.first_token(FirstToken("r", ticket, at + factor))
            books.done(Done("r", ticket, at + factor + 1, completed(at, at + factor, at + factor + 1, 5)))
    before = slow.prefill_s(1_000, 1_000) / fast.prefill_s(1_000, 1_000)
    assert before == pytest.approx(4.0, rel=0.2)
    assert not slow.fade(400.0)
    assert slow.fade(430.0)
    after = slow.prefill_s(1_000, 1_000) / fast.prefill_s(1_000, 1_000)
    assert 2.0 < after < 0.9 * before
    assert not ledger().fade(430.0)
