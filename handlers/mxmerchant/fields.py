"""Fields of MX Merchant's objects: customers, amounts and times."""

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from handlers.mxmerchant.payloads import Amount, CustomerObject, Record
from handlers.times import cut_time
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import Customer, Data, Event
from service.core.money import to_minor

NAME = "mxmerchant"
TRUST_SUFFIX = {
    "signed": "",
    "unsigned": ":unsigned",
    "fetched": ":fetched",
}  # of the ids of payments' events


def customer_of(record: Record) -> tuple[str | None, str | None]:
    """The id and name of a record's customer: an id made of merchant and name, else the one stated.

    Some records of a customer have a name alone, others a number, too.
    """
    customer = (
        record.customer
        if isinstance(record.customer, CustomerObject)
        else CustomerObject(name=record.customer)
    )
    name = first_stated(record.customer_name, customer.name)
    if not name:
        return first_stated(record.customer_id, customer.id, record.customer_number), None
    digest = sha256(f"{record.merchant_id}\0{name}".encode()).hexdigest()
    return f"mx_{digest[:20]}", name


def with_name(event: Event, customer_id: str | None, name: str | None) -> list[Event]:
    """An event, and a second one with its customer's name: names are stored in no other data."""
    if customer_id is None or name is None:
        return [event]
    data = Customer(customer_id=customer_id, name=name)
    return [event, replace(event, event_id=f"{event.event_id}:customer", data=data)]


def delivered_event(proof: Proof, *, event_id: str, data: Data, account: str = "") -> Event:
    """An event of the moment of its delivery."""
    occurred_at = (proof.signed_at or proof.received_at).astimezone(UTC)
    return Event(
        processor=NAME,
        account=account,
        event_id=event_id,
        occurred_at=occurred_at,
        trust=proof.trust,
        data=data,
    )


def first_stated(*values: Any) -> str | None:
    """The first value that is a non-blank string or a number other than 0."""
    return next(
        (
            str(value)
            for value in values
            if isinstance(value, str | int) and str(value).strip() not in ("", "0")
        ),
        None,
    )


def iso_utc(moment: datetime) -> str:
    """A moment as text, in UTC."""
    return moment.astimezone(UTC).isoformat()


def currency_of(record: Record, default: str = "usd") -> str:
    """The currency of a record, or else the default. Raises Unreadable."""
    currency = (first_stated(record.currency_code, record.currency) or default).lower()
    if not re.fullmatch("[a-z]{3}", currency):
        raise Unreadable("`$.currencyCode` is no currency")
    return currency


def parse_decimal(amount: Amount, path: str) -> Decimal:
    """An amount exactly as written. The `repr` of a JSON number is its shortest text."""
    text = amount if isinstance(amount, str) else repr(amount)
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,12})?", text):
        raise Unreadable(f"`{path}` is no decimal amount")
    return Decimal(text)


def parse_minor(amount: Amount, currency: str, path: str) -> int:
    """An amount in minor units. Raises Unreadable."""
    minor = to_minor(parse_decimal(amount, path), currency)
    if minor != int(minor):
        raise Unreadable(f"`{path}` has more digits than its currency")
    return int(minor)


_NO_DATE = "0001-"  # what .NET writes for a date that is not set


def parse_moment(value: str | None, path: str) -> datetime | None:
    """A moment, in UTC where it names no zone; None where it is not set. Raises Unreadable."""
    if not value or value.startswith(_NO_DATE):
        return None
    try:
        moment = datetime.fromisoformat(cut_time(value))
    except ValueError:
        raise Unreadable(f"`{path}` is no time") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_date(value: str | None, path: str) -> date | None:
    """The date part, without a zone: "2025-11-20T00:00:00Z" is 20 November in every zone."""
    if not value or value.startswith(_NO_DATE):
        return None
    try:
        return date.fromisoformat(re.split("[T ]", value, maxsplit=1)[0])
    except ValueError:
        raise Unreadable(f"`{path}` is no date") from None


def transaction_time(value: str | None) -> datetime | None:
    """The moment, in UTC, of a text such as "Aug 9 2018  6:21PM"; None of a blank one."""
    if not value or not value.strip():
        return None
    try:
        return datetime.strptime(" ".join(value.split()), "%b %d %Y %I:%M%p").replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable("`$.transactionDate` is no time such as Aug 9 2018 6:21PM") from None
