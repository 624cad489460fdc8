"""Stripe's minor units are ISO 4217's, but for three currencies; every field of money is converted."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from handlers.stripe.units import MONEY_FIELDS, from_iso, stripe_digits, to_iso
from service.core.events import TYPES
from service.core.money import minor_digits
from tests.handlers.deliveries import SECONDS, said, seconds

# Source: https://docs.stripe.com/currencies, the presentment currencies, its special cases and notes.
LISTED = """
    usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd
    cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd
    hkd hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad
    mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln
    pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs
    uah ugx uyu uzs vnd vuv wst xaf xcd xof xpf yer zar zmw
""".split()
NONE = set("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())
THREE = set("bhd jod kwd omr tnd".split())
AMOUNTS = st.integers(-(10**15), 10**15)


@pytest.mark.parametrize("currency", LISTED)
def test_a_currency_has_the_digits_that_stripe_lists(currency: str) -> None:
    assert stripe_digits(currency) == (0 if currency in NONE else 3 if currency in THREE else 2)


def test_stripe_and_iso_differ_in_three_currencies() -> None:
    assert [c for c in LISTED if stripe_digits(c) != minor_digits(c)] == ["isk", "mga", "ugx"]


@pytest.mark.parametrize(
    ("stripe", "currency", "iso"),
    [(79900, "isk", 799), (1850000, "ugx", 18500), (12500, "mga", 1250000), (1234, "jpy", 1234),
     (5120, "kwd", 5120), (4900, "huf", 4900), (-300, "isk", -3), (150, "isk", 2), (-150, "ugx", -2)],
)  # fmt: skip
def test_an_amount_is_the_same_money_in_both(stripe: int, currency: str, iso: int) -> None:
    assert to_iso(stripe, currency) == iso
    assert to_iso(Decimal(stripe), currency) == Decimal(stripe).scaleb(iso_shift(currency))


def iso_shift(currency: str) -> int:
    return minor_digits(currency) - stripe_digits(currency)


@given(st.sampled_from(LISTED), AMOUNTS, st.integers(0, 12))
def test_there_and_back_is_where_it_began(currency: str, amount: int, fraction: int) -> None:
    exact = Decimal(amount).scaleb(-fraction)
    assert from_iso(to_iso(exact, currency), currency) == to_iso(from_iso(exact, currency), currency) == exact
    if iso_shift(currency) >= 0:
        assert from_iso(to_iso(amount, currency), currency) == amount
    else:
        assert to_iso(from_iso(amount, currency), currency) == amount


def test_every_field_of_money_in_the_ledgers_words_is_converted() -> None:
    numbers = {
        (shape.cls, field.name)
        for shape in structs(inspect.multi_type_info(list(TYPES.values())))
        for field in shape.fields
        if "amount" in field.name or (shape.cls.__name__, field.name) == ("Invoice", "inclusive_tax")
    }
    assert numbers == {(shape, name) for shape, names in MONEY_FIELDS.items() for name in names}


def structs(node: Any) -> list[Any]:
    """All struct types in a type."""
    children = node if isinstance(node, list | tuple) else []
    if isinstance(node, inspect.StructType):
        children = [field.type for field in node.fields]
    elif isinstance(node, inspect.Metadata | inspect.VarTupleType):
        children = [node.type if isinstance(node, inspect.Metadata) else node.item_type]
    elif isinstance(node, inspect.UnionType):
        children = list(node.types)
    own = [node] if isinstance(node, inspect.StructType) else []
    return own + [found for child in children for found in structs(child)]


# Whole objects, in kronur


def price(**fields: Any) -> dict[str, Any]:
    return {"id": "price_1", "currency": "isk", "recurring": {"interval": "month"}} | fields


def test_a_contract_is_priced_in_iso_units() -> None:
    tiers = [
        {"up_to": 5, "unit_amount": 100, "flat_amount_decimal": "2550"},
        {"up_to": None, "unit_amount": 90},
    ]
    coupon = {"duration": "forever", "amount_off": 20000, "currency": "isk"}
    data = said(
        "customer.subscription.created",
        id="sub_1",
        customer="cus_1",
        status="active",
        currency="isk",
        current_period_end=SECONDS,
        discounts=[{"id": "di_1", "coupon": coupon}],
        items={"data": [{"price": price(unit_amount_decimal="79950.5")}, {"price": price(tiers=tiers)}]},
    )
    assert data.items[0].unit_amount == Decimal("799.505")
    assert [(tier.unit_amount, tier.flat_amount) for tier in data.items[1].tiers] == [
        (1, Decimal("25.5")), (Decimal("0.9"), 0)
    ]  # fmt: skip
    assert data.discounts[0].amount_off == 200


def test_a_customers_discount_is_in_the_units_of_its_own_currency() -> None:
    for currency, amount in (("ugx", 30), ("mga", 300000), ("usd", 3000)):
        coupon = {"duration": "forever", "amount_off": 3000, "currency": currency}
        (stated,) = said("customer.updated", id="cus_1", discount={"id": "di_1", "coupon": coupon}).discounts
        assert (stated.amount_off, stated.currency) == (amount, currency)


def test_all_that_is_paid_is_in_iso_units() -> None:
    line = {"amount": 70000, "type": "subscription", "tax_amounts": [{"amount": 7000, "inclusive": True}]}
    invoice = said(
        "invoice.paid", id="in_1", status="paid", currency="isk", created=SECONDS, amount_due=70000,
        amount_paid=60000, amount_remaining=10000, subscription="sub_1", lines={"data": [line]},
    )  # fmt: skip
    assert (invoice.amount_due, invoice.amount_paid, invoice.amount_remaining) == (700, 600, 100)
    assert (invoice.lines[0].amount, invoice.taxed_amount, invoice.inclusive_tax) == (700, 700, 70)
    payment = said(
        "charge.refunded", id="ch_1", currency="isk", created=SECONDS, status="succeeded", captured=True,
        amount=90000, amount_captured=70000, amount_refunded=30000,
    )  # fmt: skip
    assert (payment.amount, payment.amount_refunded, payment.amount_released) == (700, 100, 200)
    assert said("refund.created", id="re_1", currency="ugx", amount=500, created=SECONDS).amount == 5
    taken = [{"amount": -40000, "currency": "isk"}]
    dispute = said(
        "charge.dispute.created",
        id="dp_1",
        status="prevented",
        currency="isk",
        amount=50000,
        balance_transactions=taken,
    )
    assert (dispute.amount, dispute.amount_taken) == (500, 400)
    note = {"id": "cn_1", "invoice": "in_1", "currency": "isk", "created": SECONDS, "amount": 200}
    assert said("credit_note.created", **note).amount == 2
    assert said("credit_note.created", **note, out_of_band_amount=100).amount == 1
    part = said(
        "invoice_payment.paid", invoice="in_1", payment={"charge": "ch_1"}, currency="isk", amount_paid=4200
    )
    assert part.amount_paid == 42


def test_a_schedule_is_in_the_units_of_its_phases() -> None:
    phase = {
        "start_date": seconds(2026, 1, 1),
        "currency": "mga",
        "items": [{"price": price(currency="mga", unit_amount=40)}],
    }
    data = said("subscription_schedule.created", id="sub_sched_1", status="active", phases=[phase])
    assert data.phases[0].items[0].unit_amount == 4000
