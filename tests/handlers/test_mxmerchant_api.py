"""The requests to MX Merchant's API, and its answers: pages by offset, payments by their id."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.mxmerchant.api import API, payment_request, read_page
from service.core.errors import Unreadable
from service.core.events import Data, Dispute, Payment, Refund
from service.core.processor_api import Request
from tests.support.events import event

MONEY: dict[str, Any] = {"status": "succeeded", "currency": "usd", "amount": 1_111}


def page(records: list[Any], count: int, offset: int = 0) -> Any:
    body = json.dumps({"recordCount": count, "records": records}, indent=2).encode()
    return read_page(body, Request(path="/checkout/v3/contract", query={"offset": offset}))


def test_each_request_has_the_consumers_key_and_secret() -> None:
    values = {"mxmerchant_consumer_key": "k", "mxmerchant_consumer_secret": "s"}

    assert API.headers(values) == {"Authorization": "Basic azpz", "Accept": "application/json"}


def test_a_list_is_of_the_merchant_from_its_start() -> None:
    assert API.payments
    assert API.payments.listed("1000000001") == Request(
        path="/checkout/v3/payment", query={"merchantId": "1000000001", "limit": 100, "offset": 0}
    )


def test_a_page_says_where_the_next_one_begins_and_the_last_one_does_not() -> None:
    first, last, none = page([{"id": 1}, {"id": "2"}], 3), page([{"id": 3}], 3, 2), page([], 0)

    assert [API.id_of(body) for body in first.objects] == ["1", "2"]
    assert (first.next_query, first.count) == ({"offset": 2}, 3)
    assert (last.next_query, none.next_query) == (None, None)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"records": []}', "recordCount"),
        (b'{"recordCount": 3, "records": []}', "after 0 of 3 records"),
        (b"<html>", "no JSON"),
        (b"\xff", "no JSON"),
    ],
)
def test_an_answer_that_is_no_whole_page_is_unreadable(body: bytes, said: str) -> None:
    with pytest.raises(Unreadable, match=said):
        read_page(body, Request(path="/checkout/v3/contract", query={"offset": 0}))


@pytest.mark.parametrize(
    "data",
    [
        Payment(payment_id="7", **MONEY),
        Refund(refund_id="7", payment_id="1", created_at=datetime(2025, 11, 12, tzinfo=UTC), **MONEY),
        Dispute(dispute_id="7", **MONEY),
    ],
)
def test_a_payment_a_refund_and_a_dispute_are_asked_for_by_their_own_ids(data: Data) -> None:
    assert payment_request(event(data, "2025-11-12")) == Request(path="/checkout/v3/payment/7")


@pytest.mark.parametrize("payment_id", ["..", "../contract", "5?echo=true", "5/void", "a b"])
def test_an_id_names_no_other_path(payment_id: str) -> None:
    assert payment_request(event(Payment(payment_id=payment_id, **MONEY), "2025-11-12")) is None
