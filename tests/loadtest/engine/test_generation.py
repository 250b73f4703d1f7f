import pytest

from loadtest.engine.generation import TextAssembler
from loadtest.engine.sampling import SamplingParams
from loadtest.engine.tokens import decode, encode


def assemble(text: str, *, last: bool = True, **params: object) -> tuple[list[str], str | None]:
    """Push a text's tokens; what was released each time, and the stop string that was hit."""
    assembler = TextAssembler(SamplingParams(100, **params))  # type: ignore[arg-type]
    released, ids = [], encode(text)
    for count, token in enumerate(ids, 1):
        part, stop = assembler.push(token, count, last=last and count == len(ids))
        released.append(part)
        if stop is not None:
            return released, stop
    return released, None


def test_without_stop_strings_nothing_is_held_back() -> None:
    """Each token's text is released with the token."""
    assert assemble(" bala bale bali") == ([" bala", " bale", " bali"], None)


def test_a_stop_string_over_two_tokens() -> None:
    """It is found though it spans tokens, and none of it has been released before."""
    released, stop = assemble(" bala bale bali", stop=("a ba",))
    assert stop == "a ba"
    assert "".join(released) == " bal"


def test_a_stop_string_may_stay_in_the_text() -> None:
    """With `include_stop` the text ends with it."""
    released, stop = assemble(" bala bale bali", stop=("a ba",), include_stop=True)
    assert (stop, "".join(released)) == ("a ba", " bala ba")


def test_the_earliest_stop_string_wins() -> None:
    """Of several in the same token the first in the text ends it."""
    assert assemble(" bala bale", stop=("le", "al"))[1] == "al"


def test_what_could_begin_a_stop_string_comes_late_but_comes() -> None:
    """Held-back text is released when the output ends otherwise."""
    released, stop = assemble(" bala bale", stop=("e bali",))
    assert stop is None
    assert released[0] == "" and "".join(released) == " bala bale"


def test_stop_strings_before_min_tokens_do_not_count() -> None:
    """The output goes on until it has its least tokens."""
    released, stop = assemble(" bala bala bala", stop=("bala",), min_tokens=2)
    assert stop == "bala"
    assert "".join(released) == " bala bala "


@pytest.mark.parametrize("held", ["", " bal"])
def test_flushing_releases_the_rest(held: str) -> None:
    """An end from outside loses no text."""
    assembler = TextAssembler(SamplingParams(9, stop=("x" * (len(held) + 1),)))
    text = "".join(assembler.push(token, 1, last=False)[0] for token in encode(" bala"))
    assert text + assembler.flush() == " bala"
    assert assembler.flush() == ""


def test_a_silent_token_leaves_no_text() -> None:
    """A stop token is counted but not shown."""
    assembler = TextAssembler(SamplingParams(9))
    assert assembler.push(encode(" bala")[0], 1, last=True, silent=True) == ("", None)
    assert decode(encode(" bala")) == " bala"
