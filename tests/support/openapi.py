"""Whether an answer is what the OpenAPI description says of it."""

from typing import Any

from jsonschema import Draft202012Validator

from service.web.openapi import description, schemas


def strict(schema: Any) -> Any:
    """A schema that allows no field that it does not describe."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if "properties" in schema else {}
    return closed | {name: strict(part) for name, part in schema.items()}


def is_described(answer: Any, shape: str) -> bool:
    """Whether an answer is of a shape, without a field more; raises what is wrong."""
    components = {"schemas": {name: strict(schema) for name, schema in schemas().items()}}
    whole = {"$ref": f"#/components/schemas/{shape}", "components": components}
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(answer)
    return True


def answer_schema(path: str, method: str = "get", status: str = "200") -> str:
    content = description()["paths"][path][method]["responses"][status]["content"]
    media_type = "application/json" if "application/json" in content else "application/problem+json"
    return str(content[media_type]["schema"]["$ref"]).rpartition("/")[2]


def parameters_of(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """An operation's parameters, with what operations share in its place."""
    return [_resolved(parameter) for parameter in operation.get("parameters", [])]


def _resolved(part: Any) -> Any:
    if isinstance(part, list):
        return [_resolved(each) for each in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        _, _, kind, name = part["$ref"].split("/")
        return _resolved(description()["components"][kind][name]) | {k: part[k] for k in part if k != "$ref"}
    return {name: _resolved(each) for name, each in part.items()}
