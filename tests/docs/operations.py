"""The examples in the API's description: those of the pages, whole.

`python -m tests.docs.operations` writes `service/web/examples.json` from the pages.
"""

import json
import re
from typing import Any

from service.web.openapi import ALL_READS, operation_id
from tests.support.paths import ROOT

PATH = ROOT / "service" / "web" / "examples.json"
PAGES = tuple((ROOT / "docs" / name).read_text("utf-8") for name in ("api.md", "customers.md"))
RECEIVED = {"received": True, "position": 41, "duplicate": False}
SET_ASIDE = {
    "history": "subscription|stripe||sub_1",
    "set_aside_at": "2025-11-13T10:30:00Z",
    "book": "mrr",
    "error": "TooMuchWork",
    "up_to": 41,
    "position": 44,
}
EMPTY = ("terms", "reasons")  # objects that are empty themselves
# Of what the pages show no answer.
OTHERS = {
    "get_healthz": {"status": "ok"},
    "get_readyz": {
        "status": "ready",
        "position": 83,
        "lag_events": {"bills": 0, "collections": 0, "customers": 0, "mrr": 0, "revenue": 0},
        "silent": [],
        "retranslation_due": [],
        "pending_fetches": [],
    },
    "post_webhooks_stripe": RECEIVED,
    "post_webhooks_mxmerchant": RECEIVED,
    "post_webhooks_mxmerchant_by_token": RECEIVED,
    "post_webhooks_standard_by_name": RECEIVED,
}


def examples() -> dict[str, Any]:
    """The example of each operation; an object that a page shows elsewhere is put in its place."""
    found: dict[str, Any] = {}
    for page in PAGES:
        shown = [
            *((_operation_of(url), text) for url, text in _blocks(r"`GET (/[^`]+)`\n\n```json", page)),
            *_blocks(r"```json ((?:get|post)_\w+)", page),
        ]
        answers = [(operation, json.loads(text)) for operation, text in shown]
        objects: dict[str, Any] = {}
        for _, answer in answers:
            _collect(answer, objects)
        for operation, answer in answers:
            found.setdefault(operation, _whole(answer, objects))
    listed = found["get_quarantine_by_id"]
    entry = {name: listed[name] for name in list(listed)[: list(listed).index("headers")]}
    found["get_quarantine"] = {
        "quarantine": [entry],
        "set_aside": [SET_ASIDE],
        "next_cursor": None,
        "next_set_aside_after": None,
        "meta": listed["meta"],
    }
    return found | {"get_ledger_event": found["get_ledger_cause"]} | OTHERS


def _blocks(begin: str, page: str) -> list[tuple[str, str]]:
    return re.findall(rf"^{begin}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def _operation_of(url: str) -> str:
    path = url.partition("?")[0]
    reads = sorted(ALL_READS, key=lambda read: "{" in read.path)
    return operation_id(
        "get",
        next(read.path for read in reads if re.fullmatch(re.sub("{.*?}", "[^/]+", read.path), path)),
    )


def _collect(value: Any, objects: dict[str, Any]) -> None:
    """The first object, and the first object in a list, under each name."""
    if isinstance(value, dict):
        for name, part in value.items():
            first = part[0] if isinstance(part, list) and part else part
            if isinstance(first, dict) and first:
                objects.setdefault(name, first)
            _collect(part, objects)
    elif isinstance(value, list):
        for part in value:
            _collect(part, objects)


def _whole(value: Any, objects: dict[str, Any], name: str = "") -> Any:
    if isinstance(value, list):
        return [_whole(part, objects, name) for part in value if part != {} or name in objects]
    if not isinstance(value, dict):
        return value
    if value == {} and name not in EMPTY:
        value = objects.get(name, {})
    like = next((part for part in value.values() if isinstance(part, dict) and part), {})
    return {
        key: like if part == {} and key not in {*objects, *EMPTY} else _whole(part, objects, key)
        for key, part in value.items()
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(examples(), indent=1, ensure_ascii=False) + "\n", "utf-8")
