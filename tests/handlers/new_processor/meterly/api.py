"""Meterly's API: events, open bills and contracts in numbered pages, and single objects."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from handlers.meterly.objects import contract
from msgspec import Raw, Struct, json
from msgspec.structs import replace

from service.core.delivery import Confirmations
from service.core.events import Event, Invoice, Payment, Subscription
from service.core.processor_api import (
    Api,
    ContractList,
    EventLog,
    ListedEvent,
    LiveObjects,
    Page,
    Repetition,
    Request,
)

UNSIGNED, FETCHED = ":unsigned", ":fetched"


class _Page(Struct):
    things: list[Raw]
    pages: int
    total: int


class _LoggedEvent(Struct):
    created: int
    event: Raw


def read_page(body: bytes, request: Request) -> Page:
    """A page; the next one has the next number."""
    page, number = json.decode(body, type=_Page), int(request.query["page"])
    following = {"page": number + 1} if number < page.pages else None
    return Page(objects=tuple(map(bytes, page.things)), next_query=following, count=page.total)


def id_of(body: bytes) -> str:
    """The id of an event; of an object its own."""
    payload = json.decode(body)
    return str(payload.get("id") or payload.get(payload["kind"], ""))


def _listed(path: str) -> Callable[[str], Request]:
    return lambda _account: Request(path=path, query={"page": 1})


def _listed_events(_account: str, since: int, until: int) -> Request:
    return Request(path="/events", query={"page": 1, "from": since, "to": until})


def _read_event(body: bytes, account: str) -> ListedEvent:
    logged = json.decode(body, type=_LoggedEvent)
    payload = json.decode(logged.event)
    return ListedEvent(
        event_id=payload["id"],
        type=payload["kind"],
        account=account,
        created=logged.created,
        body=bytes(logged.event),
        is_used=payload["kind"] != "weather",
        is_pending=False,
        kind=payload["kind"],
        object_id=payload.get(payload["kind"], ""),
        customer_id=payload.get("customer", ""),
    )


def _contract_events(record: Any, now: datetime) -> list[Event]:
    event_id = f"contract:{record['contract']}@{now.isoformat()}"
    data = contract(record)
    return [Event(processor="meterly", event_id=event_id, occurred_at=now, trust="fetched", data=data)]


def _missing_contract(data: Subscription, _account: str, _count: int) -> dict[str, Any] | None:
    if data.status == "deleted":
        return None
    known = {"contract": data.subscription_id, "customer": data.customer_id, "cents": 0}
    return {"id": f"end:{data.subscription_id}", "kind": "contract", "status": "deleted"} | known


def _receipt_request(event: Event) -> Request | None:
    return Request(path=f"/receipts/{event.data.payment_id}") if isinstance(event.data, Payment) else None


def _confirm(fetched: Any, notification: Event, _now: datetime) -> Event | None:
    if not fetched["settled"]:
        return None
    data = replace(notification.data, amount=fetched["cents"], awaits_confirmation=False)
    event_id = CONFIRMATIONS.fetched_id(notification.event_id)
    return replace(notification, event_id=event_id, trust="fetched", data=data)


CONFIRMATIONS = Confirmations(
    unsigned_suffix=UNSIGNED,
    fetched_suffix=FETCHED,
    confirmable=(Payment,),
    fetched=_receipt_request,
    confirm=_confirm,
    read_again=lambda fetched, proof, _event_id, notification: (
        [event] if notification and (event := _confirm(fetched, notification, proof.received_at)) else []
    ),
)

API = Api(
    title="Meterly",
    settings=("meterly_api_key", "meterly_api_url"),
    url_setting="meterly_api_url",
    headers=lambda values: {"X-Meterly-Key": values["meterly_api_key"]},
    own_account=lambda _values: "",
    read_page=read_page,
    id_of=id_of,
    repetition=Repetition(attempts=2, first_wait_seconds=0.1, max_wait_seconds=1.0),
    requests_per_second=1_000,
    timeout_seconds=10.0,
    events=EventLog(days=30, listed=_listed_events, read=_read_event),
    objects=(
        LiveObjects(
            name="bill",
            recorded_as=Invoice,
            listed=_listed("/bills"),
            fetched=lambda _account, bill_id: Request(path=f"/bills/{bill_id}"),
            is_live=lambda status: status == "open",
        ),
    ),
    contracts=ContractList(
        name="contract",
        figures="MRR and next bills",
        recorded_as=Subscription,
        listed=_listed("/contracts"),
        events=_contract_events,
        missing=_missing_contract,
        is_live=lambda status: status == "active",
    ),
)
