import json
from typing import Any

import pytest

from loadtest.engine.guided import example, guided_text, schema_of, tool_arguments

TREE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "child": {"$ref": "#/$defs/Node"},
    },
    "required": ["name"],
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {"child": {"$ref": "#/$defs/Node"}, "value": {"type": "integer"}},
            "required": ["value"],
        }
    },
}


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"type": "string", "minLength": 6}, "textxx"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "date"}, "2026-01-01"),
        ({"type": "integer"}, 0),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "integer", "exclusiveMaximum": 0}, -1),
        ({"type": "number", "minimum": 2.5}, 3.0),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "string"]}, "text"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": None}, None),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [0, 0, 0]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 0}, []),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 0),
        (
            {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"type": "integer"}}}]},
            {"a": 0},
        ),
        ({"type": "object", "required": ["free"]}, {"free": "value"}),
        ({"$ref": "#/$defs/X", "$defs": {"X": {"type": "boolean"}}}, True),
    ],
)
def test_the_document_for_a_schema(schema: dict[str, Any], document: Any) -> None:
    """Valid, and always the same."""
    assert example(schema) == document
    assert json.loads(guided_text(schema) or "") == document


def test_schemas_that_refer_to_themselves_end() -> None:
    """Optional children are left out at some depth; what is required is there at every depth."""
    node = example(TREE)
    assert node["name"] == "text"
    depth = 0
    while node := node.get("child"):
        assert isinstance(node["value"], int)
        depth += 1
    assert 0 < depth < 20
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    assert example(endless)["a"]["a"]


def test_where_schemas_come_from() -> None:
    """OpenAI's response formats and vLLM's structured outputs; free text has none."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert schema_of({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}) == schema
    assert guided_text(schema_of({"type": "json_object"})) == '{"answer":"text"}'
    assert schema_of(None, {"json": json.dumps(schema)}) == schema
    assert guided_text(schema_of(None, {"choice": ["yes", "no"]})) == "yes"
    assert guided_text(schema_of({"type": "text"})) is None
    assert guided_text(schema_of(None)) is None


def test_tool_arguments() -> None:
    """A call's arguments are an object, also for a function without parameters."""
    assert tool_arguments({"name": "f"}) == "{}"
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    assert json.loads(tool_arguments({"name": "f", "parameters": parameters})) == {"city": "text"}
