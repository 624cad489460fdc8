"""MX Merchant: contract records and notifications, through a relay that signs or directly by URL token.

MX Merchant signs nothing and gives its events no id. A contract record is the state of a contract when
it is observed; a notification reports what happened to one payment.
"""

import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import replace

from handlers.standard import normalize, parse, verify_signature
from handlers.times import cut_time
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

KEY_PATTERN = "[A-Za-z0-9_-]{1,100}"
_NumericKey = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Key = Annotated[str, Meta(pattern=rf"\A{KEY_PATTERN}\Z")] | _NumericKey
OptionalKey = Annotated[str, Meta(max_length=100)] | _NumericKey | None
Amount = str | int | float


class _CustomerObject(Struct, frozen=True, rename="camel"):
    """A customer object inside a record."""

    id: OptionalKey = None
    name: str | None = None


class _Record(Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of contracts, notifications and fetched payments alike. A blank value counts as missing."""

    id: Key
    merchant_id: OptionalKey = None
    customer: _CustomerObject | str | None = None
    customer_id: OptionalKey = None
    customer_number: OptionalKey = None
    customer_name: str | None = None
    currency_code: str | None = None
    currency: str | None = None


class _Contract(_Record, frozen=True, kw_only=True, rename="camel"):
    """A contract record. `every` is the schedule ("4 Weeks"); without it `interval` may say "Once".

    `on` is the day of its bills: of the month ("31"), of the week, or a date.
    """

    merchant_id: Key
    every: str | None = None
    interval: Any = None
    amount: Amount
    status: Annotated[str, Meta(min_length=1, max_length=100)]
    start_date: str | None = None
    on: Any = None
    next_bill_date: str | None = None
    last_invoice_date: str | None = None
    has_declined_payment: bool | None = None


class _Notification(_Record, frozen=True, kw_only=True, rename="camel"):
    """A notification of a type that the books use. One of a decline may lack the amount.

    A retry is another payment; `invoice_number` joins it to the tries before it.
    """

    merchant_id: Key
    total_amount: Amount | None = None
    transaction_date: str | None = None
    payment_id: OptionalKey = None
    original_payment_id: OptionalKey = None
    original_id: OptionalKey = None
    invoice_number: Any = None


class _FetchedPayment(_Record, frozen=True, kw_only=True, rename="camel"):
    """A payment from the API; a refund is a payment with a negative amount. `invoice` is a number."""

    amount: Amount | None = None
    status: str | None = None
    created: str | None = None
    auth_only: bool | None = None
    invoice: Any = None


# Verification


def verify_relay(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:
    """Prove a delivery that a relay signed with Standard Webhooks."""
    return verify_signature(headers, body, secrets, now, processor=PROCESSOR)


def verify_token(headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: datetime) -> Proof:  # noqa: ARG001
    """Accept a delivery by the token in its path. That proves nothing about its body: trust is "unsigned"."""
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
    """The events of a body: of one notification, one contract record, or a list of contract records.

    Raises Unreadable with the events of the readable records, or with none if the body states one
    contract in two ways. Contracts that a poll will confirm have no effect until then.
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
        event_id = proof.message_id or f"contracts@{_iso_utc(observed_at)}"
        return [_event(proof, event_id=event_id, data=Unused(original_type="contracts"))]
    events_by_id: dict[tuple[str, str], Event] = {}
    errors = []
    for index, record in enumerate(records):
        try:
            record_events = contract_events(record, observed_at, proof.trust, proof.message_id)
        except Unreadable as error:
            errors.append(f"records[{index}]: {error}")
            continue
        for event in record_events:
            if events_by_id.setdefault((event.account, event.event_id), event) != event:
                raise Unreadable(f"records[{index}]: a contract is stated twice, in two ways")
    readable = (
        _withhold_until_polled(events_by_id.values()) if proof.confirmable else list(events_by_id.values())
    )
    if errors:
        suffix = f"; and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise Unreadable(errors[0] + suffix, readable)
    return readable


def _withhold_until_polled(events: Iterable[Event]) -> list[Event]:
    """Unproved contracts as `Unused` events: the books get the contracts from the next poll of the API."""
    return [
        replace(event, data=Unused(original_type="contract", customer_id=event.data.customer_id))
        for event in events
        if isinstance(event.data, Subscription)
    ]


# Contracts

_ANCHORED = ("month", "year")  # only these have a day of the month
_DAY_OF_MONTH = re.compile(r"0?([1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?")
_EVERY = re.compile(r"([1-9][0-9]{0,2}|1000) (day|week|month|year)s?", re.IGNORECASE)


def contract_events(
    record: Any, observed_at: datetime, trust: str = "fetched", message_id: str | None = None
) -> list[Event]:
    """The events of an observed contract record: its subscription, and its customer's name if it has one.

    A record has no time of its own, so a later observation replaces an earlier one. Raises Unreadable.
    """
    contract = parse(record, _Contract)
    customer_id, name = _customer(contract)
    if customer_id is None:
        raise Unreadable("`$.customerName` is missing, and no id stands for it")
    key = f"contract:{contract.merchant_id}:{contract.id}@{_iso_utc(observed_at)}"
    event = Event(
        processor=PROCESSOR,
        account=str(contract.merchant_id),
        event_id=f"{message_id}:{contract.id}" if message_id else key,
        occurred_at=observed_at.astimezone(UTC),
        trust=trust,
        data=normalize(_subscription(contract, customer_id), "$"),
    )
    return _with_name(check_limits(event), customer_id, name)


def _subscription(contract: _Contract, customer_id: str) -> Subscription:
    interval, every = _cadence(contract)
    currency = _currency(contract)
    status = (
        contract.status.lower()
    )  # "cancelled" stays so: it is not the terminal "canceled", it may come back
    price = to_minor(_parse_decimal(contract.amount, "$.amount"), currency)
    start = _parse_date(contract.start_date, "$.startDate")
    return Subscription(
        subscription_id=str(contract.id),
        customer_id=customer_id,
        status=status,
        currency=currency,
        items=(Item(interval=interval, every=every, unit_amount=price),),
        next_bill_on=_parse_date(contract.next_bill_date, "$.nextBillDate"),
        anchor_on=start if interval in _ANCHORED else None,
        anchor_day=_day_of_month(contract.on) if interval in _ANCHORED else None,
        counts_from_on=start if status == "active" else None,
        last_invoice_on=_last_invoice(contract),
        declined=bool(contract.has_declined_payment),
    )


def _last_invoice(contract: _Contract) -> date | None:
    """The day of the last bill; None where it can't be read, since no other figure needs it."""
    with suppress(Unreadable):
        return _parse_date(contract.last_invoice_date, "$.lastInvoiceDate")
    return None


def _day_of_month(stated: Any) -> int | None:
    """The day of the month in a record's `on`; None for another word."""
    match = _DAY_OF_MONTH.fullmatch(str(stated).strip())
    return int(match[1]) if match else None


def _cadence(contract: _Contract) -> tuple[Any, int]:
    schedule = contract.interval if contract.every is None else contract.every
    if str(schedule).lower() == "once":
        return "once", 1
    match = _EVERY.fullmatch(contract.every or "")
    if match is None:
        raise Unreadable("`$.every` is no interval that is known")
    return match[2].lower(), int(match[1])


# Notifications

_NOTIFICATIONS: dict[str, tuple[type[Data], str]] = {
    "PaymentSuccess": (Payment, "succeeded"),
    "PaymentFail": (Payment, "failed"),
    "RefundCreated": (Refund, "succeeded"),
    "Chargeback": (Dispute, "lost"),
}
_ID_FIELDS = {Payment: "payment_id", Refund: "refund_id", Dispute: "dispute_id"}
_TRUST_SUFFIX = {"signed": "", "unsigned": ":unsigned", "fetched": ":fetched"}


def _notification_events(payload: dict[str, Any], proof: Proof) -> list[Event]:
    """The events of a notification. Their ids are made of (merchantId, eventType, id) and the trust."""
    event_type = payload["eventType"]
    if not isinstance(event_type, str) or not 0 < len(event_type) <= 100:
        raise Unreadable("`$.eventType` is no type's name")
    if event_type not in _NOTIFICATIONS:
        return [_unused(payload, event_type, proof)]
    notification = parse(payload, _Notification)
    customer_id, name = _customer(notification)
    occurred_at = _transaction_time(notification.transaction_date) or proof.signed_at or proof.received_at
    event = Event(
        processor=PROCESSOR,
        account=str(notification.merchant_id),
        event_id=f"{notification.merchant_id}:{event_type}:{notification.id}{_TRUST_SUFFIX[proof.trust]}",
        occurred_at=normalize(occurred_at, "$.transactionDate"),
        rank=CREATED,  # so that its confirmation comes after it
        trust=proof.trust,
        data=_notification_data(
            notification,
            *_NOTIFICATIONS[event_type],
            customer_id,
            occurred_at,
            awaits_confirmation=proof.confirmable,
        ),
    )
    return _with_name(event, customer_id, name)


def _notification_data(
    notification: _Notification,
    data_type: type[Data],
    status: str,
    customer_id: str | None,
    occurred_at: datetime,
    *,
    awaits_confirmation: bool,
) -> Data:
    currency = _currency(notification)
    total = notification.total_amount
    if total in (None, "") and (status == "failed" or awaits_confirmation):
        total = 0  # no money came, or the fetch brings the amount
    amount = _parse_minor("" if total is None else total, currency, "$.totalAmount")
    fields = {
        "payment_id": _first_stated(
            notification.payment_id, notification.original_payment_id, notification.original_id
        ),
        "created_at": occurred_at,
        _ID_FIELDS[data_type]: str(notification.id),
        "status": status,
        "currency": currency,
        "amount": amount if data_type is Payment else abs(amount),  # a refund's total is negative
        "customer_id": customer_id,
        "invoice_id": _first_stated(notification.invoice_number),
        "awaits_confirmation": awaits_confirmation,
    }
    data: Data = normalize(parse(fields, data_type), "$")
    return data


def _unused(payload: dict[str, Any], event_type: str, proof: Proof) -> Event:
    """The event of a notification that has no effect. It may lack any key except its type."""
    account, key = (_first_stated(payload.get(name)) for name in ("merchantId", "id"))
    key = key or proof.message_id or _iso_utc(proof.received_at)
    return _event(
        proof,
        account=account or "",
        event_id=f"{account or ''}:{event_type}:{key}{_TRUST_SUFFIX[proof.trust]}",
        data=Unused(original_type=event_type, customer_id=_customer_id_of(payload)),
    )


def _customer_id_of(payload: dict[str, Any]) -> str | None:
    """The customer id of a payload whose other fields are unknown; None if it has none."""
    try:
        return _customer(parse({**payload, "id": 0}, _Record))[0]
    except Unreadable:
        return None


# Confirmations

# The meaning of a fetched status for each kind of data. Any other status leaves it open, and uncounted.
_STATUS_OF_PAID = {"approved": "succeeded", "settled": "succeeded"}
_STATUS_MEANINGS: dict[type[Data], dict[str, str]] = {
    # A payment that was charged back was paid first; its dispute is an event of its own.
    Payment: _STATUS_OF_PAID | {"chargedback": "succeeded", "declined": "failed", "voided": "failed"},
    Refund: _STATUS_OF_PAID | {"declined": "failed", "voided": "canceled"},
    Dispute: {"chargedback": "lost"},
}
_OPEN_STATUS = {Payment: "pending", Refund: "pending", Dispute: "under_review"}
UNSETTLED = frozenset(_OPEN_STATUS.values())  # a fetched payment with such a status confirms nothing yet


def confirmation(payment: dict[str, Any], notification_event: Event, observed_at: datetime) -> Event:
    """The event that confirms an unsigned notification by its payment as fetched from the API.

    Amount, status and customer are those of the fetched payment, or of the notification where the payment
    lacks them. A sale confirms no refund and a refund no sale. Raises Unreadable if the payment is another
    one, can't be read, or has neither amount nor status.
    """
    fetched, data, account = (
        parse(payment, _FetchedPayment),
        notification_event.data,
        notification_event.account,
    )
    if not isinstance(data, Payment | Refund | Dispute):
        raise Unreadable("there is nothing to confirm")
    if str(fetched.id) != api_payment_id(data) or _first_stated(fetched.merchant_id) not in (None, account):
        raise Unreadable("the payment fetched is not the one in the notification")
    if fetched.amount is None and not fetched.status:
        raise Unreadable("the payment fetched has neither amount nor status")
    currency = _currency(fetched, data.currency)
    amount = None if fetched.amount is None else _parse_minor(fetched.amount, currency, "$.amount")
    # For a dispute the API returns the disputed payment, whose creation is not that of the dispute.
    created_at = None if isinstance(data, Dispute) else _parse_moment(fetched.created, "$.created")
    occurred_at = min(normalize(created_at or notification_event.occurred_at, "$.created"), observed_at)
    confirmed = {
        "status": _confirmed_status(data, fetched.status, amount),
        "currency": currency,
        "amount": data.amount if amount is None else abs(amount),
        "customer_id": _customer(replace(fetched, merchant_id=account))[0] or data.customer_id,
        "awaits_confirmation": False,
    }
    if isinstance(data, Refund):
        confirmed["created_at"] = occurred_at
    if isinstance(data, Payment):
        confirmed["invoice_id"] = data.invoice_id or _first_stated(fetched.invoice)
    return replace(
        notification_event,
        event_id=notification_event.event_id.removesuffix(_TRUST_SUFFIX["unsigned"])
        + _TRUST_SUFFIX["fetched"],
        occurred_at=occurred_at,
        rank=UPDATED,
        trust="fetched",
        data=normalize(replace(data, **confirmed), "$"),
    )


_LISTED_TYPES = ("PaymentSuccess", "PaymentFail", "RefundCreated")


def listed_payment_event(record: Any, merchant_id: str, observed_at: datetime) -> Event | None:
    """The event of a payment or refund in the API's list, as if it had been notified and then confirmed.

    None while it has not settled, or if it is a mere authorisation. Raises Unreadable.
    """
    fetched = parse(record, _FetchedPayment)
    if fetched.amount is None:
        raise Unreadable("the payment listed has no amount")
    key = str(fetched.id)
    data: Payment | Refund = Payment(payment_id=key, status="succeeded", currency="usd", amount=0)
    failed = _STATUS_MEANINGS[Payment].get((fetched.status or "").lower()) == "failed"
    event_type = "PaymentFail" if failed else "PaymentSuccess"
    if _parse_decimal(fetched.amount, "$.amount") < 0:
        data = Refund(refund_id=key, status="succeeded", currency="usd", amount=0, created_at=observed_at)
        event_type = "RefundCreated"
    event = Event(
        processor=PROCESSOR,
        account=merchant_id,
        event_id=f"{merchant_id}:{event_type}:{key}",
        occurred_at=observed_at,
        data=data,
    )
    confirmed = confirmation(record, event, observed_at)
    is_settled = getattr(confirmed.data, "status", "") not in UNSETTLED
    return confirmed if is_settled and not fetched.auth_only else None


def payment_event_ids(merchant_id: str, key: str, trust: str) -> list[str]:
    """The event ids under which the ledger may hold a payment or refund, for one trust."""
    return [f"{merchant_id}:{kind}:{key}{_TRUST_SUFFIX[trust]}" for kind in _LISTED_TYPES]


def api_payment_id(data: Payment | Refund | Dispute) -> str:
    """The id of a notified payment, refund or dispute in the API."""
    key: str = getattr(data, _ID_FIELDS[type(data)])
    return key


def _confirmed_status(data: Payment | Refund | Dispute, status: str | None, amount: int | None) -> str:
    if amount is not None and not isinstance(data, Dispute) and (amount < 0) != isinstance(data, Refund):
        return "failed"
    return (
        _STATUS_MEANINGS[type(data)].get(status.lower(), _OPEN_STATUS[type(data)]) if status else data.status
    )


def changed_events(events: Iterable[Event], last_known: Mapping[str, Data]) -> list[Event]:
    """The events of one poll whose data differ from the last known, at most one for each subject.

    `last_known` is the last known data by subject. Several contracts may name one customer: the last in
    the order of event ids counts, so that two spellings of a name do not alternate for ever. The name of
    an erased customer is never recorded again.
    """
    by_subject = {
        subject: event for event in sorted(events, key=lambda e: e.event_id) for subject in subjects(event)
    }
    return [
        event
        for subject, event in by_subject.items()
        if last_known.get(subject) != event.data and not isinstance(last_known.get(subject), CustomerErased)
    ]


# Fields


def _customer(record: _Record) -> tuple[str | None, str | None]:
    """The id and name of a record's customer: an id made of merchant and name, else the one stated.

    Some records of a customer have a name alone, others a number, too.
    """
    customer = (
        record.customer
        if isinstance(record.customer, _CustomerObject)
        else _CustomerObject(name=record.customer)
    )
    name = _first_stated(record.customer_name, customer.name)
    if not name:
        return _first_stated(record.customer_id, customer.id, record.customer_number), None
    digest = sha256(f"{record.merchant_id}\0{name}".encode()).hexdigest()
    return f"mx_{digest[:20]}", name


def _with_name(event: Event, customer_id: str | None, name: str | None) -> list[Event]:
    """An event, and a second one with its customer's name: names are stored in no other data."""
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


def _first_stated(*values: Any) -> str | None:
    """The first value that is a non-blank string or a number other than 0."""
    return next(
        (
            str(value)
            for value in values
            if isinstance(value, str | int) and str(value).strip() not in ("", "0")
        ),
        None,
    )


def _iso_utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _currency(record: _Record, default: str = "usd") -> str:
    currency = (_first_stated(record.currency_code, record.currency) or default).lower()
    if not re.fullmatch("[a-z]{3}", currency):
        raise Unreadable("`$.currencyCode` is no currency")
    return currency


def _parse_decimal(amount: Amount, path: str) -> Decimal:
    """An amount exactly as written. The `repr` of a JSON number is its shortest text."""
    text = amount if isinstance(amount, str) else repr(amount)
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", text):
        raise Unreadable(f"`{path}` is no decimal amount")
    return Decimal(text)


def _parse_minor(amount: Amount, currency: str, path: str) -> int:
    minor = to_minor(_parse_decimal(amount, path), currency)
    if minor != int(minor):
        raise Unreadable(f"`{path}` has more digits than its currency")
    return int(minor)


_NO_DATE = "0001-"  # what .NET writes for a date that is not set


def _parse_moment(value: str | None, path: str) -> datetime | None:
    if not value or value.startswith(_NO_DATE):
        return None
    try:
        moment = datetime.fromisoformat(cut_time(value))
    except ValueError:
        raise Unreadable(f"`{path}` is no time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_date(value: str | None, path: str) -> date | None:
    """The date part, without a zone: "2025-11-20T00:00:00Z" is 20 November in every zone."""
    if not value or value.startswith(_NO_DATE):
        return None
    try:
        return date.fromisoformat(re.split("[T ]", value, maxsplit=1)[0])
    except ValueError:
        raise Unreadable(f"`{path}` is no date") from None


def _transaction_time(value: str | None) -> datetime | None:
    """The moment, in UTC, of a text such as "Aug 9 2018  6:21PM"; None of a blank one."""
    if not value or not value.strip():
        return None
    try:
        return datetime.strptime(" ".join(value.split()), "%b %d %Y %I:%M%p").replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable("`$.transactionDate` is no time such as Aug 9 2018 6:21PM") from None
