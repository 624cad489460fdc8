"""MX Merchant's API: contracts and payments, in lists that are paged by offset."""

import base64
import re
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

from msgspec import DecodeError, Meta, Raw, Struct, ValidationError, json

from handlers.mxmerchant import contracts, payments
from handlers.mxmerchant.payloads import KEY_PATTERN
from service.core.errors import Unreadable
from service.core.events import Event, Subscription
from service.core.processor_api import (
    Api,
    ContractList,
    HistoryList,
    Page,
    PaymentList,
    Repetition,
    Request,
)

PAGE_SIZE = 100

T = TypeVar("T")


def _headers(values: Mapping[str, str]) -> dict[str, str]:
    credentials = f"{values['mxmerchant_consumer_key']}:{values['mxmerchant_consumer_secret']}"
    return {
        "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
        "Accept": "application/json",
    }


# Lists


class _Page(Struct, frozen=True, rename="camel"):
    record_count: Annotated[int, Meta(ge=0)]
    records: list[Raw]


class _Record(Struct, frozen=True):
    id: Any = None


def _listed(path: str, merchant_id: str) -> Request:
    return Request(path=path, query={"merchantId": merchant_id, "limit": PAGE_SIZE, "offset": 0})


def read_page(body: bytes, request: Request) -> Page:
    """A page, and the offset at which the next one begins.

    A record that comes while the list is read shifts the others to later pages, so one may be on two pages;
    none is left out. Raises Unreadable, also if the list ends before its count.
    """
    page = _decode(body, _Page)
    offset = int(request.query["offset"]) + len(page.records)
    if not page.records and offset < page.record_count:
        raise Unreadable(f"it ends the list after {offset} of {page.record_count} records")
    return Page(
        objects=tuple(map(bytes, page.records)),
        next_query={"offset": offset} if offset < page.record_count else None,
        count=page.record_count,
    )


def _id_of(body: bytes) -> str:
    return str(_decode(body, _Record).id)


def _decode(body: bytes, shape: type[T]) -> T:
    try:
        return json.decode(body, type=shape)
    except ValidationError as error:
        raise Unreadable(str(error)) from None
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise Unreadable("it is no JSON") from None


# Single payments


def payment_request(event: Event) -> Request | None:
    """The request for the payment of an event; None if its id, from an unsigned body, is none."""
    payment_id = payments.api_payment_id(event.data)
    if not re.fullmatch(KEY_PATTERN, payment_id):
        return None  # it might lead to another path
    return Request(path=f"/checkout/v3/payment/{payment_id}")


API = Api(
    title="MX Merchant",
    settings=(
        "mxmerchant_api_url",
        "mxmerchant_consumer_key",
        "mxmerchant_consumer_secret",
        "mxmerchant_merchant_id",
    ),
    url_setting="mxmerchant_api_url",
    headers=_headers,
    own_account=lambda values: values["mxmerchant_merchant_id"],
    read_page=read_page,
    id_of=_id_of,
    repetition=Repetition(attempts=4, first_wait_seconds=0.2, max_wait_seconds=10.0),
    requests_per_second=10,
    timeout_seconds=10.0,
    contracts=ContractList(
        name="contract",
        figures="MRR, contracts, next bills and forecasts",
        recorded_as=Subscription,
        listed=partial(_listed, "/checkout/v3/contract"),
        events=contracts.contract_events,
        missing=contracts.missing_contract,
        is_live=lambda status: status == "active",
        unstated=frozenset({"cancel_date"}),  # it is the day on which an end was observed
    ),
    payments=PaymentList(
        name="payment",
        listed=partial(_listed, "/checkout/v3/payment"),
        event=payments.listed_payment_event,
        event_ids=payments.payment_event_ids,
        observed=payments.observed_record,
        observed_id=payments.observed_id,
    ),
    history=(
        HistoryList(
            name="payments",
            figures="collected, refunded and disputed money, orders and revenue",
            listed=lambda merchant_id, _since: _listed("/checkout/v3/payment", merchant_id),
            observed_id=payments.observed_id,
            recorded_ids=payments.recorded_refund_ids,
            complete=payments.complete_refund,
        ),
    ),
)
