"""Commands of `daybook`, run in this process."""

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import json
from typer.testing import Result

Run = Callable[..., Awaitable[Result]]


def document(result: Result, exit_code: int = 0) -> Any:
    """The document that a command printed with `--json`."""
    assert result.exit_code == exit_code, result.output
    return json.decode(result.stdout)
