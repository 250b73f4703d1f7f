"""What is expected against what is said."""

import pytest

from router.config.model import ExpectConfig
from router.engines.fingerprint import Fingerprint, Subject
from router.fleet.expectation import FIELDS, mismatches, wanted_of

M = Subject("m")


@pytest.mark.parametrize(
    ("expected", "said", "fits"),
    [
        ("0.33.*", "0.33.1", True),
        ("0.33.*", "0.330.1", False),
        ("0.33.*", "10.33.1", False),
        ("*", "", True),
        ("a*c*", "abcd", True),
        ("a.c", "abc", False),
        ("bfloat16", "bfloat16", True),
        ("bfloat16", "bfloat16 ", False),
    ],
)
def test_texts(expected: str, said: str, fits: bool) -> None:
    found = mismatches(M, ExpectConfig(engine_version=expected), Fingerprint(engine_version=said), None)
    assert (not found) is fits


def test_a_model_that_is_not_listed() -> None:
    """With nothing expected, too; where no list is, nothing is missed."""
    [other] = mismatches(M, None, Fingerprint(names=("a", "b")), None)
    assert str(other) == "name: expected 'm', the replica says 'a', 'b'"
    [none] = mismatches(M, None, Fingerprint(names=()), None)
    assert str(none) == "name: expected 'm', the replica says that it has no such model"
    assert mismatches(M, None, Fingerprint(names=("a", "m")), None) == ()
    assert mismatches(M, None, Fingerprint(), None) == ()
    [many] = mismatches(M, None, Fingerprint(names=tuple("abcdefgh")), None)
    assert str(many).endswith("'e', …")


@pytest.mark.parametrize("field", FIELDS)
def test_what_nobody_says_is_not_met(field: str) -> None:
    value = 3 if field in ("tensor_parallel", "max_model_len", "vocab_size") else "x"
    expect = ExpectConfig(**{field: value})
    [missing] = mismatches(M, expect, Fingerprint(), Fingerprint())
    assert str(missing) == f"{field}: expected {value}, the replica does not say"
    said = Fingerprint(**{field: value})
    assert mismatches(M, expect, said, None) == mismatches(M, expect, Fingerprint(), said) == ()
    assert field in wanted_of(expect)


def test_the_replicas_own_word_comes_before_its_files() -> None:
    """A server may serve less than the model can."""
    expect = ExpectConfig(artefact="d", max_model_len=8192)
    files = Fingerprint(max_model_len=131_072)
    assert mismatches(M, expect, Fingerprint(max_model_len=8192), files) == ()
    [wrong] = mismatches(M, expect, Fingerprint(), files)
    assert str(wrong) == "max_model_len: expected 8192, the artefact says 131072"


def test_a_replica_and_its_files_must_be_of_one_piece() -> None:
    """Where both say it, and without writing it down."""
    files = Fingerprint(revision="a", tensor_parallel=2, engine_version="1.1.0")
    said = Fingerprint(revision="b", tensor_parallel=2)
    [wrong] = mismatches(M, ExpectConfig(artefact="d"), said, files)
    assert str(wrong) == "revision: expected a, as in the artefact, the replica says b"
    assert {"revision", "tensor_parallel", "engine_version"} < wanted_of(ExpectConfig(artefact="d"))
    assert wanted_of(None) == {"names"}
