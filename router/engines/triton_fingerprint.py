"""What Triton says it is: its version, and the configuration of the model that requests call.

The name on requests is that of a model in its repository; what that runs is in the model's parameters.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from router.engines.fingerprint import Fingerprint, Question, Subject, members_of, text_of, version_in

_ARTEFACTS: Final = ("gpt_model_path", "engine_dir", "model")
"""Parameters that name what is served, in `inflight_batcher_llm` and elsewhere; the first is believed."""


def triton_questions(subject: Subject) -> tuple[Question, ...]:
    path = f"/v2/models/{quote(subject.name, safe='')}/config"
    return (
        Question(path, frozenset({"names", "model"}), _config, _refused),
        Question("/v2", frozenset({"engine_version"}), version_in),
    )


def _config(content: bytes) -> Fingerprint:
    config = members_of(content)
    name = text_of(config.get("name"))
    if name is None:
        raise ValueError("not a model's configuration")
    parameters = config.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    said = (_parameter(parameters, each) for each in _ARTEFACTS)
    return Fingerprint(names=(name,), model=next((text for text in said if text), None))


def _parameter(parameters: Mapping[str, Any], name: str) -> str | None:
    """`{"string_value": "…"}`; a template that nobody filled in, `${engine_dir}`, says nothing."""
    value = parameters.get(name)
    text = text_of(value.get("string_value")) if isinstance(value, dict) else None
    return None if text is None or text.startswith("${") else text


def _refused(status: int, content: bytes) -> Fingerprint:
    """404, and 400 of older releases: `Request for unknown model: 'x' is not found`."""
    if status in (400, 404) and "unknown model" in str(members_of(content).get("error")):
        return Fingerprint(names=())
    raise ValueError(f"answered {status}")
