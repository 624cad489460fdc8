"""Short constructors of JSON Schemas, for the description of the API."""

from typing import Any

Schema = dict[str, Any]


def text(description: str, **more: Any) -> Schema:
    """Text."""
    return {"type": "string", "description": description, **more}


def day(description: str) -> Schema:
    """A date."""
    return text(f"{description}, such as 2025-11-13", format="date")


def moment(description: str) -> Schema:
    """A moment."""
    return text(f"{description}, RFC 3339 in UTC", format="date-time")


def count(description: str) -> Schema:
    """A whole number."""
    return {"type": "integer", "description": description}


def cents(description: str) -> Schema:
    """An amount of money."""
    return count(f"{description}, in minor units of `currency`")


def flag(description: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": description}


def or_null(field: Schema, when: str) -> Schema:
    """A field that is null in some cases; `when` describes them."""
    return {
        **field,
        "type": [field["type"], "null"],
        "description": f"{field['description']}; null {when}",
    }


def ratio(formula: str, whole: str) -> Schema:
    """A quotient of sums; null where the divisor is 0."""
    return or_null({"type": "number", "description": f"{formula}, to six digits"}, f"where {whole} is 0")


def one(name: str, description: str) -> Schema:
    """An object of a shape."""
    return {"$ref": f"#/components/schemas/{name}", "description": description}


def many(name: str, description: str) -> Schema:
    """A list of objects of a shape."""
    items = {"$ref": f"#/components/schemas/{name}"}
    return {"type": "array", "items": items, "description": description}


def texts(description: str) -> Schema:
    """A list of texts."""
    return {"type": "array", "items": {"type": "string"}, "description": description}


def shape(fields: dict[str, Schema], names: str, **overrides: Schema) -> Schema:
    """An object of the named fields, in their order; a name with a question mark is optional.

    A field has its schema from `overrides`, else from `fields`.
    """
    parts = [name.partition("?") for name in names.split()]
    return {
        "type": "object",
        "properties": {name: overrides.get(name) or fields[name] for name, _, _ in parts},
        "required": [name for name, optional, _ in parts if not optional],
    }
