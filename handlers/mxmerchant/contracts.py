"""Contract records: the state of a contract when it is observed."""

import re
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

from msgspec import to_builtins
from msgspec.structs import replace

from handlers.mxmerchant.fields import (
    NAME,
    currency_of,
    customer_of,
    iso_utc,
    parse_date,
    parse_decimal,
    with_name,
)
from handlers.mxmerchant.payloads import Contract, EndedContract, Record
from handlers.standard.translation import normalize, parse
from service.core.errors import Unreadable
from service.core.events import (
    ENDED_STATUSES,
    NO_CURRENCY,
    UNKNOWN_CUSTOMER,
    Event,
    Item,
    Subscription,
)
from service.core.limits import check_limits
from service.core.money import to_minor

MISSING_STATUS = "deleted"  # of a contract that the list no longer holds
_ENDED = ENDED_STATUSES | {"inactive"}
_ANCHORED = ("month", "year")  # only these have a day of the month
_DAY_OF_MONTH = re.compile(r"0?([1-9]|[12][0-9]|3[01])(?:st|nd|rd|th)?")
_EVERY = re.compile(r"([1-9][0-9]{0,2}|1000) (day|week|month|year)s?", re.IGNORECASE)


def contract_events(
    record: Any, observed_at: datetime, trust: str = "fetched", message_id: str | None = None
) -> list[Event]:
    """The events of an observed contract record: its subscription, and its customer's name if it has one.

    A record has no time of its own, so a later observation replaces an earlier one. Raises Unreadable unless
    the contract has ended: then it is enough to know that.
    """
    try:
        merchant_id, data, name = _read(record)
    except Unreadable as error:
        merchant_id, data, name = _read_ended(record, error)
    key = f"contract:{merchant_id}:{data.subscription_id}@{iso_utc(observed_at)}"
    event = Event(
        processor=NAME,
        account=merchant_id,
        event_id=f"{message_id}:{data.subscription_id}" if message_id else key,
        occurred_at=observed_at.astimezone(UTC),
        trust=trust,
        data=data,
    )
    return with_name(check_limits(event), data.customer_id, name)


def _read(record: Any) -> tuple[str, Subscription, str | None]:
    """The merchant of a record, its contract, and the customer's name. Raises Unreadable."""
    contract = parse(record, Contract)
    customer_id, name = customer_of(contract)
    if customer_id is None:
        raise Unreadable("`$.customerName` is missing, and no id stands for it")
    return str(contract.merchant_id), normalize(_subscription(contract, customer_id), "$"), name


def _read_ended(record: Any, error: Unreadable) -> tuple[str, Subscription, str | None]:
    """The same of a record that can't be read but for its end. Raises the error if it has not ended."""
    try:
        ended = parse(record, EndedContract)
        customer_id, name = customer_of(parse(record, Record))
    except Unreadable:
        raise error from None
    if ended.status.lower() not in _ENDED:
        raise error
    data = Subscription(
        subscription_id=str(ended.id),
        customer_id=customer_id or UNKNOWN_CUSTOMER,
        status=ended.status.lower(),
        currency=NO_CURRENCY,
        items=(),
    )
    return str(ended.merchant_id), data, name


def _subscription(contract: Contract, customer_id: str) -> Subscription:
    interval, every = _cadence(contract)
    currency = currency_of(contract)
    status = (
        contract.status.lower()
    )  # "cancelled" stays so: it is not the terminal "canceled", it may come back
    price = to_minor(parse_decimal(contract.amount, "$.amount"), currency)
    start = parse_date(contract.start_date, "$.startDate")
    return Subscription(
        subscription_id=str(contract.id),
        customer_id=customer_id,
        status=status,
        currency=currency,
        items=(Item(interval=interval, every=every, unit_amount=price),),
        next_bill_on=parse_date(contract.next_bill_date, "$.nextBillDate"),
        anchor_on=start if interval in _ANCHORED else None,
        anchor_day=_day_of_month(contract.on) if interval in _ANCHORED else None,
        counts_from_on=start if status == "active" else None,
        last_invoice_on=_last_invoice(contract),
        declined=bool(contract.has_declined_payment),
    )


def _last_invoice(contract: Contract) -> date | None:
    """The day of the last bill; None where it can't be read, since no other figure needs it."""
    with suppress(Unreadable):
        return parse_date(contract.last_invoice_date, "$.lastInvoiceDate")
    return None


def _day_of_month(stated: Any) -> int | None:
    """The day of the month in a record's `on`; None for another word."""
    match = _DAY_OF_MONTH.fullmatch(str(stated).strip())
    return int(match[1]) if match else None


def _cadence(contract: Contract) -> tuple[Any, int]:
    schedule = contract.interval if contract.every is None else contract.every
    if str(schedule).lower() == "once":
        return "once", 1
    match = _EVERY.fullmatch(contract.every or "")
    if match is None:
        raise Unreadable("`$.every` is no interval that is known")
    return match[2].lower(), int(match[1])


def missing_contract_event(payload: dict[str, Any], observed_at: datetime) -> Event:
    """The end of a contract that a full list no longer holds. Raises Unreadable.

    `payload` is what `missing_contract` made, since the list has no bytes of its own for it. No next bill is
    stated any more: the days that were due until then have come.
    """
    data = parse(payload["missing"], Subscription)
    merchant_id = str(payload.get("merchantId"))
    return Event(
        processor=NAME,
        account=merchant_id,
        event_id=f"contract:{merchant_id}:{data.subscription_id}@{iso_utc(observed_at)}",
        occurred_at=observed_at.astimezone(UTC),
        trust="fetched",
        data=replace(data, status=MISSING_STATUS, next_bill_on=None),
    )


def missing_contract(data: Subscription, merchant_id: str, record_count: int) -> dict[str, Any] | None:
    """The body by which a contract is recorded that a list of `record_count` contracts no longer holds.

    None of one that is recorded so already.
    """
    if data.status == MISSING_STATUS:
        return None
    return {"merchantId": merchant_id, "recordCount": record_count, "missing": to_builtins(data)}
