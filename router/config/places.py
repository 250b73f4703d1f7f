"""Values that point outside the file: `env:NAME`, `file:PATH`, and paths relative to the file itself."""

from router.config.option import Complaint, Place

LOG_STREAMS = ("stdout", "stderr", "off")


def log_target(value: str, place: Place) -> str:
    """'stdout', 'stderr', 'off', or an absolute path."""
    return value if value in LOG_STREAMS else str(place.directory / value)


def origin(value: str, place: Place) -> str:  # noqa: ARG001
    """A base URL without its last slash, so that two ways to write one replica are equal."""
    return value.removesuffix("/")


def template_text(value: str, place: Place) -> str:
    """A chat template: its text as it is written, or what `file:PATH` holds."""
    if value.startswith("file:"):
        return read_file(value.removeprefix("file:"), place)
    if "{{" in value or "{%" in value:
        return value
    raise Complaint(f"is neither a Jinja template nor 'file:PATH'; did you mean 'file:{value}'?")


def tokenizer_directory(value: str, place: Place) -> str:
    """The directory's absolute path."""
    directory = place.directory / value
    if not (directory / "tokenizer.json").is_file():
        raise Complaint(f"there is no tokenizer.json in '{directory}'")
    return str(directory)


def artefact_directory(value: str, place: Place) -> str:
    """The directory's absolute path; it may come to be there later, by a mount."""
    return str(place.directory / value)


def secret_text(value: str, place: Place) -> str:
    """The secret itself, from where `env:NAME` or `file:PATH` says it is."""
    if value.startswith("env:"):
        return _read_variable(value.removeprefix("env:"), place)
    if value.startswith("file:"):
        path = value.removeprefix("file:")
        return _not_empty(read_file(path, place).rstrip("\r\n"), f"the file '{path}'")
    return _not_empty(value, "the secret")


def is_reference(value: str) -> bool:
    return value.startswith(("env:", "file:"))


def read_file(path: str, place: Place) -> str:
    try:
        return (place.directory / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Complaint(f"the file '{path}' is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Complaint(f"the file '{path}' cannot be read: {reason}") from None


def _read_variable(name: str, place: Place) -> str:
    if name not in place.environ:
        raise Complaint(f"the environment variable '{name}' is not set")
    return _not_empty(place.environ[name], f"the environment variable '{name}'")


def _not_empty(text: str, what: str) -> str:
    if not text:
        raise Complaint(f"{what} is empty")
    return text
