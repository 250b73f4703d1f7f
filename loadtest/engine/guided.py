"""Guided decoding without a model: the one document that a simulated engine writes for a JSON schema or a
function.

The document is valid for the schema and depends on the schema alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

_DEPTH: Final = 8
"""Below this, optional parts of recursive schemas are left out."""
_DEEPEST: Final = 64
"""Below this nothing is written: only a schema that no document fits goes so deep."""


def schema_of(
    response_format: Mapping[str, Any] | None, structured_outputs: Mapping[str, Any] | None = None
) -> Mapping[str, Any] | None:
    """The JSON schema that a request asks for, in OpenAI's or vLLM's words; None for free text."""
    if structured_outputs:
        if structured_outputs.get("choice"):
            return {"enum_text": list(structured_outputs["choice"])}
        schema = structured_outputs.get("json")
        if isinstance(schema, str):
            schema = msgspec.json.decode(schema)
        if isinstance(schema, Mapping):
            return schema
        return _ANY_OBJECT if structured_outputs.get("json_object") else None
    kind = (response_format or {}).get("type")
    if kind == "json_object":
        return _ANY_OBJECT
    if kind == "json_schema" and response_format is not None:
        return ((response_format.get("json_schema") or {}).get("schema")) or _ANY_OBJECT
    return None


_ANY_OBJECT: Final[Mapping[str, Any]] = {"type": "object", "properties": {"answer": {"type": "string"}}}


def guided_text(schema: Mapping[str, Any] | None) -> str | None:
    """The document as text; None for no schema."""
    if schema is None:
        return None
    if "enum_text" in schema:
        return str(schema["enum_text"][0])
    return msgspec.json.encode(example(schema)).decode()


def tool_arguments(function: Mapping[str, Any]) -> str:
    """The arguments of the call that a simulated engine makes of a function."""
    return msgspec.json.encode(example(function.get("parameters") or {"type": "object"})).decode()


def example(schema: Any, root: Mapping[str, Any] | None = None, depth: int = 0) -> Any:
    """A value that is valid for the schema."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return example(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options or schema.get("allOf"):
        return example(_simplest(options) if options else _merged(schema["allOf"], root), root, depth + 1)
    return _by_type(schema, root, depth)


def _by_type(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "null")
    if kind == "object" or (kind is None and "properties" in schema):
        return _object(schema, root, depth)
    if kind == "array":
        items = max(schema.get("minItems", 0), 1 if depth < _DEPTH else 0)
        items = min(items, schema.get("maxItems", items))
        return [example(schema.get("items", {"type": "string"}), root, depth + 1) for _ in range(items)]
    if kind in ("integer", "number"):
        return _number(schema, kind)
    if kind == "boolean":
        return True
    return None if kind == "null" else _string(schema)


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    required = set(schema.get("required", ()))
    properties = schema.get("properties", {})
    value = {
        name: example(part, root, depth + 1)
        for name, part in properties.items()
        if name in required or depth < _DEPTH
    }
    return value | {name: "value" for name in schema.get("required", ()) if name not in properties}


def _number(schema: Mapping[str, Any], kind: str) -> int | float:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum")
    if low is None and "exclusiveMinimum" in schema:
        low = schema["exclusiveMinimum"] + step
    high = schema.get("maximum")
    if high is None and "exclusiveMaximum" in schema:
        high = schema["exclusiveMaximum"] - step
    value = max(low, -(-low // step) * step) if low is not None else 0 if high is None else min(0, high)
    return int(value) if kind == "integer" else float(value)


_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "date": "2026-01-01",
        "time": "12:00:00Z",
        "date-time": "2026-01-01T12:00:00Z",
        "email": "someone@example.com",
        "uuid": "00000000-0000-4000-8000-000000000000",
        "uri": "https://example.com/",
        "ipv4": "192.0.2.1",
    }
)


def _string(schema: Mapping[str, Any]) -> str:
    text = _FORMATS.get(schema.get("format", ""), "text")
    text = text.ljust(schema.get("minLength", 0), "x")
    return text[: schema.get("maxLength", len(text))]


def _simplest(options: list[Any]) -> Any:
    """The first alternative that refers to nothing and is not null, else the first."""
    plain = [option for option in options if isinstance(option, Mapping) and "$ref" not in option]
    return next((option for option in plain if option.get("type") != "null"), options[0])


def _merged(parts: list[Any], root: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for part in parts:
        resolved = _resolve(part["$ref"], root) if "$ref" in part else part
        for word, value in resolved.items():
            if word == "properties":
                merged[word] = merged.get(word, {}) | value
            elif word == "required":
                merged[word] = [*merged.get(word, ()), *value]
            else:
                merged[word] = value
    return merged


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    """A `#/...` pointer into the same schema; anything else means any text."""
    value: Any = root
    for part in filter(None, reference.removeprefix("#").split("/")):
        if not isinstance(value, Mapping) or part not in value:
            return {"type": "string"}
        value = value[part]
    return value
