"""Reading a JSON body into a request, and FastAPI's answers to bodies that cannot be read.

Only the first mistake is told; a real server tells them all.
"""

import json
import re
from typing import Any, Final, TypeVar

import msgspec

from loadtest.engine.dialect import Refusal, Request, Response
from loadtest.engine.vllm_errors import VllmError, invalid_body

Body = TypeVar("Body", bound=msgspec.Struct)

_PATH: Final = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING: Final = re.compile(r"missing required field `([^`]*)`")
_KINDS: Final = (
    ("Expected `int", "int_parsing", "Input should be a valid integer, unable to parse string as an integer"),
    (
        "Expected `float",
        "float_parsing",
        "Input should be a valid number, unable to parse string as a number",
    ),
    ("Expected `bool", "bool_parsing", "Input should be a valid boolean, unable to interpret input"),
    ("Expected `array", "list_type", "Input should be a valid list"),
    ("Expected `object", "dict_type", "Input should be a valid dictionary"),
    ("Expected `str", "string_type", "Input should be a valid string"),
)


def decode_body(request: Request, kind: type[Body]) -> Body:
    """The body as a request of this kind; raises Refusal with vLLM's 400."""
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise invalid_body(
            "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed"
        )
    value = _parsed(request.body)
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _misfit(value, str(error)) from error


def _parsed(body: bytes) -> Any:
    if not body:
        raise _validation_error("missing", "body", "Field required", "None")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _no_json(body) from error
    if not isinstance(value, dict):
        message = "Input should be a valid dictionary or object to extract fields from"
        raise _validation_error("model_attributes_type", "body", message, _shown(value))
    return value


def _no_json(body: bytes) -> Refusal:
    try:
        json.loads(body.decode())
    except UnicodeDecodeError:
        return Refusal(Response.of_json({"detail": "There was an error parsing the body"}, 400))
    except json.JSONDecodeError as error:
        where = f"body.{error.pos}"
        return _validation_error(
            "json_invalid", where, "JSON decode error", "<dict of 0 items>", ctx={"error": error.msg}
        )
    return _validation_error("json_invalid", "body", "JSON decode error", "<dict of 0 items>")


def _misfit(value: dict[str, Any], complaint: str) -> VllmError:
    """What pydantic says about the first field that does not fit."""
    path = _PATH.search(complaint)
    where = "body" + (f".{path[1]}" if path and path[1] else "")
    missing = _MISSING.search(complaint)
    if missing is not None:
        return _validation_error("missing", f"{where}.{missing[1]}", "Field required", _shown(value))
    found = next(((kind, text) for start, kind, text in _KINDS if complaint.startswith(start)), None)
    kind, text = found or ("value_error", complaint)
    return _validation_error(kind, where, text, _shown(value.get(where.removeprefix("body."))))


def _validation_error(kind: str, where: str, message: str, shown: object, **more: object) -> VllmError:
    problem = {"type": kind, "loc": where, "msg": message, "input": shown, **more}
    return invalid_body(f"1 validation error:\n  {problem!r}", where)


def _shown(value: object) -> object:
    """Containers are told by their size only."""
    if isinstance(value, dict | list):
        return f"<{type(value).__name__} of {len(value)} items>"
    return value
