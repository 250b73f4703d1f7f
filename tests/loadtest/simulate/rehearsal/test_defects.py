from random import Random

import pytest

from loadtest.simulate.hardware import Hardware
from loadtest.simulate.rehearsal.defects import NONE, Defects, Struck, defects_of, in_words
from loadtest.simulate.setup import ReplicaSetup
from loadtest.simulate.workload import Call
from policies.routing.events import Prompt

CALL = Call(Prompt((1, 2), 40, 16), 40, answer=(1, 2, 3, 4, 5))


def test_read_from_the_command_line() -> None:
    found = defects_of(["errors=0.1", "slow=1.2"])
    assert found == Defects(errors=0.1, slow=1.2)
    assert in_words(found) == "errors=0.1, slow=1.2" and in_words(NONE) == "no defects"
    assert defects_of([]) == NONE


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("errors", "KIND=SIZE is expected, such as errors=0.1"),
        ("error=0.1", "did you mean 'errors'?"),
        ("errors=ten", "'ten' is no number"),
        ("errors=10", "a share of the requests is expected, from 0 to 1"),
        ("errors=nan", "a share"),
        ("slow=0", "a factor is expected, above 0"),
        ("longer=inf", "a factor"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=f"^--defect {text}: ") as raised:
        defects_of([text])
    assert complaint in str(raised.value)


def test_one_size_for_each_kind() -> None:
    with pytest.raises(ValueError, match="slow is given twice"):
        defects_of(["slow=2", "slow=3"])


def test_so_many_are_struck() -> None:
    random, defects = Random(1), Defects(errors=0.2, truncated=0.5)
    struck = [defects.strike(random) for _ in range(5000)]
    assert sum(one.errors for one in struck) == pytest.approx(1000, abs=120)
    assert sum(one.truncated for one in struck) == pytest.approx(2500, abs=150)
    assert not any(one.broken for one in struck)


def test_answers_are_cut_or_grow_and_their_blocks_with_them() -> None:
    cut = NONE.answered(CALL, Struck(truncated=True), 1000)
    assert (cut.completion_tokens, cut.answer) == (20, (1, 2, 3))
    longer = Defects(longer=2.0).answered(CALL, Struck(), 1000)
    assert (longer.completion_tokens, longer.answer) == (80, CALL.answer)
    assert Defects(longer=2.0).answered(CALL, Struck(), 100).completion_tokens == 60, "what memory holds"
    assert NONE.answered(CALL, Struck(), 1000) is CALL


def test_replicas_are_slowed_beside_what_they_are_anyway() -> None:
    (slowed,) = Defects(slow=1.5).slowed([ReplicaSetup("r", Hardware(), slowdown=2.0)])
    assert slowed.slowdown == 3.0
