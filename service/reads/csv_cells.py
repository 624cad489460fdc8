"""Values as cells of CSV (RFC 4180), safe to open in a spreadsheet."""

from typing import Any

from msgspec import json


def cell(value: Any) -> Any:
    """A value as a cell. Text that a spreadsheet would run as a formula gets a quote before it."""
    if isinstance(value, list):
        value = " ".join(str(part) for part in value)
    if isinstance(value, dict):
        value = json.encode(value).decode()
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
