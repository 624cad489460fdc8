"""Thin events of Stripe: which are fetched, which are not, and how what they name is asked for."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import stripe

from handlers.stripe import PROCESSOR
from handlers.stripe.envelope import ignore, translate
from handlers.stripe.thin_events import SEMANTIC_TYPES, THIN_EVENTS
from handlers.stripe.translations import OBSERVED_TYPES, is_used
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Customer, Product, Subscription, ThinEvent, Unused
from tests.handlers.deliveries import NOW, PROOF, delivery, read

SDK = Path(stripe.__file__).parent


def thin(kind: str = "v1.customer.subscription.updated", **fields: Any) -> dict[str, Any]:
    return {
        "id": "evt_thin_1",
        "object": "v2.core.event",
        "type": kind,
        "livemode": True,
        "created": "2025-11-13T10:00:00.123456789Z",
        "related_object": {"id": "sub_1", "type": "subscription", "url": "/v1/subscriptions/sub_1"},
        **fields,
    }


def test_a_thin_event_says_what_is_to_be_fetched_and_when_it_happened() -> None:
    event = read(thin(snapshot_event="evt_1", context="org_1/acct_1"))

    assert event.data == ThinEvent(
        original_type="v1.customer.subscription.updated",
        snapshot_id="evt_1",
        object_type="subscription",
        object_id="sub_1",
        context="org_1/acct_1",
    )
    assert (event.event_id, event.account) == ("evt_thin_1", "acct_1")
    assert event.occurred_at == datetime(2025, 11, 13, 10, 0, 0, 123456, UTC)


def snapshot_types() -> set[str]:
    """The types of snapshot events of the installed package."""
    return set(re.findall(r'^        "([a-z0-9_.]+)",$', (SDK / "_event.py").read_text(), re.MULTILINE))


def thin_types() -> set[str]:
    """The types of thin events of the installed package."""
    sources = [path.read_text() for path in (SDK / "events").glob("_v*_event.py")]
    return {name for source in sources for name in re.findall(r'LOOKUP_TYPE = "([a-z0-9_.]+)"', source)}


def test_every_thin_type_with_a_snapshot_that_the_books_use_is_fetched_and_no_other() -> None:
    fetched = {kind for kind in thin_types() if isinstance(read(thin(kind)).data, ThinEvent)}

    assert fetched == {f"v1.{kind}" for kind in snapshot_types() if is_used(kind)} & thin_types()
    assert len(fetched) > 40


def test_the_semantic_types_are_those_that_have_no_snapshot() -> None:
    used = {kind for kind in thin_types() if kind.startswith("v1.") and is_used(kind[3:])}

    assert {kind for kind in used if kind[3:] not in snapshot_types()} == SEMANTIC_TYPES


@pytest.mark.parametrize("kind", ["v2.core.event_destination.ping", "v1.customer.subscription.item_added"])
def test_a_type_that_is_not_fetched_is_unused(kind: str) -> None:
    assert read(thin(kind, related_object=None)).data == Unused(original_type=kind)


def test_a_thin_event_of_the_other_mode_is_ignored() -> None:
    event = ignore(thin(livemode=False), PROOF, "live")

    assert event
    assert event.data == Unused(
        original_type="v1.customer.subscription.updated", ignored="test mode", event_id="evt_thin_1"
    )
    assert ignore(thin(), PROOF, "live") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"created": 1763028000},
        {"created": "2025-11-13T10:00Z"},
        {"id": None},
        {"related_object": "sub_1"},
        {"context": "acct_1\nHost: example.com"},
    ],
)
def test_a_thin_event_of_an_unknown_shape_is_unreadable(fields: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        translate(thin(**fields), PROOF)


def asked(**fields: Any) -> list[tuple[str, dict[str, str]]]:
    """The requests for what a thin event names: the event itself, its snapshot, its object."""
    data = read(thin(**fields)).data
    assert isinstance(data, ThinEvent)
    requests = [
        THIN_EVENTS.event("evt_thin_1", data),
        THIN_EVENTS.snapshot("evt_1", data),
        THIN_EVENTS.shown(data),
    ]
    return [(request.path, dict(request.headers)) for request in requests if request]


def test_all_three_are_asked_for_in_the_context_that_the_event_states() -> None:
    of_account = {"Stripe-Context": "acct_1"}

    assert asked(context="acct_1") == [
        ("/v2/core/events/evt_thin_1", {**of_account, "Stripe-Version": "2026-10-28.endive"}),
        ("/v1/events/evt_1", of_account),
        ("/v1/subscriptions/sub_1", of_account),
    ]
    assert asked()[1:] == [("/v1/events/evt_1", {}), ("/v1/subscriptions/sub_1", {})]


def test_an_address_in_a_delivery_is_never_asked() -> None:
    elsewhere = {"id": "../accounts?x=", "type": "invoice", "url": "https://example.com/v1/invoices"}

    assert asked(related_object=elsewhere)[2:] == [("/v1/invoices/..%2Faccounts%3Fx%3D", {})]


@pytest.mark.parametrize("related", [None, {"type": "discount"}, {"type": "payment_intent", "id": "pi_1"}])
def test_an_object_of_which_an_observation_tells_too_little_is_not_asked_for(related: Any) -> None:
    assert len(asked(related_object=related)) == 2


def test_the_snapshot_of_the_whole_thin_event_is_read() -> None:
    assert THIN_EVENTS.snapshot_id(json.dumps(thin(snapshot_event="evt_1")).encode()) == "evt_1"
    assert THIN_EVENTS.snapshot_id(json.dumps(thin()).encode()) is None
    for body in (b"<html>", b"[]", b'{"object": "list"}'):
        with pytest.raises(Unreadable):
            THIN_EVENTS.snapshot_id(body)


OBSERVED = Proof(
    processor="stripe", method="fetch", received_at=NOW, trust="fetched", message_id="evt_thin_1"
)


def test_an_object_that_was_fetched_is_observed_then_under_the_id_of_the_thin_event() -> None:
    (event,) = translate(delivery("customer.subscription.created")["data"]["object"], OBSERVED)

    assert isinstance(event.data, Subscription)
    assert (event.event_id, event.occurred_at, event.trust) == ("evt_thin_1", NOW, "fetched")


def test_a_customer_or_product_that_was_deleted_is_shown_as_that() -> None:
    shown = [
        translate({"id": f"{kind}_1", "object": kind, "deleted": True}, OBSERVED)[0].data
        for kind in ("customer", "product")
    ]

    assert shown == [
        Customer(customer_id="customer_1", deleted=True),
        Product(product_id="product_1", deleted=True),
    ]


def test_all_objects_that_are_observed_have_the_plural_of_their_name_as_their_path() -> None:
    paths = {
        re.search(r'"/v1/([a-z_]+)/\{', source).group(1)  # type: ignore[union-attr]
        for kind in OBSERVED_TYPES
        for source in [(SDK / f"_{kind}_service.py").read_text()]
    }

    assert paths == {f"{kind}s" for kind in OBSERVED_TYPES}


def test_content_of_a_thin_event_is_never_taken_for_a_rendering_of_its_object() -> None:
    assert THIN_EVENTS.is_thin(thin())
    assert not THIN_EVENTS.is_thin(delivery("customer.subscription.created"))
    assert PROCESSOR.thin_events is THIN_EVENTS
