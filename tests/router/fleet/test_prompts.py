import pytest

from policies.routing.prefix_index import SCOPE_BITS
from router.fleet.prompts import BLOCK_BYTES, PromptHasher

TEXT = "".join(chr(97 + number % 26) for number in range(5_000))


def hasher(key: bytes = b"key", model: str = "m", version: str = "v1") -> PromptHasher:
    return PromptHasher(key, model, version)


def test_blocks_are_equal_as_far_as_texts_are() -> None:
    one = hasher().hashed(TEXT)
    other = hasher().hashed(TEXT[:2_100] + "!" + TEXT[2_101:])
    assert len(one.blocks) == 5_000 // BLOCK_BYTES == 9
    assert one.blocks[:4] == other.blocks[:4]
    assert not set(one.blocks[4:]) & set(other.blocks[4:])


def test_a_longer_text_extends_a_shorter_one() -> None:
    assert hasher().hashed(TEXT + TEXT).blocks[:9] == hasher().hashed(TEXT).blocks
    assert hasher().hashed(TEXT[: BLOCK_BYTES - 1]).blocks == ()


def test_every_process_with_the_key_hashes_alike_and_nobody_else() -> None:
    """These are fixed: routers of any host and version with the same key must agree."""
    assert [f"{block:x}" for block in hasher().hashed(TEXT).blocks[:2]] == [
        "4a27a4d9c771523",
        "92e6ba1cd504523",
    ]
    kinds = [
        hasher(),
        hasher(key=b"other"),
        hasher(model="n"),
        hasher(version="v2"),
    ]
    assert len({each.hashed(TEXT).blocks for each in kinds}) == 4


def test_scopes_share_nothing_and_are_told_apart_by_the_low_bits() -> None:
    one, other = hasher().hashed(TEXT, "tenant-1"), hasher().hashed(TEXT, "tenant-2")
    assert not set(one.blocks) & set(other.blocks)
    tags = [{block & ((1 << SCOPE_BITS) - 1) for block in each.blocks} for each in (one, other)]
    assert [len(each) for each in tags] == [1, 1]
    assert tags[0] != tags[1]


def test_hashes_fit_into_sixty_bits() -> None:
    assert all(0 <= block < 1 << 60 for block in hasher().hashed(TEXT).blocks)


def test_token_ids_are_exact_and_no_text() -> None:
    ids = list(range(300))
    prompt = hasher().hashed(ids)
    assert (prompt.tokens, prompt.block_tokens, prompt.exact, len(prompt.blocks)) == (300, 128, True, 2)
    assert hasher().hashed([*ids[:200], 7]).blocks == prompt.blocks[:1]
    assert hasher().hashed([2**40, -1]).tokens == 2


def test_the_length_of_a_token_is_learned_from_what_engines_count() -> None:
    """From 4 bytes a token, the first guess, to what it is."""
    each = hasher()
    assert each.hashed(TEXT).tokens == 1_250
    for _ in range(20):
        each.learn(each.hashed(TEXT), 2_000)
    prompt = each.hashed(TEXT)
    assert prompt.tokens == pytest.approx(2_000, abs=2)
    assert prompt.block_tokens == pytest.approx(BLOCK_BYTES / 2.5, rel=0.01)
    each.learn(each.hashed([1, 2, 3]), 9)
    each.learn(prompt, 0)
    assert each.hashed(TEXT).tokens == pytest.approx(2_000, abs=2)


def test_text_that_is_no_unicode_is_hashed_all_the_same() -> None:
    assert len(hasher().hashed("\ud800" * 2_000).blocks) > 1
