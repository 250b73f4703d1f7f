from loadtest.peers.prefill_book import PrefillBook
from policies.routing.events import BlocksRemoved, BlocksStored, Dispatched, Done, FirstToken, Forgotten
from tests.support.routing import NOW, prompt_of

PROMPT = prompt_of("abcd")


def test_uncached_tokens_wait_until_the_first_token() -> None:
    """64 the first time; of five blocks with four cached, 16."""
    book = PrefillBook()
    book.observe(Dispatched("a", 1, NOW, PROMPT))
    book.observe(Dispatched("a", 2, NOW, prompt_of("abcde")))
    assert book.pending("a") == 64 + 16
    book.observe(FirstToken("a", 1, NOW))
    book.observe(Done("a", 1, NOW, None))
    assert book.pending("a") == 16
    book.observe(Done("a", 2, NOW, None))
    assert book.pending("a") == 0


def test_the_last_token_is_always_computed() -> None:
    """Engines sample from it, also if they have all of the prompt."""
    book = PrefillBook()
    book.observe(Dispatched("a", 1, NOW, PROMPT))
    assert book.uncached(PROMPT, ["a", "b"]) == [1.0, 64.0]


def test_all_tokens_may_count() -> None:
    """Cached or not."""
    book = PrefillBook(counts_cached=True)
    for ticket in range(2):
        book.observe(Dispatched("a", ticket, NOW, PROMPT))
    assert book.pending("a") == 128


def test_capacity() -> None:
    """48 tokens are three blocks."""
    book = PrefillBook(48)
    book.observe(Dispatched("a", 1, NOW, PROMPT))
    assert book.uncached(PROMPT, ["a"]) == [16.0]


def test_kv_events() -> None:
    """Only what the engine says is cached, until it says otherwise or restarts; without them nothing of it counts."""
    listening, deaf = PrefillBook(kv_events=True), PrefillBook()
    listening.observe(Dispatched("a", 1, NOW, PROMPT))
    for book in (listening, deaf):
        book.observe(BlocksStored("b", NOW, PROMPT.blocks))
        book.observe(BlocksRemoved("b", NOW, PROMPT.blocks[3:]))
    assert listening.uncached(PROMPT, ["a", "b"]) == [64.0, 16.0]
    assert deaf.uncached(PROMPT, ["b"]) == [64.0]
    listening.observe(Forgotten("b", NOW))
    assert listening.uncached(PROMPT, ["b"]) == [64.0]
