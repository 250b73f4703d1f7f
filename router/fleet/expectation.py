"""What is expected of a replica against what it and its files say: decided field by field, without asking.

A field that is expected and that nobody says is not met. So is a replica that lists models, and not the one
that requests name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from router.config.expect import ExpectConfig
from router.engines.fingerprint import Fingerprint, Subject

FIELDS: Final = (
    "model",
    "revision",
    "engine_version",
    "dtype",
    "quantization",
    "kv_cache_dtype",
    "tensor_parallel",
    "max_model_len",
    "vocab_size",
    "config_sha256",
    "tokenizer_sha256",
    "chat_template_sha256",
    "weights_sha256",
)
"""Of `ExpectConfig` and of `Fingerprint`, where they have the same meaning."""

CORRESPONDING: Final = ("revision", "engine_version", "tensor_parallel")
"""What must be the same in a replica and in its files, without anybody's writing it down."""

_SHOWN_NAMES: Final = 5


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One field that is not as it should be. `said`: None where nobody says it; `by`: who does."""

    field: str
    expected: str
    said: str | None
    by: str = "the replica"

    def __str__(self) -> str:
        if self.said is None:
            return f"{self.field}: expected {self.expected}, {self.by} does not say"
        return f"{self.field}: expected {self.expected}, {self.by} says {self.said}"


NOTHING: Final = Fingerprint()

State = Literal["verified", "mismatch", "warming", "gone"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a replica is what its version says. Only a `verified` one gets requests.

    `warming`: it could not be asked yet, and `reason` says what is waited for. `gone`: it was verified and
    then began anew or went away. `reason` of a verified one says why it could not be asked.
    """

    state: State = "verified"
    mismatches: tuple[Mismatch, ...] = ()
    reason: str = ""
    said: Fingerprint = NOTHING

    @property
    def verified(self) -> bool:
        return self.state == "verified"

    @property
    def complaints(self) -> tuple[str, ...]:
        """Sentences for people; none of a replica that is verified."""
        if self.state == "mismatch":
            return tuple(f"is not what its version says: {each}" for each in self.mismatches)
        if self.verified:
            return ()
        return (f"waits to be verified: {self.reason}",)


def wanted_of(expect: ExpectConfig | None) -> frozenset[str]:
    """The fields that have to be asked for."""
    if expect is None:
        return frozenset({"names"})
    named = {field for field in FIELDS if getattr(expect, field) is not None}
    return frozenset({"names"} | named | (set(CORRESPONDING) if expect.artefact is not None else set()))


def mismatches(
    subject: Subject, expect: ExpectConfig | None, said: Fingerprint, artefact: Fingerprint | None
) -> tuple[Mismatch, ...]:
    """All of them. `artefact`: what the files say, None where none are named."""
    found = list(_name(subject, said))
    if expect is not None:
        files = artefact or Fingerprint()
        for field in FIELDS:
            found += _field(field, getattr(expect, field), said, files)
        found += _corresponding(said, files)
    return tuple(found)


def _name(subject: Subject, said: Fingerprint) -> Iterator[Mismatch]:
    if said.names is None or subject.name in said.names:
        return
    shown = ", ".join(map(repr, said.names[:_SHOWN_NAMES])) or "that it has no such model"
    more = ", …" if len(said.names) > _SHOWN_NAMES else ""
    yield Mismatch("name", repr(subject.name), shown + more)


def _field(
    field: str, expected: str | int | None, said: Fingerprint, files: Fingerprint
) -> Iterator[Mismatch]:
    """The replica's own word comes first: a server may shorten contexts, or convert weights."""
    if expected is None:
        return
    own, written = getattr(said, field), getattr(files, field)
    if own is None and written is not None:
        if not _fits(expected, written):
            yield Mismatch(field, str(expected), str(written), "the artefact")
    elif own is None or not _fits(expected, own):
        yield Mismatch(field, str(expected), None if own is None else str(own))


def _corresponding(said: Fingerprint, files: Fingerprint) -> Iterator[Mismatch]:
    for field in CORRESPONDING:
        own, written = getattr(said, field), getattr(files, field)
        if own is not None and written is not None and own != written:
            yield Mismatch(field, f"{written}, as in the artefact", str(own))


def _fits(expected: str | int, said: str | int) -> bool:
    """`*` in what is expected stands for any text."""
    if isinstance(expected, int):
        return expected == said
    pattern = ".*".join(map(re.escape, expected.split("*")))
    return re.fullmatch(pattern, str(said), re.DOTALL) is not None
