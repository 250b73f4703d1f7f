"""A stateless, reversible tokenizer: replicas in different processes agree on every id without sharing a
table.

Words of the output vocabulary, each with its leading space, are one token; every other text is UTF-8 in
pieces of up to three bytes, the piece's bytes being its id. Output starts with a space, so a prompt
followed by generated text always splits into the same ids as the two apart, and generated text splits into
exactly the ids that made it.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

VOCABULARY_SIZE: Final = 4096
FIRST_WORD_ID: Final = 16
END_WORD_ID: Final = FIRST_WORD_ID + VOCABULARY_SIZE
"""One past the last word id."""
PIECE_BASE: Final = END_WORD_ID
"""Ids of byte pieces start here: 256 of one byte, then 65,536 of two, then those of three."""
PIECE2_BASE: Final = PIECE_BASE + 256
PIECE3_BASE: Final = PIECE2_BASE + 65_536
ID_LIMIT: Final = PIECE3_BASE + 256**3
"""Ids are below this."""

SPECIAL_IDS: Final[Mapping[str, int]] = MappingProxyType(
    {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "<|tool_call|>": 3}
)
SPECIAL_TEXTS: Final[Mapping[int, str]] = MappingProxyType(
    {number: text for text, number in SPECIAL_IDS.items()}
)
EOS_ID: Final = SPECIAL_IDS["<|im_end|>"]


def _vocabulary() -> tuple[str, ...]:
    """Two-syllable words, a few with a second script or a wide character, every 64th closing a sentence."""
    syllables = [consonant + vowel for consonant in "bdfgjklmnprstvyz" for vowel in "aeio"]
    words = []
    for index in range(VOCABULARY_SIZE):
        word = " " + syllables[index // 64] + syllables[index % 64]
        if index % 61 == 5:
            word += "é"
        elif index % 97 == 7:
            word += "京"
        elif index % 211 == 9:
            word += "🙂"
        words.append(word + "." if index % 64 == 11 else word)
    return tuple(words)


WORDS: Final[tuple[str, ...]] = _vocabulary()
_WORD_IDS: Final[Mapping[str, int]] = MappingProxyType(
    {word: FIRST_WORD_ID + index for index, word in enumerate(WORDS)}
)
_TOKENS: Final = re.compile(
    "|".join(map(re.escape, SPECIAL_IDS)) + r"| (?:[bdfgjklmnprstvyz][aeio]){2}[é京🙂]?\.?(?=[\s<]|\Z)"
)
"""Special tokens, and whatever looks like a word of the vocabulary and ends where a word ends."""


def is_word(token_id: int) -> bool:
    """Whether the id is one of the output vocabulary."""
    return FIRST_WORD_ID <= token_id < END_WORD_ID


def encode(text: str) -> list[int]:
    """Text to token ids; `decode(..., specials=True)` gives the same text back."""
    ids: list[int] = []
    start = 0
    for match in _TOKENS.finditer(text):
        known = _WORD_IDS.get(match[0], SPECIAL_IDS.get(match[0]))
        if known is not None:
            if start < match.start():
                _encode_pieces(text[start : match.start()], ids)
            ids.append(known)
            start = match.end()
    _encode_pieces(text[start:], ids)
    return ids


def _encode_pieces(text: str, ids: list[int]) -> None:
    data = text.encode("utf-8", "surrogatepass")
    whole = len(data) - len(data) % 3
    triples = zip(data[0:whole:3], data[1:whole:3], data[2:whole:3], strict=True)
    ids.extend([PIECE3_BASE + (one << 16 | two << 8 | three) for one, two, three in triples])
    if len(data) - whole == 2:
        ids.append(PIECE2_BASE + (data[whole] << 8 | data[whole + 1]))
    elif len(data) - whole == 1:
        ids.append(PIECE_BASE + data[whole])


def token_bytes(token_id: int, *, specials: bool = False) -> bytes:
    """The bytes of one token, none of a special one unless `specials`; raises ValueError for no id."""
    if FIRST_WORD_ID <= token_id < END_WORD_ID:
        return WORDS[token_id - FIRST_WORD_ID].encode()
    if 0 <= token_id < FIRST_WORD_ID:
        return SPECIAL_TEXTS.get(token_id, "").encode() if specials else b""
    if PIECE_BASE <= token_id < PIECE2_BASE:
        return bytes((token_id - PIECE_BASE,))
    if PIECE2_BASE <= token_id < PIECE3_BASE:
        return (token_id - PIECE2_BASE).to_bytes(2, "big")
    if PIECE3_BASE <= token_id < ID_LIMIT:
        return (token_id - PIECE3_BASE).to_bytes(3, "big")
    raise ValueError(f"token id {token_id} is out of vocabulary")


def decode(token_ids: Iterable[int], *, specials: bool = False) -> str:
    """Token ids to text; bytes that are no UTF-8 become U+FFFD."""
    return b"".join(token_bytes(token_id, specials=specials) for token_id in token_ids).decode(
        "utf-8", "replace"
    )


def token_text(token_id: int) -> str:
    """One token on its own, as logprobs show it."""
    return decode((token_id,), specials=True)


class Detokenizer:
    """Token by token to text; the bytes of an incomplete character are kept back until it is complete."""

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder: codecs.IncrementalDecoder | None = None

    def push(self, token_id: int) -> str:
        """The text that this token completes, often a word, sometimes nothing."""
        if FIRST_WORD_ID <= token_id < END_WORD_ID and self._decoder is None:
            return WORDS[token_id - FIRST_WORD_ID]
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoder.decode(token_bytes(token_id))


def check_ids(token_ids: Sequence[int]) -> None:
    """Raises ValueError naming the first id that no token has."""
    for token_id in token_ids:
        if not 0 <= token_id < ID_LIMIT:
            raise ValueError(f"Token id {token_id} is out of vocabulary")
