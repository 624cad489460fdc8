"""A translation that gives other events of the same bytes has a new version, so that old ledgers are due.

`tests/fixtures/translations.json` keeps each processor's version beside the digests of what it made of each
fixture. `DAYBOOK_WRITE_GOLDEN=1 pytest tests/handlers/test_versions.py` writes it anew: where a known fixture
is translated otherwise, only once the processor's `version` is raised.
"""

import gzip
import json
import os
from datetime import datetime
from hashlib import sha256
from typing import Any

import pytest
from msgspec import to_builtins

from handlers import PROCESSORS
from service.core.delivery import Processor, Proof
from service.intake.translation import read_delivery
from service.intake.versions import VERSIONS
from tests.handlers.deliveries import FAMILIES, PROOF, STRIPE
from tests.support.modes import live
from tests.support.paths import FIXTURES
from tests.support.senders import SENDERS

KEPT = FIXTURES / "translations.json"
OLD = FIXTURES / "old_ledger" / "deliveries.jsonl.gz"


def digest(processor: Processor, body: bytes, proof: Proof) -> str:
    """What a delivery says by its translator, in short."""
    incoming = read_delivery(processor, b"{}", body, proof, live)
    events = to_builtins(incoming.events)
    for event, made in zip(events, incoming.events, strict=True):
        event["data"] = [made.type, to_builtins(made.data)]
    said = json.dumps([events, incoming.reason], sort_keys=True, default=str)
    return sha256(said.encode()).hexdigest()[:8]


def translations(processor: Processor) -> dict[str, str]:
    """The digests of all fixtures of a processor, by name."""
    digests = {}
    for number, line in enumerate(gzip.decompress(OLD.read_bytes()).splitlines(), start=1):
        delivery = json.loads(line)
        if delivery["path"].split("/")[2] == processor.name:
            body, proof = delivery["body"].encode(), proved(delivery)
            digests[f"old_ledger/{number}"] = digest(processor, body, proof)
    for path in sorted(path for family in FAMILIES for path in (STRIPE / family).glob("*.json")):
        if processor.name == "stripe":
            digests[f"{path.parent.name}/{path.stem}"] = digest(processor, path.read_bytes(), PROOF)
    return digests


def proved(delivery: dict[str, Any]) -> Proof:
    """The proof that an endpoint gives of a signed delivery."""
    sender = next(sender for sender in SENDERS if sender.path == delivery["path"])
    body, at = delivery["body"].encode(), datetime.fromisoformat(delivery["at"])
    signed = sender.sign(body, at, delivery["headers"].get("webhook-id", ""), sender.secret)
    place = {":name": "acme", ":token": sender.secret}
    headers = {name.lower(): value for name, value in signed.items()} | place
    endpoint = next(
        endpoint
        for processor in PROCESSORS
        for endpoint in processor.endpoints
        if endpoint.path.count("/") == sender.path.count("/")
        and endpoint.path.split("/")[2] == sender.path.split("/")[2]
    )
    return endpoint.verify(headers, body, [sender.secret], at)


@pytest.mark.parametrize("processor", VERSIONS)
def test_what_is_translated_otherwise_has_a_new_version(processor: str) -> None:
    kept = json.loads(KEPT.read_text())
    made = translations(next(each for each in PROCESSORS if each.name == processor))
    before = kept.get(processor, {"version": 0, "digests": {}})
    changed = [name for name, value in made.items() if before["digests"].get(name, value) != value]

    if changed:
        assert VERSIONS[processor] > before["version"], f"raise the version of {processor}: {changed}"
    if os.environ.get("DAYBOOK_WRITE_GOLDEN"):
        before = kept[processor] = {"version": VERSIONS[processor], "digests": made}
        KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    assert before == {"version": VERSIONS[processor], "digests": made}, "write translations.json anew"
