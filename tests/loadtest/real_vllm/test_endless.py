"""What one cache that forgets nothing would find."""

from loadtest.real_vllm.endless import EndlessCache
from loadtest.real_vllm.workloads import Message

# 2 marks, the role and 28 words are 31 tokens; with the opening of the answer 33.
WORDS = " ".join(f"w{number}" for number in range(28))
USER = Message("user", WORDS)
SYSTEM = Message("system", WORDS)


def test_a_prompt_is_found_in_whole_blocks() -> None:
    """33 tokens are two blocks of 16 and a rest; the second time the two are there."""
    cache = EndlessCache(16)
    cache.ask([USER])
    assert (cache.prompt_tokens, cache.hit_tokens) == (33, 0)
    cache.ask([USER])
    assert (cache.prompt_tokens, cache.hit_tokens) == (66, 32)
    assert cache.hit_share == 32 / 66


def test_the_last_token_is_always_computed() -> None:
    """33 tokens are three blocks of 11, of which two may be found: an answer needs something to begin with."""
    cache = EndlessCache(11)
    cache.ask([USER])
    cache.ask([USER])
    assert cache.hit_tokens == 22


def test_only_a_beginning_counts() -> None:
    """The same words behind another role are other tokens from the second one on."""
    cache = EndlessCache(8)
    cache.ask([USER])
    cache.ask([SYSTEM])
    assert cache.hit_tokens == 0
    cache.ask([SYSTEM, USER])
    assert cache.hit_tokens == 32  # 31 of the message, and the mark with which the next one begins


def test_an_answer_is_held_too() -> None:
    """The next turn finds the prompt and the answer, which together fill more blocks than the prompt."""
    answer = Message("assistant", WORDS)
    without, kept = EndlessCache(8), EndlessCache(8)
    for cache in (without, kept):
        cache.ask([USER])
    kept.store([USER, answer])
    for cache in (without, kept):
        cache.ask([USER, answer, USER])
    assert (without.hit_tokens, kept.hit_tokens) == (32, 56)


def test_nothing_asked_is_nothing_found() -> None:
    """No division by nothing."""
    assert EndlessCache(16).hit_share == 0
