"""`turnout keys new`: a key that works, shown once, and an entry that does not hold it."""

import json
import tomllib
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from click.testing import CliRunner

from router.cli import main
from router.config.decode import decode
from router.control.keys import KeyRing
from tests.support.configs import MODEL


def made(*arguments: str) -> tuple[str, str]:
    """The key, and the TOML."""
    result = CliRunner().invoke(main, ["keys", "new", *arguments])
    assert result.exit_code == 0, result.stderr
    key, _, toml = result.stdout.partition("\n")
    return key, toml


def test_the_entry_lets_the_key_in() -> None:
    """What is printed goes into a configuration as it is, and the key is then known."""
    expires = "2030-01-01T02:00:00+02:00"
    key, toml = made(
        "--tenant", "search", "--id", "s-1", "--models", "m", "--priority", "low", "--expires", expires
    )
    config = decode(toml + MODEL, environ={})
    assert config.keys[0].expires == datetime(2030, 1, 1, tzinfo=UTC)
    caller = KeyRing(config.keys, lambda: 0.0).caller_of(f"Bearer {key}")
    assert (caller.key_id, caller.tenant, caller.priority) == ("s-1", "search", "low")
    assert caller.models == {"m"}


def test_the_digest_is_of_the_whole_key() -> None:
    """As anybody can compute it; the key itself is not in the entry."""
    key, toml = made("--tenant", "search")
    (entry,) = tomllib.loads(toml)["keys"]
    assert entry.keys() == {"id", "digest", "tenant"}
    assert entry["digest"] == f"sha256:{sha256(key.encode()).hexdigest()}"
    assert key.removeprefix("sk-turnout-") not in toml


def test_keys_and_names_are_each_new() -> None:
    """256 bits of chance behind a prefix, in letters that a URL may hold."""
    pairs = [made("--tenant", "search") for _ in range(20)]
    assert len({key for key, _ in pairs}) == len({toml.splitlines()[2] for _, toml in pairs}) == 20
    for key, _ in pairs:
        random = key.removeprefix("sk-turnout-")
        assert random != key
        assert len(random) == 43
        assert random.replace("-", "").replace("_", "").isalnum()


def test_as_json() -> None:
    """One object on standard output, with the entry as values and as TOML."""
    result = CliRunner().invoke(
        main, ["keys", "new", "--tenant", "t", "--json", "--expires", "2030-01-01 00:00:00Z"]
    )
    assert result.stderr == ""
    shown = json.loads(result.stdout)
    assert shown.keys() == {"key", "entry", "toml"}
    assert shown["entry"]["digest"] == f"sha256:{sha256(shown['key'].encode()).hexdigest()}"
    assert shown["entry"]["expires"] == "2030-01-01T00:00:00+00:00"
    assert decode(shown["toml"] + MODEL, environ={}).keys[0].id == shown["entry"]["id"]


def test_the_longest_tenant_still_has_a_valid_id() -> None:
    """The digits that are added to it leave it within bounds."""
    decode(made("--tenant", "t" * 128)[1] + MODEL, environ={})


def test_output_in_a_configuration_by_mistake_is_refused() -> None:
    """Whoever redirects all of it into the file is told, rather than that the key stays there."""
    result = CliRunner().invoke(main, ["keys", "new", "--tenant", "t"])
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(result.stdout)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "Missing option '--tenant'"),
        (["--tenant", "a b"], "must be 1 to 128 letters"),
        (["--tenant", "t", "--id", ""], "must be 1 to 128 letters"),
        (["--tenant", "t", "--models", "a,,b"], "must begin with a letter or digit"),
        (["--tenant", "t", "--priority", "urgent"], "'urgent' is not one of"),
        (["--tenant", "t", "--expires", "2030-01-01"], "write 2030-01-01T00:00:00Z"),
        (["--tenant", "t", "--expires", "2030-01-01T00:00:00"], "write 2030-01-01T00:00:00Z"),
        (["--tenant", "t", "--expires", "soon"], "such as 2030-01-01T00:00:00Z"),
    ],
)
def test_bad_usage(arguments: list[str], complaint: str) -> None:
    """Exit code 2, and no key."""
    result = CliRunner().invoke(main, ["keys", "new", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert complaint in result.stderr
