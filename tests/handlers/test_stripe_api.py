"""The requests to Stripe's API, and its answers: pages after an object, events, live objects."""

import json
from typing import Any

import pytest

from handlers.stripe.api import API, read_event, read_page
from service.core.errors import Unreadable
from service.core.processor_api import Request

LIST = Request(path="/v1/invoices")
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "type": "invoice.paid",
    "created": 1_700_000_000,
    "pending_webhooks": 1,
    "data": {"object": {"object": "invoice", "id": "in_1", "customer": {"id": "cus_1"}}},
}


def test_each_request_has_the_key_and_the_version_that_is_read_here() -> None:
    assert API.headers({"stripe_api_key": "sk_live_example"}) == {
        "Authorization": "Bearer sk_live_example",
        "Stripe-Version": "2025-08-27.basil",
    }


def test_what_a_connected_account_has_is_asked_for_in_its_name() -> None:
    [subscriptions, invoices] = API.objects

    assert subscriptions.listed("") == Request(path="/v1/subscriptions", query={"limit": 100})
    assert invoices.listed("acct_1") == Request(
        path="/v1/invoices", query={"limit": 100, "status": "open"}, headers={"Stripe-Account": "acct_1"}
    )
    assert invoices.fetched("", "in_1/void?").path == "/v1/invoices/in_1%2Fvoid%3F"


def test_a_page_keeps_the_bytes_of_its_objects_and_the_next_begins_after_the_last() -> None:
    body = b'{"data": [{"id":  "in_2"}, {"id": "in_1", "a": 1.50}], "has_more": true}'

    page = read_page(body, LIST)

    assert page.objects == (b'{"id":  "in_2"}', b'{"id": "in_1", "a": 1.50}')
    assert page.next_query == {"starting_after": "in_1"}
    assert read_page(body.replace(b"true", b"false"), LIST).next_query is None


@pytest.mark.parametrize("body", [b"[]", b'{"data": []}', b'{"data": [1], "has_more": true}', b"\xff"])
def test_an_answer_that_is_no_page_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        read_page(body, LIST)


def test_an_event_of_a_connected_account_gets_the_account_that_its_list_leaves_out() -> None:
    own, theirs = json.dumps(EVENT, indent=1).encode(), json.dumps(EVENT | {"account": "acct_1"}).encode()

    assert (read_event(own, "").account, read_event(own, "").body) == ("", own)
    assert (read_event(theirs, "").account, read_event(theirs, "").body) == ("acct_1", theirs)
    added = read_event(own, "acct_1")
    assert (added.account, json.loads(added.body)) == ("acct_1", EVENT | {"account": "acct_1"})


def test_an_event_names_its_object_and_customer_and_says_whether_it_is_used() -> None:
    event = read_event(json.dumps(EVENT).encode(), "")

    assert (event.kind, event.object_id, event.customer_id) == ("invoice", "in_1", "cus_1")
    assert (event.is_used, event.is_pending) == (True, True)
    customer = {"object": {"object": "customer", "id": "cus_2"}}
    of_customer = EVENT | {"type": "customer.updated", "data": customer}
    assert read_event(json.dumps(of_customer).encode(), "").customer_id == "cus_2"
    attached = EVENT | {"type": "payment_method.attached", "pending_webhooks": 0}
    event = read_event(json.dumps(attached).encode(), "")
    assert (event.is_used, event.is_pending) == (False, False)


# History


def test_no_list_asks_for_an_expansion_that_is_too_deep() -> None:
    asked = [each.listed("", None) for each in API.history]
    asked += [nested.listed("", "x") for each in API.history for nested in each.nested]
    paths = [path for request in asked for path in request.optional.get("expand[]", ())]

    assert "data.payments" in paths
    assert max(path.count(".") for path in paths) < 4


def test_all_subscriptions_are_listed_those_created_since_a_second_and_in_an_account() -> None:
    [subscriptions] = [each for each in API.history if each.name == "subscriptions"]

    request = subscriptions.listed("acct_1", 1_700_000_000)

    assert request.query == {"limit": 100, "status": "all", "created[gte]": 1_700_000_000}
    assert request.headers == {"Stripe-Account": "acct_1"}


def test_ids_that_an_account_may_choose_are_those_of_the_account() -> None:
    ids = {each.name: (each.observed_id("", "x"), each.observed_id("acct_1", "x")) for each in API.history}

    assert ids["products"] == ids["prices"] == ids["customers"] == ("x", "acct_1:x")
    assert ids["invoices"] == ("x", "x")


def test_an_object_that_shows_a_part_of_a_list_gets_all_of_it() -> None:
    [invoices] = [each for each in API.history if each.name == "invoices"]
    lines, _payments = invoices.nested
    body = (
        b'{"id": "in_1", "amount": 1.50, "lines": {"data": [{"id": "il_1"}], "has_more": true, "url": "u"}}'
    )

    filled = lines.fill(body, [b'{"id": "il_1"}', b'{"id":  "il_2"}'])

    assert [lines.is_part(each) for each in (body, filled, b'{"id": "in_1"}', b'{"lines": null}')] == [
        True,
        False,
        False,
        False,
    ]
    assert filled == (
        b'{"id":"in_1","amount":1.50,'
        b'"lines":{"data":[{"id": "il_1"},{"id":  "il_2"}],"has_more":false,"url":"u"}}'
    )
    assert lines.listed("", "in_1/x").path == "/v1/invoices/in_1%2Fx/lines"
