from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from loadtest.engine.chain import ends_answer, first_word, logprob_of, next_token, successor
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.tokens import END_WORD_ID, EOS_ID, FIRST_WORD_ID, encode

GREEDY = SamplingParams(max_tokens=10_000, temperature=0)


def run(prompt: list[int], params: SamplingParams = GREEDY, limit: int = 10_000, seed: int = 0) -> list[int]:
    """The output of a prompt, end token included."""
    tokens = list(prompt)
    while len(tokens) - len(prompt) < limit:
        tokens.append(next_token(tokens, tokens[-1], len(tokens) - len(prompt), seed, params))
        if tokens[-1] == EOS_ID:
            break
    return tokens[len(prompt) :]


@given(st.text(min_size=1), st.integers(0, 60))
def test_cut_and_continued_equals_unbroken(text: str, cut: int) -> None:
    """From any point the rest of the output follows from prompt and output so far, its end included."""
    prompt = encode(text)
    whole = run(prompt)
    if cut < len(whole):
        assert whole[:cut] + run(prompt + whole[:cut]) == whole


def test_the_chain_visits_every_word_before_it_repeats() -> None:
    """One cycle over the whole vocabulary."""
    seen = {FIRST_WORD_ID}
    word = successor(FIRST_WORD_ID)
    while word not in seen:
        seen.add(word)
        word = successor(word)
    assert len(seen) == END_WORD_ID - FIRST_WORD_ID
    assert word == FIRST_WORD_ID


def test_natural_lengths_are_tens_to_hundreds() -> None:
    """Answers end by themselves, neither at once nor never."""
    lengths = [len(run(encode(f"question {number}"))) for number in range(200)]
    assert 20 < median(lengths) < 200
    assert max(lengths) < 2_000


def test_seed_choice_and_weights_matter_only_when_sampling() -> None:
    """Greedy output depends on prompt and weights; sampled output on seed and choice as well."""
    prompt = encode("same prompt")
    greedy = {
        first_word(prompt, 0, SamplingParams(1, temperature=0, seed=seed, choice=seed)) for seed in range(9)
    }
    sampled = {first_word(prompt, 0, SamplingParams(1, seed=seed)) for seed in range(9)}
    choices = {first_word(prompt, 0, SamplingParams(1, choice=choice)) for choice in range(9)}
    weights = {first_word(prompt, seed, GREEDY) for seed in range(9)}
    assert len(greedy) == 1
    assert min(len(sampled), len(choices), len(weights)) > 7


def test_ignored_and_postponed_ends() -> None:
    """`ignore_eos` never ends, `min_tokens` not before so many tokens."""
    last = next(word for word in range(FIRST_WORD_ID, END_WORD_ID) if ends_answer(word))
    assert run([last]) == [EOS_ID]
    assert EOS_ID not in run([last], SamplingParams(1, ignore_eos=True), limit=2_000)
    postponed = run([last], SamplingParams(1, min_tokens=5))
    assert len(postponed) > 5


def test_forced_output_ends_by_itself() -> None:
    """Guided output is exactly the given ids and the end token."""
    assert run(encode("x"), SamplingParams(1, forced_ids=(20, 21))) == [20, 21, EOS_ID]


def test_logprobs_are_negative_and_ordered() -> None:
    """The sampled token leads, alternatives follow in order, all different."""
    entry = logprob_of(100, 3)
    values = [logprob for _, logprob in entry.top]
    assert entry.logprob == values[0] < 0
    assert values == sorted(values, reverse=True)
    assert len({token for token, _ in entry.top}) == 3
    assert logprob_of(100, 0).top == ()
