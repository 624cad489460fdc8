"""MX Merchant's objects, as far as they are read. A blank value counts as missing."""

from typing import Annotated, Any

from msgspec import Meta, Struct

KEY_PATTERN = "[A-Za-z0-9_-]{1,100}"
_NumericKey = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Key = Annotated[str, Meta(pattern=rf"\A{KEY_PATTERN}\Z")] | _NumericKey
OptionalKey = Annotated[str, Meta(max_length=100)] | _NumericKey | None
Amount = str | int | float


class CustomerObject(Struct, frozen=True, rename="camel"):
    """A customer object inside a record."""

    id: OptionalKey = None
    name: str | None = None


class Record(Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of contracts, notifications and fetched payments alike. A blank value counts as missing."""

    id: Key
    merchant_id: OptionalKey = None
    customer: CustomerObject | str | None = None
    customer_id: OptionalKey = None
    customer_number: OptionalKey = None
    customer_name: str | None = None
    currency_code: str | None = None
    currency: str | None = None


class Contract(Record, frozen=True, kw_only=True, rename="camel"):
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


class EndedContract(Struct, frozen=True, kw_only=True, rename="camel"):
    """The fields of a contract record that has ended: they are enough whatever else it holds."""

    id: Key
    merchant_id: Key
    status: Annotated[str, Meta(min_length=1, max_length=100)]


class Notification(Record, frozen=True, kw_only=True, rename="camel"):
    """A notification of a type that the books use. One of a decline may lack the amount.

    A retry is another payment; `invoice_number` joins it to the tries before it.
    """

    total_amount: Amount | None = None
    transaction_date: str | None = None
    payment_id: OptionalKey = None
    original_payment_id: OptionalKey = None
    original_id: OptionalKey = None
    invoice_number: Any = None


class FetchedPayment(Record, frozen=True, kw_only=True, rename="camel"):
    """A payment from the API; a refund is a payment with a negative amount. `invoice` is a number."""

    original_payment_id: OptionalKey = None
    amount: Amount | None = None
    status: str | None = None
    created: str | None = None
    auth_only: bool | None = None
    invoice: Any = None
