"""MX Merchant: contract records and notifications, by a relay that signs or straight by URL token.

MX Merchant signs nothing and gives its events no id. A contract record says how a contract stands when
it is observed; a notification says what happened to one payment.
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from handlers.standard import read, settled, verify_signature
from service.core.delivery import Proof
from service.core.errors import Unreadable, VerificationError
from service.core.events import (
    CREATED,
    UPDATED,
    Customer,
    CustomerErased,
    Data,
    Dispute,
    Event,
    Item,
    Payment,
    Refund,
    Subscription,
    Unused,
    subjects,
)
from service.core.limits import check_limits
from service.core.money import to_minor

PROCESSOR = "mxmerchant"

KEY = "[A-Za-z0-9_-]{1,100}"
_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Key = Annotated[str, Meta(pattern=rf"\A{KEY}\Z")] | _Number
MaybeKey = Annotated[str, Meta(max_length=100)] | _Number | None
Amount = str | int | float


class _Party(Struct, frozen=True, rename="camel"):
    """A customer object inside a record."""

    id: MaybeKey = None
    name: str | None = None


class _Record(Struct, frozen=True, kw_only=True, rename="camel"):
    """What contracts, notifications and fetched payments have in common; blanks mean nothing."""

    id: Key
    merchant_id: MaybeKey = None
    customer: _Party | str | None = None
    customer_id: MaybeKey = None
    customer_number: MaybeKey = None
    customer_name: str | None = None
    currency_code: str | None = None
    currency: str | None = None


class _Contract(_Record, frozen=True, kw_only=True, rename="camel"):
    """A contract record. `every` states the number that `interval` only hints at, but for "Once"."""

    merchant_id: Key
    every: str | None = None
    interval: Any = None
    amount: Amount
    status: Annotated[str, Meta(min_length=1, max_length=100)]
    start_date: str | None = None
    next_bill_date: str | None = None
    has_declined_payment: bool | None = None


class _Notification(_Record, frozen=True, kw_only=True, rename="camel"):
    """A notification of a type that the books use."""

    merchant_id: Key
    total_amount: Amount
    transaction_date: str | None = None
    payment_id: MaybeKey = None
    original_payment_id: MaybeKey = None
    original_id: MaybeKey = None


class _Fetched(_Record, frozen=True, kw_only=True, rename="camel"):
    """A payment as the API answers it; a refund is one too, with a negative amount."""

    amount: Amount | None = None
    status: str | None = None
    created: str | None = None
    auth_only: bool | None = None


# Verification


def verify_relay(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery that a relay signed with Standard Webhooks."""
    return verify_signature(headers, body, secrets, now, processor=PROCESSOR)


def verify_token(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:  # noqa: ARG001
    """Know a delivery by the token in its path. That proves nothing of its body: trust is "unsigned"."""
    presented = headers.get(":token", "").encode(errors="replace")
    matches = [hmac.compare_digest(presented, token.encode()) for token in secrets if token]
    if True not in matches:
        raise VerificationError("the URL token is not known")
    return Proof(
        processor=PROCESSOR,
        method="url-token",
        received_at=now,
        trust="unsigned",
        secret=matches.index(True) + 1,
    )


# Translation


def translate(payload: Any, proof: Proof) -> list[Event]:
    """A body of either kind as events.

    Raises Unreadable with the events of those records that can be read; with none where a contract is
    stated twice, in two ways. Contracts that a poll will confirm have no effect until it does.
    """
    if not isinstance(payload, dict):
        raise Unreadable("the body is no object")
    if "eventType" in payload:
        return _notification_events(payload, proof)
    records = payload.get("records", [payload])
    if not isinstance(records, list):
        raise Unreadable("`$.records` is no list")
    observed_at = proof.signed_at or proof.received_at
    if not records:
        event_id = proof.message_id or f"contracts@{_iso(observed_at)}"
        return [_event(proof, event_id=event_id, data=Unused(original_type="contracts"))]
    events: dict[tuple[str, str], Event] = {}
    refusals = []
    for index, record in enumerate(records):
        try:
            stated = contract_events(record, observed_at, proof.trust, proof.message_id)
        except Unreadable as error:
            refusals.append(f"records[{index}]: {error}")
            continue
        for event in stated:
            if events.setdefault((event.account, event.event_id), event) != event:
                raise Unreadable(f"records[{index}]: a contract is stated twice, in two ways")
    readable = _until_polled(events.values()) if proof.confirmable else list(events.values())
    if refusals:
        others = f"; and {len(refusals) - 1} more" if len(refusals) > 1 else ""
        raise Unreadable(refusals[0] + others, readable)
    return readable


def _until_polled(events: Iterable[Event]) -> list[Event]:
    """Contracts that nothing proves, while the API can be asked: its answer will be the books', not these."""
    return [
        replace(event, data=Unused(original_type="contract", customer_id=event.data.customer_id))
        for event in events
        if isinstance(event.data, Subscription)
    ]


# Contracts

_EVERY = re.compile(r"([1-9][0-9]{0,2}|1000) (day|week|month|year)s?", re.IGNORECASE)


def contract_events(
    record: Any, observed_at: datetime, trust: str = "fetched", message_id: str | None = None
) -> list[Event]:
    """A contract record, as observed: its subscription, and beside it its customer's name.

    A record has no time of its own, so a later observation replaces an earlier one.
    """
    contract = read(record, _Contract)
    customer_id, name = _customer(contract)
    if customer_id is None:
        raise Unreadable("`$.customerName` is missing, and no id stands for it")
    key = f"contract:{contract.merchant_id}:{contract.id}@{_iso(observed_at)}"
    event = Event(
        processor=PROCESSOR,
        account=str(contract.merchant_id),
        event_id=f"{message_id}:{contract.id}" if message_id else key,
        occurred_at=observed_at.astimezone(UTC),
        trust=trust,
        data=settled(_subscription(contract, customer_id), "$"),
    )
    return _with_name(check_limits(event), customer_id, name)


def _subscription(contract: _Contract, customer_id: str) -> Subscription:
    interval, every = _cadence(contract)
    currency = _currency(contract)
    status = (
        contract.status.lower()
    )  # "cancelled" stays so: it is not the terminal "canceled", it may come back
    price = to_minor(_decimal(contract.amount, "$.amount"), currency)
    return Subscription(
        subscription_id=str(contract.id),
        customer_id=customer_id,
        status=status,
        currency=currency,
        items=(Item(interval=interval, every=every, unit_amount=price),),
        next_bill_on=_date(contract.next_bill_date, "$.nextBillDate"),
        counts_from_on=_date(contract.start_date, "$.startDate") if status == "active" else None,
        declined=bool(contract.has_declined_payment),
    )


def _cadence(contract: _Contract) -> tuple[Any, int]:
    every = contract.interval if contract.every is None else contract.every
    if str(every).lower() == "once":
        return "once", 1
    stated = _EVERY.fullmatch(contract.every or "")
    if stated is None:
        raise Unreadable("`$.every` is no interval that is known")
    return stated[2].lower(), int(stated[1])


# Notifications

_TOLD: dict[str, tuple[type[Data], str]] = {
    "PaymentSuccess": (Payment, "succeeded"),
    "PaymentFail": (Payment, "failed"),
    "RefundCreated": (Refund, "succeeded"),
    "Chargeback": (Dispute, "lost"),
}
_OWN_ID = {Payment: "payment_id", Refund: "refund_id", Dispute: "dispute_id"}
_SUFFIX = {"signed": "", "unsigned": ":unsigned", "fetched": ":fetched"}


def _notification_events(payload: dict[str, Any], proof: Proof) -> list[Event]:
    """A notification's key is (merchantId, eventType, id), and what was proved of it."""
    kind = payload["eventType"]
    if not isinstance(kind, str) or not 0 < len(kind) <= 100:
        raise Unreadable("`$.eventType` is no type's name")
    if kind not in _TOLD:
        return [_unused(payload, kind, proof)]
    told = read(payload, _Notification)
    customer_id, name = _customer(told)
    occurred_at = _told_at(told.transaction_date) or proof.signed_at or proof.received_at
    event = Event(
        processor=PROCESSOR,
        account=str(told.merchant_id),
        event_id=f"{told.merchant_id}:{kind}:{told.id}{_SUFFIX[proof.trust]}",
        occurred_at=settled(occurred_at, "$.transactionDate"),
        rank=CREATED,  # so that what confirms it comes after it
        trust=proof.trust,
        data=_told(told, *_TOLD[kind], customer_id, occurred_at, awaits_confirmation=proof.confirmable),
    )
    return _with_name(event, customer_id, name)


def _told(
    told: _Notification,
    kind: type[Data],
    status: str,
    customer_id: str | None,
    occurred_at: datetime,
    *,
    awaits_confirmation: bool,
) -> Data:
    currency = _currency(told)
    amount = _minor(told.total_amount, currency, "$.totalAmount")
    fields = {
        "payment_id": _first(told.payment_id, told.original_payment_id, told.original_id),
        "created_at": occurred_at,
        _OWN_ID[kind]: str(told.id),
        "status": status,
        "currency": currency,
        "amount": amount if kind is Payment else abs(amount),  # a refund's total is negative
        "customer_id": customer_id,
        "awaits_confirmation": awaits_confirmation,
    }
    data: Data = settled(read(fields, kind), "$")
    return data


def _unused(payload: dict[str, Any], kind: str, proof: Proof) -> Event:
    """A notification that has no effect may lack any key but its type."""
    account, key = (_first(payload.get(name)) for name in ("merchantId", "id"))
    key = key or proof.message_id or _iso(proof.received_at)
    return _event(
        proof,
        account=account or "",
        event_id=f"{account or ''}:{kind}:{key}{_SUFFIX[proof.trust]}",
        data=Unused(original_type=kind, customer_id=_whose(payload)),
    )


def _whose(payload: dict[str, Any]) -> str | None:
    """The customer of whatever is told, if it names one as all do."""
    try:
        return _customer(read({**payload, "id": 0}, _Record))[0]
    except Unreadable:
        return None


# Confirmations

# What a fetched status says of each kind; any other word leaves it open, and uncounted.
_PAID = {"approved": "succeeded", "settled": "succeeded"}
_SAYS: dict[type[Data], dict[str, str]] = {
    # A payment charged back was paid; what came of it is the dispute's to say.
    Payment: _PAID | {"chargedback": "succeeded", "declined": "failed", "voided": "failed"},
    Refund: _PAID | {"declined": "failed", "voided": "canceled"},
    Dispute: {"chargedback": "lost"},
}
_OPEN = {Payment: "pending", Refund: "pending", Dispute: "under_review"}
UNSETTLED = frozenset(_OPEN.values())  # a fetch that says so confirms nothing yet


def confirmation(payment: dict[str, Any], notification_event: Event, observed_at: datetime) -> Event:
    """What the processor itself says of a payment that an unsigned notification told.

    Amount, status and customer are the fetched record's, or the notification's where it has none. A sale
    confirms no refund and a refund no sale. Raises Unreadable where the record is another's, can't be
    read, or says neither amount nor status.
    """
    fetched, told, account = read(payment, _Fetched), notification_event.data, notification_event.account
    if not isinstance(told, Payment | Refund | Dispute):
        raise Unreadable("there is nothing to confirm")
    if str(fetched.id) != told_id(told) or _first(fetched.merchant_id) not in (None, account):
        raise Unreadable("the payment fetched is not the one that was told")
    if fetched.amount is None and not fetched.status:
        raise Unreadable("the payment fetched has neither amount nor status")
    currency = _currency(fetched, told.currency)
    amount = None if fetched.amount is None else _minor(fetched.amount, currency, "$.amount")
    # A dispute's record is the payment it is about, so its creation says nothing of the dispute.
    created_at = None if isinstance(told, Dispute) else _moment(fetched.created, "$.created")
    occurred_at = min(settled(created_at or notification_event.occurred_at, "$.created"), observed_at)
    confirmed = {
        "status": _confirmed_status(told, fetched.status, amount),
        "currency": currency,
        "amount": told.amount if amount is None else abs(amount),
        "customer_id": _customer(replace(fetched, merchant_id=account))[0] or told.customer_id,
        "awaits_confirmation": False,
    }
    if isinstance(told, Refund):
        confirmed["created_at"] = occurred_at
    return replace(
        notification_event,
        event_id=notification_event.event_id.removesuffix(_SUFFIX["unsigned"]) + _SUFFIX["fetched"],
        occurred_at=occurred_at,
        rank=UPDATED,
        trust="fetched",
        data=settled(replace(told, **confirmed), "$"),
    )


_LISTED = ("PaymentSuccess", "PaymentFail", "RefundCreated")


def listed(record: Any, merchant_id: str, observed_at: datetime) -> Event | None:
    """A payment or refund of the API's list, as a notification would have told it and a fetch confirmed it.

    None while it has not settled, or is an authorisation that takes nothing. Raises Unreadable.
    """
    fetched = read(record, _Fetched)
    if fetched.amount is None:
        raise Unreadable("the payment listed has no amount")
    key = str(fetched.id)
    told: Payment | Refund = Payment(payment_id=key, status="succeeded", currency="usd", amount=0)
    failed = _SAYS[Payment].get((fetched.status or "").lower()) == "failed"
    kind = "PaymentFail" if failed else "PaymentSuccess"
    if _decimal(fetched.amount, "$.amount") < 0:
        told = Refund(refund_id=key, status="succeeded", currency="usd", amount=0, created_at=observed_at)
        kind = "RefundCreated"
    event = Event(
        processor=PROCESSOR,
        account=merchant_id,
        event_id=f"{merchant_id}:{kind}:{key}",
        occurred_at=observed_at,
        data=told,
    )
    confirmed = confirmation(record, event, observed_at)
    settled_now = getattr(confirmed.data, "status", "") not in UNSETTLED
    return confirmed if settled_now and not fetched.auth_only else None


def event_ids(merchant_id: str, key: str, trust: str) -> list[str]:
    """The ids under which the ledger may hold a payment or refund that is known with this trust."""
    return [f"{merchant_id}:{kind}:{key}{_SUFFIX[trust]}" for kind in _LISTED]


def told_id(told: Payment | Refund | Dispute) -> str:
    """The id under which the API keeps what was told."""
    key: str = getattr(told, _OWN_ID[type(told)])
    return key


def _confirmed_status(told: Payment | Refund | Dispute, status: str | None, amount: int | None) -> str:
    if amount is not None and not isinstance(told, Dispute) and (amount < 0) != isinstance(told, Refund):
        return "failed"
    return _SAYS[type(told)].get(status.lower(), _OPEN[type(told)]) if status else told.status


def changed(events: Iterable[Event], last: Mapping[str, Data]) -> list[Event]:
    """Of one poll's events those that tell something new, one at most for each subject.

    `last` holds the data last known, by subject. Several contracts name one customer: the last in
    the order of event ids counts, so that two spellings of a name do not alternate for ever. Of one who
    was erased no name is told again.
    """
    by_subject = {
        subject: event for event in sorted(events, key=lambda e: e.event_id) for subject in subjects(event)
    }
    return [
        event
        for subject, event in by_subject.items()
        if last.get(subject) != event.data and not isinstance(last.get(subject), CustomerErased)
    ]


# Fields


def _customer(record: _Record) -> tuple[str | None, str | None]:
    """A record's customer by id and name. Without an id, a pseudonym of the name within the merchant."""
    party = record.customer if isinstance(record.customer, _Party) else _Party(name=record.customer)
    name = _first(record.customer_name, party.name)
    own = _first(record.customer_id, party.id, record.customer_number)
    if own or not name:
        return own, name
    digest = sha256(f"{record.merchant_id}\0{name}".encode()).hexdigest()
    return f"mx_{digest[:20]}", name


def _with_name(event: Event, customer_id: str | None, name: str | None) -> list[Event]:
    """An event, and beside it its customer's name: names stand in no other data."""
    if customer_id is None or name is None:
        return [event]
    data = Customer(customer_id=customer_id, name=name)
    return [event, replace(event, event_id=f"{event.event_id}:customer", data=data)]


def _event(proof: Proof, *, event_id: str, data: Data, account: str = "") -> Event:
    occurred_at = (proof.signed_at or proof.received_at).astimezone(UTC)
    return Event(
        processor=PROCESSOR,
        account=account,
        event_id=event_id,
        occurred_at=occurred_at,
        trust=proof.trust,
        data=data,
    )


def _first(*values: Any) -> str | None:
    """The first that says something: blanks, noughts and other shapes do not."""
    return next(
        (str(v) for v in values if isinstance(v, str | int) and str(v).strip() not in ("", "0")), None
    )


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _currency(record: _Record, otherwise: str = "usd") -> str:
    currency = (_first(record.currency_code, record.currency) or otherwise).lower()
    if not re.fullmatch("[a-z]{3}", currency):
        raise Unreadable("`$.currencyCode` is no currency")
    return currency


def _decimal(amount: Amount, path: str) -> Decimal:
    """An amount exactly as written. A JSON number comes as the shortest text that means it."""
    text = amount if isinstance(amount, str) else repr(amount)
    if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", text):
        raise Unreadable(f"`{path}` is no decimal amount")
    return Decimal(text)


def _minor(amount: Amount, currency: str, path: str) -> int:
    minor = to_minor(_decimal(amount, path), currency)
    if minor != int(minor):
        raise Unreadable(f"`{path}` has more digits than its currency")
    return int(minor)


_NO_DATE = "0001-"  # what .NET writes for a date that is not set


def _moment(value: str | None, path: str) -> datetime | None:
    if not value or value.startswith(_NO_DATE):
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise Unreadable(f"`{path}` is no time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _date(value: str | None, path: str) -> date | None:
    """The date part, in no zone: "2025-11-20T00:00:00Z" is 20 November wherever one is."""
    if not value or value.startswith(_NO_DATE):
        return None
    try:
        return date.fromisoformat(re.split("[T ]", value, maxsplit=1)[0])
    except ValueError:
        raise Unreadable(f"`{path}` is no date") from None


def _told_at(value: str | None) -> datetime | None:
    """The time of "Aug 9 2018  6:21PM", which is UTC."""
    if not value or not value.strip():
        return None
    try:
        return datetime.strptime(" ".join(value.split()), "%b %d %Y %I:%M%p").replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable("`$.transactionDate` is no time such as Aug 9 2018 6:21PM") from None
