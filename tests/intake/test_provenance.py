"""A delivery's signature is checked again, long after it was made, over the bytes as they are kept."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from handlers import PROCESSORS
from service.bootstrap import open_ledger, prepare
from service.core.delivery import Proof
from service.core.errors import Integrity
from service.core.events import CustomerErased, Event
from service.intake.provenance import trace
from service.intake.translation import read_delivery
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.storage.database import ledger_path
from tests.support.modes import live
from tests.support.running import NOW, settings_for
from tests.support.senders import MX, MX_TOKEN, SIGNING, STANDARD, STRIPE, Sender, secret

ROUTES = {
    STRIPE.path: {},
    MX.path: {},
    MX_TOKEN.path: {"token": MX_TOKEN.secret},
    STANDARD.path: {"name": "acme"},
}
NO_SECRET = "no secret that is configured now made this signature"
OTHERS = {
    "stripe_webhook_secrets": "whsec_another_of_the_tests",
    "mxmerchant_webhook_secrets": secret("another of the tests"),
    "standard_webhook_secrets": f"acme={secret('another of the tests')}",
}


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    prepare(settings_for(tmp_path))
    opened = open_ledger(settings_for(tmp_path))
    yield opened
    await opened.close()


def delivered(sender: Sender) -> Incoming:
    """What a sender posts, proved and read as the web process does it."""
    in_path = ROUTES[sender.path]
    route = sender.path if not in_path else sender.path.rpartition("/")[0] + "/{" + min(in_path) + "}"
    processor, endpoint = next(
        (each, endpoint) for each in PROCESSORS for endpoint in each.endpoints if endpoint.path == route
    )
    body = json.encode(sender.event("1", 500))
    signed = {name.lower(): text for name, text in sender.sign(body, NOW, "msg_1", sender.secret).items()}
    of_path = {f":{name}": text for name, text in in_path.items()}
    proof = endpoint.verify({**signed, **of_path}, body, [sender.secret], NOW)
    return read_delivery(processor, json.encode(signed), body, proof, live)


async def checked(ledger: Ledger, incoming: Incoming, **settings: Any) -> dict[str, Any]:
    """The delivery of the ledger's first event, as it proves now."""
    cause = incoming.events[0].cause, incoming.events[0].account
    async with ledger.reading() as reader:
        (event,) = await trace(reader, [cause, cause], settings_for(Path(), **settings))
    assert (event["cause"], event["position"]) == (cause[0], 1)
    delivery: dict[str, Any] = event["delivery"]
    return delivery


@pytest.mark.parametrize("sender", SIGNING, ids=lambda sender: sender.name)
async def test_what_was_signed_verifies_as_long_as_its_secret_is_there(
    ledger: Ledger, sender: Sender
) -> None:
    incoming = delivered(sender)
    await ledger.append([incoming], NOW)

    now = await checked(ledger, incoming)
    rolling = await checked(
        ledger,
        incoming,
        stripe_webhook_secrets=f"whsec_a-new-one-of-the-tests,{STRIPE.secret}",
        mxmerchant_webhook_secrets=f"{secret('a new one of the tests')},{MX.secret}",
        standard_webhook_secrets=f"acme={secret('a new one of the tests')},acme={STANDARD.secret}",
    )
    rolled = await checked(ledger, incoming, **OTHERS)
    removed = await checked(ledger, incoming, **dict.fromkeys(OTHERS, ""))

    assert (now["verified"], now["why"]) == (rolling["verified"], rolling["why"]) == (True, None)
    assert (rolled["verified"], rolled["why"]) == (removed["verified"], removed["why"]) == (None, NO_SECRET)
    assert now["signed_at"] == "2025-11-13T10:30:00Z"
    assert now["body_bytes"] == len(incoming.body)


@pytest.mark.parametrize("column", ["headers", "body", "proof"])
async def test_bytes_that_were_tampered_with_are_told(ledger: Ledger, tmp_path: Path, column: str) -> None:
    incoming = delivered(STRIPE)
    await ledger.append([incoming], NOW)
    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection, connection:
        (kept,) = connection.execute(f"SELECT {column} FROM deliveries").fetchone()
        changed = kept[:-9] + bytes([kept[-9] ^ 1]) + kept[-8:]
        connection.execute(f"UPDATE deliveries SET {column} = ?", [changed])

    found = await checked(ledger, incoming)

    assert (found["verified"], found["why"]) == (False, "what is kept is not what was recorded")


async def test_a_body_put_in_the_place_of_what_was_sealed_is_told(ledger: Ledger, tmp_path: Path) -> None:
    incoming = delivered(STRIPE)
    await ledger.append([incoming], NOW)
    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection, connection:
        connection.execute("UPDATE deliveries SET body = ?", [incoming.body.replace(b"500", b"900")])

    assert (await checked(ledger, incoming))["verified"] is False


async def test_a_delivery_that_was_moved_away_is_told(ledger: Ledger, tmp_path: Path) -> None:
    incoming = delivered(STRIPE)
    await ledger.append([incoming], NOW)
    with closing(sqlite3.connect(ledger_path(tmp_path))) as connection, connection:
        connection.execute("DELETE FROM deliveries")

    found = await checked(ledger, incoming)

    assert (found["verified"], found["why"], found["method"]) == (
        None,
        "its bytes are kept here no more",
        None,
    )


async def test_what_told_of_a_customer_who_was_erased_can_be_checked_no_more(ledger: Ledger) -> None:
    incoming = delivered(STRIPE)
    await ledger.append([incoming], NOW)
    forgotten = Event(
        processor="stripe", event_id="erased", occurred_at=NOW, data=CustomerErased(customer_id="cus_1")
    )
    proof = Proof(processor="stripe", method="operator", received_at=NOW)
    told = Incoming(events=[forgotten], content_digest=b"", headers=b"{}", body=b"{}", proof=proof)
    await ledger.append([told], NOW)

    found = await checked(ledger, incoming)

    assert (found["verified"], found["body_bytes"], found["method"]) == (None, None, "stripe-signature")
    assert "erased" in found["why"]


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("url-token", "it came by a URL token, which signs nothing"),
        ("fetch", "it was fetched from the processor's API"),
        ("import", "it was imported from a file"),
        ("operator", "it came without a signature"),
    ],
)
async def test_what_nobody_signed_says_how_it_came(ledger: Ledger, method: str, why: str) -> None:
    signed = delivered(MX)
    proof = Proof(processor=MX.processor, method=method, received_at=NOW, trust="unsigned")
    incoming = Incoming(
        events=signed.events, content_digest=b"", headers=b"{}", body=signed.body, proof=proof
    )
    await ledger.append([incoming], NOW)

    found = await checked(ledger, incoming)

    assert (found["verified"], found["why"], found["method"]) == (None, why, method)


async def test_no_secret_is_shown(ledger: Ledger) -> None:
    for sender in (*SIGNING, MX_TOKEN):
        incoming = delivered(sender)
        await ledger.append([incoming], NOW)
        async with ledger.reading() as reader:
            cause = incoming.events[0].cause, incoming.events[0].account
            told = json.encode(await trace(reader, [cause], settings_for(Path())))
        assert sender.secret.encode() not in told


async def test_a_cause_that_the_ledger_lacks_is_a_fault(ledger: Ledger) -> None:
    async with ledger.reading() as reader:
        with pytest.raises(Integrity, match="the ledger holds no event stripe:evt_gone"):
            await trace(reader, [("stripe:evt_gone", "")], settings_for(Path()))
