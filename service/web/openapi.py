"""The API's description."""

from typing import Any


def description() -> dict[str, Any]:
    """OpenAPI 3.1."""
    return {"openapi": "3.1.0", "info": {"title": "Daybook", "version": "0.1.0"}, "paths": {}}
