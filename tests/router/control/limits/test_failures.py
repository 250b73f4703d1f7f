"""What Redis says when it does not do what it was told."""

import pytest

from router.control.limits.failures import Kind, failure_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script. Please use EVAL.", Kind.UNKNOWN_SCRIPT),
        ("MOVED 3999 127.0.0.1:6381", Kind.MOVED),
        ("ASK 3999 127.0.0.1:6381", Kind.ASK),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Kind.AGAIN),
        ("READONLY You can't write against a read only replica.", Kind.AWAY),
        ("ERR Error running script (call to f_0): @user_script:3: -READONLY You can't write", Kind.AWAY),
        ("LOADING Redis is loading the dataset in memory", Kind.AWAY),
        ("CLUSTERDOWN Hash slot not served", Kind.AWAY),
        ("MASTERDOWN Link with MASTER is down", Kind.AWAY),
        ("OOM command not allowed when used memory > 'maxmemory'.", Kind.MISCONFIGURED),
        ("CROSSSLOT Keys in request don't hash to the same slot", Kind.MISCONFIGURED),
        ("NOAUTH Authentication required.", Kind.MISCONFIGURED),
        ("WRONGPASS invalid username-password pair", Kind.MISCONFIGURED),
        ("NOPERM User limits has no permissions to run the 'evalsha' command", Kind.MISCONFIGURED),
        ("ERR wrong number of arguments", Kind.DEFECT),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Kind.DEFECT),
    ],
)
def test_the_first_word_says_it(text: str, kind: Kind) -> None:
    assert failure_of(Exception(text)).kind is kind


def test_where_the_keys_are() -> None:
    assert failure_of(Exception("MOVED 3999 10.0.0.7:6381")).address == ("10.0.0.7", 6381)
    assert failure_of(Exception("MOVED 3999 :6381")).address == ("", 6381)
