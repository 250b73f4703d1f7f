"""The output chain: token i depends on token i-1 alone, so any correct continuation meets the unbroken
stream.

The first token depends on the prompt's ids and the weights' seed; when sampling, on the request's seed and
choice too. If the prompt ends inside an output, its last word decides, as it would have without the cut.
The end is a property of the last word, hence also independent of where a stream was cut.
"""

import zlib
from array import array
from collections.abc import Sequence
from typing import Final

from loadtest.engine.sampling import SamplingParams, TokenLogprob
from loadtest.engine.tokens import EOS_ID, FIRST_WORD_ID, VOCABULARY_SIZE, is_word

_LAST_WORD_EVERY: Final = 96
"""One word in so many ends an answer: natural lengths are tens to hundreds of tokens."""


def _mix(value: int) -> int:
    """The splitmix64 finaliser: 64 well-spread bits."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def _single_cycle() -> tuple[int, ...]:
    """A permutation with one cycle (Sattolo), so that no output repeats before it has used every word."""
    order = list(range(VOCABULARY_SIZE))
    for last in range(VOCABULARY_SIZE - 1, 0, -1):
        other = _mix(last) % last
        order[last], order[other] = order[other], order[last]
    return tuple(FIRST_WORD_ID + index for index in order)


_SUCCESSORS: Final[tuple[int, ...]] = _single_cycle()
_LAST_WORDS: Final[frozenset[int]] = frozenset(
    FIRST_WORD_ID + index for index in range(VOCABULARY_SIZE) if _mix(~index & 0xFFFF) % _LAST_WORD_EVERY == 0
)


def successor(word_id: int) -> int:
    """The word after this one."""
    return _SUCCESSORS[word_id - FIRST_WORD_ID]


def ends_answer(word_id: int) -> bool:
    """Whether the end token follows this word."""
    return word_id in _LAST_WORDS


def first_word(prompt_ids: Sequence[int], weights_seed: int, params: SamplingParams) -> int:
    """The first output token after a prompt that does not end inside an output."""
    state = _mix(zlib.crc32(array("I", prompt_ids).tobytes()) ^ weights_seed << 32)
    if params.temperature > 0:
        state = _mix(state ^ (params.seed or 0) & 0xFFFFFFFFFFFFFFFF) + params.choice
    return FIRST_WORD_ID + _mix(state) % VOCABULARY_SIZE


def next_token(
    prompt_ids: Sequence[int], last: int, generated: int, weights_seed: int, params: SamplingParams
) -> int:
    """The token after `last`, `generated` tokens into the output."""
    if params.forced_ids is not None:
        return params.forced_ids[generated] if generated < len(params.forced_ids) else EOS_ID
    if not is_word(last):
        return first_word(prompt_ids, weights_seed, params)
    if last in _LAST_WORDS and not params.ignore_eos and generated >= params.min_tokens:
        return EOS_ID
    return _SUCCESSORS[last - FIRST_WORD_ID]


def logprob_of(token_id: int, alternatives: int) -> TokenLogprob:
    """A plausible log-probability that depends on the token alone, and the runners-up."""
    best = -0.03125 * (1 + token_id % 31)
    runners = [token_id]
    while len(runners) < alternatives:
        last = runners[-1]
        runners.append(successor(last) if is_word(last) else FIRST_WORD_ID + last % VOCABULARY_SIZE)
    top = tuple((runner, best - 0.5 * rank) for rank, runner in enumerate(runners[:alternatives]))
    return TokenLogprob(token_id, best, top)
