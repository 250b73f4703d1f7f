"""What is kept of an answer: its beginning, never more than it may be, and others have their turn."""

import asyncio

from router.flow.transcript import Transcript
from tests.support.flow import DONE, WHOLE, piece


def text_of(transcript: Transcript, *, stream: bool) -> str | None:
    return asyncio.run(transcript.text(stream=stream))


def test_a_stream_and_a_whole_answer_have_a_text() -> None:
    streamed, whole = Transcript(10_000), Transcript(10_000)
    for frames in (piece("a") + piece("b"), piece("c", "stop"), DONE):
        streamed.keep(frames)
    whole.keep(WHOLE)
    assert (text_of(streamed, stream=True), text_of(whole, stream=False)) == ("abc", "hello")
    assert not streamed.cut


def test_what_is_too_long_is_cut_where_a_piece_ends() -> None:
    """Once it is cut nothing more is kept, also what would have fitted: the text stays a beginning."""
    transcript = Transcript(2 * len(piece("a")) + 1)
    for letter in "abcd":
        transcript.keep(piece(letter))
    transcript.keep(b"")
    assert transcript.cut
    assert text_of(transcript, stream=True) == "ab"
    whole = Transcript(len(WHOLE) - 1)
    whole.keep(WHOLE)
    assert text_of(whole, stream=False) is None


def test_reading_a_long_one_lets_others_go_on() -> None:
    async def run() -> None:
        transcript = Transcript(1_000_000)
        for _ in range(1000):
            transcript.keep(piece())
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        assert await transcript.text(stream=True) == "x" * 1000
        assert turns > 20
        other.cancel()

    asyncio.run(run())
