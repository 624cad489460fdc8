"""Stripe's API: its list of events, and the objects that are live.

Source: https://docs.stripe.com/api/pagination, https://docs.stripe.com/api/events,
https://docs.stripe.com/rate-limits.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from msgspec import DecodeError, Raw, Struct, json
from msgspec.structs import replace

from handlers.stripe.translations import is_used
from service.core.errors import Unreadable
from service.core.events import ENDED_STATUSES, Invoice, Subscription
from service.core.processor_api import (
    Api,
    EventLog,
    ListedEvent,
    LiveObjects,
    Page,
    Query,
    Repetition,
    Request,
)

VERSION = "2025-08-27.basil"  # the API version whose objects are read here
PAGE_SIZE = 100

T = TypeVar("T")


def _headers(values: Mapping[str, str]) -> dict[str, str]:
    return {"Authorization": f"Bearer {values['stripe_api_key']}", "Stripe-Version": VERSION}


def _request(path: str, account: str, query: Query = {}) -> Request:  # noqa: B006 - nobody changes it
    """A request for what belongs to an account: a connected one, or "" for the key's own."""
    return Request(path=path, query=query, headers={"Stripe-Account": account} if account else {})


def check_mode_of_key(key: str | None, earlier: Mapping[str, Any]) -> None:
    """Raise ValueError if a key says that it is of the other mode: sk_live_…, rk_test_…."""
    mode = earlier.get("stripe_mode")
    stated = re.match("[a-z]+_(live|test)_", key or "")
    if mode and stated and stated[1] != mode:
        raise ValueError(f"a key of {mode} mode, as DAYBOOK_STRIPE_MODE says, not of {stated[1]} mode")


# Lists


class _Page(Struct, frozen=True):
    """A page of a list. An answer without `has_more` is refused as no list."""

    data: list[Raw]
    has_more: bool


class _Identified(Struct, frozen=True):
    id: str


def read_page(body: bytes, _request: Request) -> Page:
    """A page, and the last object on it, after which the next one begins. Raises Unreadable."""
    page = _decode(body, _Page)
    objects = tuple(bytes(item) for item in page.data)
    last = {"starting_after": _decode(objects[-1], _Identified).id} if objects else {}
    return Page(objects=objects, next_query=last if page.has_more else None)


def _decode(body: bytes, shape: type[T]) -> T:
    try:
        return json.decode(body, type=shape)
    except (DecodeError, UnicodeDecodeError):
        raise Unreadable("it has no shape that is known") from None


def _id_of(body: bytes) -> str:
    try:
        return json.decode(body, type=_Identified).id
    except (DecodeError, UnicodeDecodeError):
        return ""


# Events


class _EventObject(Struct, frozen=True):
    object: str | None = None
    id: str | None = None
    customer: Any = None


class _EventData(Struct, frozen=True):
    object: _EventObject


class _Event(Struct, frozen=True):
    """The fields of a listed event that decide whether it is recorded."""

    id: str
    type: str
    created: int
    data: _EventData
    account: str | None = None
    pending_webhooks: int = 0


def _listed_events(account: str, since: int, until: int) -> Request:
    query = {"limit": PAGE_SIZE, "created[gte]": since, "created[lte]": until}
    return _request("/v1/events", account, query)


def read_event(body: bytes, account: str) -> ListedEvent:
    """An event in an account's list. Its body gets the account where it lacks it, as a webhook has it."""
    event = _decode(body, _Event)
    if account and not event.account:
        event = replace(event, account=account)
        body = json.encode({**json.decode(body, type=dict[str, Raw]), "account": account})
    payload = event.data.object
    return ListedEvent(
        event_id=event.id,
        type=event.type,
        account=event.account or "",
        created=event.created,
        body=body,
        is_used=is_used(event.type),
        is_pending=event.pending_webhooks > 0,
        kind=payload.object or "",
        object_id=payload.id or "",
        customer_id=_customer_id(payload),
    )


def _customer_id(payload: _EventObject) -> str:
    customer = payload.customer.get("id") if isinstance(payload.customer, dict) else payload.customer
    customer_id = payload.id if payload.object == "customer" else customer
    return customer_id if isinstance(customer_id, str) else ""


# Objects


def _listed(path: str, query: Query, account: str) -> Request:
    return _request(path, account, {"limit": PAGE_SIZE, **query})


def _fetched(path: str, account: str, object_id: str) -> Request:
    return _request(f"{path}/{quote(object_id, safe='')}", account)


def _live_objects(
    name: str, path: str, recorded_as: type[Any], is_live: Callable[[str], bool], **query: str
) -> LiveObjects:
    return LiveObjects(
        name=name,
        recorded_as=recorded_as,
        listed=partial(_listed, path, query),
        fetched=partial(_fetched, path),
        is_live=is_live,
    )


API = Api(
    title="Stripe",
    settings=("stripe_api_key",),
    url_setting="stripe_api_url",
    base_url="https://api.stripe.com",
    headers=_headers,
    own_account=lambda _values: "",
    connects=True,
    read_page=read_page,
    id_of=_id_of,
    repetition=Repetition(
        attempts=8, first_wait_seconds=0.5, max_wait_seconds=60.0, advice="Stripe-Should-Retry"
    ),
    requests_per_second=25,  # Stripe's limit in test mode, a quarter of that in live mode
    timeout_seconds=30.0,
    events=EventLog(days=30, listed=_listed_events, read=read_event),
    objects=(
        # The list without a status has all subscriptions but the canceled ones.
        _live_objects(
            "subscription", "/v1/subscriptions", Subscription, lambda status: status not in ENDED_STATUSES
        ),
        # The books call an open invoice failed after a failed attempt.
        _live_objects(
            "invoice", "/v1/invoices", Invoice, lambda status: status in {"open", "failed"}, status="open"
        ),
    ),
)
