"""A place in a file is told as users read it."""

from router.config.source import ConfigError, Mistake, Source, dotted


def test_path_as_users_read_it() -> None:
    """Tables are joined by dots, entries stand in brackets, names that TOML would quote are quoted."""
    assert dotted(("models", "llama-8b", "versions", "v1", "replicas", 0, "url")) == (
        "models.llama-8b.versions.v1.replicas[0].url"
    )
    assert dotted(("models", "org/m 1.0", "stable")) == 'models."org/m 1.0".stable'
    assert dotted((0, "a")) == "[0].a"
    assert dotted(()) == ""


def test_line_of_the_nearest_place() -> None:
    """What is missing is told at the table that lacks it; what is nowhere, at the first line."""
    source = Source("f", {("a",): 3, ("a", "b"): 4})
    assert source.mistake(("a", "b"), "x").line == 4
    assert source.mistake(("a", "c", 0), "x").line == 3
    assert source.mistake(("z",), "x").line == 1


def test_mistake_as_one_line() -> None:
    """FILE:LINE: key: text, without what there is not."""
    assert str(Mistake("f", 3, "a.b", "is wrong")) == "f:3: a.b: is wrong"
    assert str(Mistake("f", 3, "", "is wrong")) == "f:3: is wrong"
    assert str(Mistake("f", 0, "", "is wrong")) == "f: is wrong"
    assert str(ConfigError((Mistake("f", 1, "a", "x"), Mistake("f", 2, "b", "y")))) == "f:1: a: x\nf:2: b: y"
