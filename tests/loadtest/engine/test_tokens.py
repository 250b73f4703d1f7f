from hypothesis import given
from hypothesis import strategies as st

from loadtest.engine.tokens import (
    END_WORD_ID,
    EOS_ID,
    FIRST_WORD_ID,
    ID_LIMIT,
    SPECIAL_IDS,
    WORDS,
    Detokenizer,
    check_ids,
    decode,
    encode,
    is_word,
)

words = st.lists(st.integers(FIRST_WORD_ID, END_WORD_ID - 1))
texts = st.text() | st.lists(st.sampled_from([*WORDS[:200], *SPECIAL_IDS, "<", "é", " ", "\n"])).map("".join)


@given(texts)
def test_decoding_undoes_encoding(text: str) -> None:
    """Every text survives the way to ids and back, special tokens included."""
    assert decode(encode(text), specials=True) == text


@given(words)
def test_output_text_splits_into_the_ids_that_made_it(ids: list[int]) -> None:
    """Words of the output vocabulary are one token each, whatever stands beside them."""
    assert encode(decode(ids)) == ids


@given(texts, words)
def test_prompt_and_output_split_alike_apart_and_together(prompt: str, output: list[int]) -> None:
    """Text continuation meets the ids of the unbroken stream: the seam moves no token."""
    assert encode(prompt + decode(output)) == encode(prompt) + output


@given(st.lists(st.integers(0, ID_LIMIT - 1)))
def test_token_by_token_gives_the_same_text(ids: list[int]) -> None:
    """The streaming decoder equals the whole one, but for a last incomplete character."""
    detokenizer = Detokenizer()
    streamed = "".join(map(detokenizer.push, ids))
    assert decode(ids).startswith(streamed)


def test_an_incomplete_character_waits() -> None:
    """Bytes of a character that comes in two tokens show up together."""
    ids = encode("ab😀")
    assert len(ids) == 2
    detokenizer = Detokenizer()
    assert [detokenizer.push(token) for token in ids] == ["ab", "😀"]


def test_special_tokens_are_silent() -> None:
    """The end token has no text unless it is asked for."""
    assert decode([EOS_ID]) == ""
    assert decode([EOS_ID], specials=True) == "<|im_end|>"


def test_vocabulary_is_distinct_and_starts_with_spaces() -> None:
    """No two words are alike, and each carries its space."""
    assert len(set(WORDS)) == len(WORDS) == END_WORD_ID - FIRST_WORD_ID
    assert all(word[0] == " " and " " not in word[1:] for word in WORDS)
    assert is_word(FIRST_WORD_ID) and not is_word(END_WORD_ID)


def test_impossible_ids_are_named() -> None:
    """An id outside the vocabulary is refused by its number."""
    for bad in (-1, ID_LIMIT):
        try:
            check_ids([5, bad])
        except ValueError as error:
            assert str(bad) in str(error)
        else:
            raise AssertionError("accepted")
