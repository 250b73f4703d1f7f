"""What trtllm-serve says it is: one name, and its version (tensorrt_llm/serve/openai_server.py)."""

from router.engines.fingerprint import Fingerprint, Question, Subject, cards_of, names_of, version_in


def trtllm_questions(subject: Subject) -> tuple[Question, ...]:
    def models(content: bytes) -> Fingerprint:
        return _models(subject, content)

    return (
        Question("/v1/models", frozenset({"names", "model"}), models),
        Question("/version", frozenset({"engine_version"}), version_in),
    )


def _models(subject: Subject, content: bytes) -> Fingerprint:
    """A model that is a directory is listed by the directory's last name. Adapters are not listed."""
    listed = names_of(cards_of(content))
    same = any(name.rpartition("/")[2] == subject.name.rpartition("/")[2] for name in listed)
    names = (*listed, subject.name) if same and subject.name not in listed else listed
    return Fingerprint(
        names=None if subject.is_adapter else names, model=listed[0] if len(listed) == 1 else None
    )
