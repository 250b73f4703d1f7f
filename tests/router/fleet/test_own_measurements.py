import pytest

from policies.outcome import Ending, Outcome
from router.fleet.own_measurements import OwnMeasurements, OwnMeter


def outcome(
    ending: Ending = Ending.COMPLETED,
    first_token_at: float | None = 10.5,
    ended_at: float = 12.5,
    prompt_tokens: int | None = 100,
    cached_tokens: int | None = None,
    completion_tokens: int | None = 40,
) -> Outcome:
    return Outcome(
        ending=ending,
        sent_at=10.0,
        first_token_at=first_token_at,
        ended_at=ended_at,
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
        completion_tokens=completion_tokens,
    )


def measured(*outcomes: Outcome) -> OwnMeasurements:
    meter = OwnMeter()
    for each in outcomes:
        meter.count(each)
    return meter.read(in_flight=0, waiting_for_first_token=0)


def test_streams_add_up() -> None:
    """Two answers of 40 tokens in 2 s, half a second after they were sent; one of them told its cached tokens."""
    assert measured(outcome(), outcome(cached_tokens=64)) == OwnMeasurements(
        answers=2,
        prompt_tokens=200,
        completion_tokens=80,
        cached_tokens=64,
        cache_told_prompt_tokens=100,
        streamed_tokens=80,
        streaming_s=4.0,
        first_token_s=1.0,
        first_tokens=2,
    )


def test_an_answer_that_came_whole_has_no_first_token() -> None:
    """Its tokens count, but its first byte came with its last and says nothing of the wait before."""
    assert measured(outcome(first_token_at=12.4999)) == OwnMeasurements(
        answers=1, prompt_tokens=100, completion_tokens=40
    )


def test_a_client_that_left_leaves_the_wait_it_saw() -> None:
    """The first token came; how many tokens there were nobody said."""
    left = outcome(Ending.CLIENT_LEFT, prompt_tokens=None, completion_tokens=None)
    assert measured(left) == OwnMeasurements(first_token_s=0.5, first_tokens=1)


@pytest.mark.parametrize("ending", [Ending.FAILED, Ending.TIMED_OUT, Ending.SATURATED, Ending.CLIENT_ERROR])
def test_an_attempt_without_an_answer_measures_nothing(ending: Ending) -> None:
    """Whatever it failed of."""
    nothing = outcome(ending, first_token_at=None, prompt_tokens=None, completion_tokens=None)
    assert measured(nothing) == OwnMeasurements()


def test_counts_of_the_moment_are_the_replica_s() -> None:
    """They are passed through beside the totals."""
    read = OwnMeter().read(in_flight=5, waiting_for_first_token=2)
    assert read == OwnMeasurements(in_flight=5, waiting_for_first_token=2)


def test_tokens_without_a_prompt_are_decode_only() -> None:
    """Triton counts nothing: the pieces that were relayed stand for its tokens, its prompts stay unknown."""
    assert measured(outcome(prompt_tokens=None)) == OwnMeasurements(
        completion_tokens=40,
        streamed_tokens=40,
        streaming_s=2.0,
        first_token_s=0.5,
        first_tokens=1,
    )
