"""JSON Schemas in few words, for the description of the API."""

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
    """A field that may be null, and when it is."""
    return {
        **field,
        "type": [field["type"], "null"],
        "description": f"{field['description']}; null {when}",
    }


def ratio(formula: str, whole: str) -> Schema:
    """A quotient of sums; it is null where what it is divided by is 0."""
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


def shape(fields: dict[str, Schema], names: str, **own: Schema) -> Schema:
    """An object of these fields, in their order; one with a question mark may be left out.

    A field is described as `fields` has it, unless `own` says it otherwise.
    """
    stated = [name.partition("?") for name in names.split()]
    return {
        "type": "object",
        "properties": {name: own.get(name) or fields[name] for name, _, _ in stated},
        "required": [name for name, optional, _ in stated if not optional],
    }
