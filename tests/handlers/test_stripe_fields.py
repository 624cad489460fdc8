"""Every field of Stripe's objects of money is read, or ignored for a reason that stands in a table.

A new version of the package `stripe` that brings a field fails here: read it, or give the reason.
"""

import tomllib
from collections import Counter
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import stripe

from handlers.stripe import payloads

TABLE: dict[str, dict[str, str]] = tomllib.loads(
    (Path(__file__).parent / "stripe_ignored.toml").read_text("utf-8")
)
READ: dict[str, type[payloads.Payload]] = {
    "Subscription": payloads.Subscription,
    "Subscription.BillingCycleAnchorConfig": payloads.AnchorDay,
    "Subscription.BillingSchedule": payloads.BillingSchedule,
    "Subscription.BillingSchedule.AppliesTo": payloads.BilledPrice,
    "Subscription.BillingSchedule.BillUntil": payloads.BillUntil,
    "SubscriptionItem": payloads.SubscriptionItem,
    "SubscriptionItem.CurrentTrial": payloads.ItemTrial,
    "SubscriptionSchedule": payloads.Schedule,
    "SubscriptionSchedule.Phase": payloads.Phase,
    "SubscriptionSchedule.Phase.Discount": payloads.PhaseDiscount,
    "SubscriptionSchedule.Phase.Item": payloads.PhaseItem,
    "Price": payloads.Price,
    "Price.Recurring": payloads.Recurring,
    "Price.Tier": payloads.Tier,
    "Price.TransformQuantity": payloads.QuantityTransform,
    "TaxRate": payloads.TaxRate,
    "Discount": payloads.Discount,
    "Discount.Source": payloads.DiscountSource,
    "Coupon": payloads.Coupon,
    "Coupon.AppliesTo": payloads.CouponScope,
    "Invoice": payloads.Invoice,
    "Invoice.AutomaticTax": payloads.AutomaticTax,
    "Invoice.StatusTransitions": payloads.StatusTransitions,
    "InvoiceLineItem": payloads.InvoiceLine,
    "InvoiceLineItem.DiscountAmount": payloads.LineDiscount,
    "InvoiceLineItem.Parent": payloads.LineParent,
    "InvoiceLineItem.Parent.SubscriptionItemDetails": payloads.LineOrigin,
    "InvoiceLineItem.Pricing": payloads.Pricing,
    "InvoiceLineItem.Tax": payloads.LineTax,
    "InvoicePayment": payloads.InvoicePayment,
    "InvoicePayment.Payment": payloads.PaymentReference,
    "InvoicePayment.StatusTransitions": payloads.PaymentTransitions,
    "Charge": payloads.Charge,
    "PaymentIntent": payloads.PaymentIntent,
    "PaymentIntent.PaymentDetails": payloads.PaymentDetails,
    "Refund": payloads.Refund,
    "Dispute": payloads.Dispute,
    "CreditNote": payloads.CreditNote,
}


def stripe_fields(name: str) -> set[str]:
    shape: Any = reduce(getattr, name.split("."), stripe)
    return {field for field in vars(shape)["__annotations__"] if field.islower()}


def ignored_fields(name: str) -> list[str]:
    return [field for names in TABLE.values() for field in names.get(name, "").split()]


@pytest.mark.parametrize("name", READ)
def test_every_field_of_an_object_is_read_or_ignored_for_a_reason(name: str) -> None:
    read = set(READ[name].__struct_encode_fields__)

    assert stripe_fields(name) - read - set(ignored_fields(name)) == set()


@pytest.mark.parametrize("name", READ)
def test_what_is_ignored_exists_once_and_is_not_read(name: str) -> None:
    ignored = ignored_fields(name)

    assert [field for field, times in Counter(ignored).items() if times > 1] == []
    assert set(ignored) <= stripe_fields(name) - set(READ[name].__struct_encode_fields__)


def test_no_other_object_is_in_the_table() -> None:
    assert {name for names in TABLE.values() for name in names} <= READ.keys()
