"""A secret is handed out by one method only."""

import copy
import logging
import pickle

import pytest

from router.config.secret import MASK, Secret, SecretUrl


def test_secret_shows_no_value(caplog: pytest.LogCaptureFixture) -> None:
    """Every way to print it, alone or inside something, gives the mask; `reveal` gives the value."""
    secret = Secret("s3cret")
    logging.getLogger("test").warning("%s %r", secret, [secret])
    shown = f"{secret} {secret!r} {secret:>20} {[secret]} {secret.masked()} {caplog.text}"
    assert "s3cret" not in shown
    assert secret.masked() == MASK
    assert secret.reveal() == "s3cret"


def test_reference_is_shown() -> None:
    """Where a secret is read from is no secret."""
    assert str(Secret("s3cret", "env:TOKEN")) == "env:TOKEN"
    assert repr(Secret("s3cret", "env:TOKEN")) == "Secret('env:TOKEN')"


def test_secrets_are_equal_by_value() -> None:
    """A reload that changes only where a secret is read from changes nothing."""
    assert Secret("a", "env:A") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a", "env:A"), Secret("a")}) == 1


def test_secret_survives_copies() -> None:
    """Copying and sending it to another process keep the value and the mask."""
    for twin in (copy.deepcopy(Secret("a", "env:A")), pickle.loads(pickle.dumps(Secret("a", "env:A")))):
        assert (twin.reveal(), str(twin)) == ("a", "env:A")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://u:pw@h:6379/0", f"redis://{MASK}@h:6379/0"),
        ("rediss://:p@w@h/1?password=pw#pw", f"rediss://{MASK}@h/1"),
        ("redis://[pw", MASK),
    ],
)
def test_url_shows_where_but_not_who(url: str, shown: str) -> None:
    """Of a URL, scheme, address and path are shown; user, password and parameters are not."""
    assert str(SecretUrl(url)) == shown
    assert SecretUrl(url).reveal() == url
