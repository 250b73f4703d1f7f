"""What TGI says it is: `/info` has all of it (router/src/lib.rs, `Info`)."""

from typing import Final

from router.engines.fingerprint import (
    Fingerprint,
    Question,
    Subject,
    count_of,
    dtype_of,
    members_of,
    text_of,
)

_BASE: Final = "tgi"
"""Means the base model, whatever it is called."""
_FIELDS: Final = frozenset({"names", "model", "revision", "engine_version", "dtype", "max_model_len"})


def tgi_questions(subject: Subject) -> tuple[Question, ...]:
    def info(content: bytes) -> Fingerprint:
        return _info(subject, content)

    return (Question("/info", _FIELDS, info),)


def _info(subject: Subject, content: bytes) -> Fingerprint:
    """Adapters are not listed: of those nothing is known. Releases before 3.0 say the data type too."""
    said = members_of(content)
    model = text_of(said.get("model_id"))
    if model is None:
        raise ValueError("there is no model_id in it")
    names = (model, _BASE) if subject.name == _BASE else (model,)
    return Fingerprint(
        names=None if subject.is_adapter else names,
        model=model,
        revision=text_of(said.get("model_sha")),
        engine_version=text_of(said.get("version")),
        dtype=dtype_of(said.get("model_dtype")),
        max_model_len=count_of(said.get("max_total_tokens")),
    )
