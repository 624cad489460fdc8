"""Stripe's invoices in the shapes of every API version, and the tax that their lines include."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import Unreadable
from service.core.events import BilledItem, Invoice
from tests.handlers.deliveries import said, seconds
from tests.support.events import at

CREATED, FINALIZED, PAID = seconds(2018, 3, 1), seconds(2018, 3, 1, 1), seconds(2018, 3, 2)


def invoice(kind: str = "invoice.updated", **fields: Any) -> Invoice:
    stated = {"id": "in_1", "currency": "eur", "created": CREATED, "amount_due": 3400, "customer": "cus_1"}
    data = said(kind, **{key: value for key, value in (stated | fields).items() if value is not ...})
    assert isinstance(data, Invoice)
    return data


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


# Before 2019


@pytest.mark.parametrize(
    ("stated", "status", "amount_paid"),
    [
        ({"paid": True, "closed": True, "forgiven": False, "attempted": True}, "paid", 3400),
        ({"paid": True, "amount_paid": 3000}, "paid", 3000),
        ({"paid": False, "closed": True, "forgiven": True, "attempted": True}, "uncollectible", 0),
        ({"paid": False, "closed": True, "forgiven": False, "attempted": True}, "open", 0),
        ({"paid": False, "closed": False, "attempted": True, "amount_paid": 400}, "open", 400),
        ({"paid": False, "closed": False, "attempted": False, "finalized_at": FINALIZED}, "open", 0),
        ({"paid": False, "closed": False, "attempted": False}, "draft", 0),
    ],
)
def test_an_invoice_without_a_status_says_it_in_other_fields(
    stated: dict[str, Any], status: str, amount_paid: int
) -> None:
    for status_field in ({}, {"status": None}):
        data = invoice(**stated, **status_field, billing="charge_automatically")
        assert (data.status, data.amount_paid) == (status, amount_paid)


def test_a_stated_status_goes_before_the_older_fields() -> None:
    assert invoice(status="void", paid=True, forgiven=True).status == "void"


def test_an_invoice_without_any_date_is_unreadable() -> None:
    with pytest.raises(Unreadable, match="created"):
        invoice(created=...)


@given(st.data())
def test_every_mix_of_old_and_new_shapes_says_the_same(data: st.DataObject) -> None:
    def one_of(*shapes: dict[str, Any]) -> dict[str, Any]:
        return data.draw(st.sampled_from(shapes))

    priced = one_of(
        {"price": {"id": "price_1", "product": "prod_1"}},
        {"plan": {"id": "price_1", "product": "prod_1"}},
        {"price": {"id": "price_1", "product": "prod_1"}, "plan": {"id": 7, "product": []}},
        {"price": "?", "plan": {"id": "price_1", "product": {"id": "prod_1"}}},
        {"pricing": {"price_details": {"price": "price_1", "product": "prod_1"}}, "price": 5},
    )
    origin = one_of(
        {"type": "subscription", "proration": False},
        {"parent": {"type": "subscription_item_details", "subscription_item_details": {"proration": False}}},
    )
    tax = one_of(
        {"tax_amounts": [{"amount": 400, "inclusive": True, "tax_rate": "txr_1"}]},
        {"taxes": [{"amount": 400, "tax_behavior": "inclusive", "type": "tax_rate_details"}]},
    )
    mixed = invoice(
        lines={"data": [{"amount": 3400} | priced | origin | tax]},
        **one_of({"created": CREATED}, {"created": ..., "date": CREATED}),
        **one_of({"finalized_at": FINALIZED}, {"status_transitions": {"finalized_at": FINALIZED}}),
        **one_of({"status": "paid", "amount_paid": 3400}, {"paid": True}, {"status": "paid", "paid": False}),
        **one_of(
            {"subscription": "sub_1"},
            {"subscription": {"id": "sub_1"}},
            {"parent": {"subscription_details": {"subscription": "sub_1"}}},
        ),
        **one_of(
            {"payment_intent": "pi_1", "charge": "ch_1"},
            {"payment_intent": {"id": "pi_1"}},
            {"payments": {"data": [{"invoice": "in_1", "payment": {"payment_intent": "pi_1"}}]}},
        ),
        **one_of({"customer": "cus_1"}, {"customer": None, "customer_account": "cus_1"}),
    )
    assert mixed == invoice(
        status="paid",
        amount_paid=3400,
        subscription="sub_1",
        payment_intent="pi_1",
        status_transitions={"finalized_at": FINALIZED},
        lines={"data": [{"amount": 3400, **priced, "type": "subscription", **tax}]},
    )
    assert mixed.finalized_at == moment(FINALIZED)
    assert (mixed.lines[0].product_id, mixed.lines[0].price_id) == ("prod_1", "price_1")


# Paid outside of Stripe


@pytest.mark.parametrize(
    ("stated", "outside"),
    [({"paid_out_of_band": True}, True), ({"amount_paid_off_stripe": 3400}, True),
     ({"amount_paid_off_stripe": 1000}, False), ({"amount_paid_off_stripe": 0}, False),
     ({"paid_out_of_band": False}, False), ({}, False)],
)  # fmt: skip
def test_an_invoice_may_be_paid_outside_of_stripe(stated: dict[str, Any], outside: bool) -> None:
    assert invoice(status="paid", amount_paid=3400, **stated).paid_out_of_band is outside
    assert not invoice(status="open", amount_paid=0, amount_paid_off_stripe=0).paid_out_of_band


# Changes within a period


CHANGE, PERIOD = {"type": "subscription", "proration": True}, {"type": "subscription", "proration": False}
ADDED = {"parent": {"invoice_item_details": {"invoice_item": "ii_1", "proration": False}}}


@pytest.mark.parametrize(
    ("reason", "lines", "within"),
    [
        ("subscription_update", [{}], True),
        ("subscription_update", [CHANGE, CHANGE], True),
        ("subscription_update", [CHANGE, PERIOD], False),
        ("subscription_threshold", [ADDED], True),
        ("manual", [], True),
        ("subscription_cycle", [CHANGE], False),
        ("subscription_create", [], False),
        ("subscription", [CHANGE], True),
        (None, [CHANGE, {"type": "invoiceitem"}], True),
        (None, [ADDED, {"parent": {"subscription_item_details": {"proration": True}}}], True),
        (None, [{"parent": {"subscription_item_details": {"proration": False}}}], False),
        (None, [{}], False),
        (None, [], False),
    ],
)
def test_an_invoice_bills_a_period_of_its_contract_or_changes_within_one(
    reason: str | None, lines: list[dict[str, Any]], within: bool
) -> None:
    listed = {"data": [{"amount": 500} | line for line in lines]}
    stated = {"billing_reason": reason, "lines": listed}
    assert invoice(subscription="sub_1", **stated).within_period is within
    assert not invoice(subscription=None, **stated).within_period


# The periods that an invoice bills


MARCH = {"start": seconds(2018, 3, 1), "end": seconds(2018, 4, 1)}
FEBRUARY = {"start": seconds(2018, 2, 1), "end": seconds(2018, 3, 1)}
WEEK = {"start": seconds(2018, 3, 1), "end": seconds(2018, 3, 8)}


def of_item(family: str, period: Any, *, proration: bool = False, metered: bool = False) -> dict[str, Any]:
    """A line of a subscription's item as the API versions of a family state it."""
    common = {"amount": 500, "period": period, "object": "line_item"}
    if family == "basil":
        details = {"proration": proration, "subscription": "sub_1", "subscription_item": "si_1"}
        return common | {
            "parent": {"type": "subscription_item_details", "subscription_item_details": details},
            "pricing": {"price_details": {"price": "price_1", "product": "prod_1"}},
        }
    usage = "metered" if metered else "licensed"
    recurring = {"interval": "month", "interval_count": 1, "usage_type": usage}
    return common | {
        "type": "subscription",
        "proration": proration,
        "subscription_item": "si_1",
        "price": {"id": "price_1", "product": "prod_1", "recurring": recurring},
    }


def billed(family: str, *lines: dict[str, Any], **fields: Any) -> list[tuple[datetime, datetime]]:
    """The periods of an invoice of a subscription, or of none."""
    fields = {"subscription": "sub_1", "has_more": False} | fields
    named = {"subscription": fields["subscription"]}
    where = named if family == "acacia" else {"parent": {"subscription_details": named}}
    listed = {"data": list(lines), "has_more": fields["has_more"]}
    data = invoice(billing_reason="subscription_cycle", lines=listed, **where)
    return [(period.starts_at, period.ends_at) for period in data.periods]


def spans(*periods: dict[str, int]) -> list[tuple[datetime, datetime]]:
    return [(moment(period["start"]), moment(period["end"])) for period in periods]


@pytest.mark.parametrize("family", ["acacia", "basil"])
def test_an_invoice_bills_the_periods_of_its_subscription_lines(family: str) -> None:
    coming, week = of_item(family, MARCH), of_item(family, WEEK)
    used, change = of_item(family, FEBRUARY, metered=True), of_item(family, FEBRUARY, proration=True)
    added = {"amount": 500, "period": WEEK, "type": "invoiceitem"}
    assert billed(family, coming, coming) == spans(MARCH)
    assert billed(family, week, coming) == spans(WEEK, MARCH)
    assert billed(family, used, coming) == spans(FEBRUARY, MARCH)
    assert billed(family, used) == spans(FEBRUARY)
    assert billed(family, coming, change, added) == spans(MARCH)
    assert billed(family, change, added) == billed(family) == []


@pytest.mark.parametrize("family", ["acacia", "basil"])
def test_which_periods_an_invoice_bills_may_not_be_known(family: str) -> None:
    line = of_item(family, MARCH)
    assert billed(family, line, has_more=True) == []
    for unreadable in (None, {}, {"start": MARCH["start"]}, "March"):
        assert billed(family, line, of_item(family, unreadable)) == []
    assert billed(family, line, subscription=None) == []


# Taxes


def line(amount: int, *taxes: tuple[int, bool], **fields: Any) -> dict[str, Any]:
    listed = [{"amount": tax, "inclusive": inclusive} for tax, inclusive in taxes]
    return {"amount": amount, "type": "subscription", "tax_amounts": listed} | fields


def taxed(*lines: dict[str, Any], **fields: Any) -> tuple[int | None, int | None]:
    data = invoice(status="open", **{"subscription": "sub_1"} | fields, lines={"data": list(lines)})
    return data.taxed_amount, data.inclusive_tax


@pytest.mark.parametrize(
    ("lines", "amounts"),
    [
        ([line(11900, (1900, True))], (11900, 1900)),
        ([line(11900, (1400, True), (500, True)), line(1000)], (12900, 1900)),
        ([line(11900, (1900, True)), line(-4000, (-639, True), proration=True)], (11900, 1900)),
        ([line(11900, (1900, True)), line(700, (112, True), type="invoiceitem")], (11900, 1900)),
        ([line(12000, (900, True), discount_amounts=[{"amount": 6000}, {"amount": 300}])], (5700, 900)),
        ([line(10000, (1900, False))], (None, None)),
        ([line(0, (0, True))], (None, None)),
        ([], (None, None)),
    ],
)
def test_the_included_tax_is_that_of_the_contracts_lines(
    lines: list[dict[str, Any]], amounts: tuple[int | None, int | None]
) -> None:
    assert taxed(*lines) == amounts
    assert taxed(*lines, subscription=None) == (None, None)


@pytest.mark.parametrize(
    ("status", "amounts"),
    [
        ("complete", (8000, 0)),
        (None, (8000, 0)),
        ("failed", (None, None)),
        ("requires_location_inputs", (None, None)),
    ],
)
def test_an_automatic_tax_that_was_computed_may_be_nothing(status: str | None, amounts: Any) -> None:
    automatic = {"enabled": True, "status": status}
    assert taxed(line(8000, (1520, False)), automatic_tax=automatic) == amounts
    assert taxed(line(8000), automatic_tax={"enabled": False, "status": None}) == (None, None)


# Items that are billed for whole periods


def items(family: str, *lines: dict[str, Any], **fields: Any) -> tuple[BilledItem, ...]:
    named = {"subscription": fields.pop("subscription", "sub_1")}
    where = named if family == "acacia" else {"parent": {"subscription_details": named}}
    return invoice(lines={"data": list(lines)}, **where, **fields).billed


@pytest.mark.parametrize(("family", "interval"), [("acacia", "month"), ("basil", None)])
def test_an_invoice_bills_items_for_whole_periods(family: str, interval: str | None) -> None:
    change, added = (
        of_item(family, WEEK, proration=True),
        {"amount": 500, "period": WEEK, "type": "invoiceitem"},
    )
    (item,) = items(family, of_item(family, MARCH), change, added)
    assert (item.starts_at, item.ends_at) == spans(MARCH)[0]
    assert (item.amount, item.interval, item.every) == (500, interval, 1)
    assert (item.item_id, item.price_id, item.product_id) == ("si_1", "price_1", "prod_1")


def test_what_is_billed_by_use_is_no_item_of_a_whole_period() -> None:
    assert items("acacia", of_item("acacia", FEBRUARY, metered=True)) == ()


@pytest.mark.parametrize("period", [None, {}, "March", {"start": 10, "end": 10}, {"start": 10, "end": 9}])
def test_a_line_without_a_period_bills_none(period: Any) -> None:
    assert items("acacia", of_item("acacia", period)) == ()


def test_an_invoice_of_no_contract_bills_no_items() -> None:
    assert items("acacia", of_item("acacia", MARCH), subscription=None) == ()


@pytest.mark.parametrize(
    ("duration", "amount"), [("once", 500), ("repeating", 400), ("forever", 400), (None, 400)]
)
@pytest.mark.parametrize("where", ["line", "invoice", "twin", "source"])
def test_a_discount_is_deducted_unless_it_is_for_one_invoice(
    duration: str | None, amount: int, where: str
) -> None:
    coupon = {"coupon": {"duration": duration, "percent_off": 20}}
    shown = {"id": "di_1", "customer": "cus_1", **({"source": coupon} if where == "source" else coupon)}
    discount = shown if where in ("line", "source") else "di_1"
    line = of_item("basil", MARCH) | {"discount_amounts": [{"amount": 100, "discount": discount}]}
    fields = {"invoice": {"discounts": [shown]}, "twin": {"discount": shown}}.get(where, {})
    (item,) = items("basil", line, **fields)
    assert item.amount == amount


def test_the_tax_in_a_price_is_no_part_of_what_an_item_brings() -> None:
    taxes = [{"amount": 80, "tax_behavior": "inclusive"}, {"amount": 50, "tax_behavior": "exclusive"}]
    (item,) = items("basil", of_item("basil", MARCH) | {"taxes": taxes})
    assert item.amount == 420


def test_what_was_taken_off_once_is_added_again_without_its_tax() -> None:
    shown = {"id": "di_1", "coupon": {"duration": "once", "percent_off": 50}}
    line = of_item("basil", MARCH) | {
        "amount": 11_900,
        "taxes": [{"amount": 950, "tax_behavior": "inclusive"}],
    }
    (item,) = items("basil", line | {"discount_amounts": [{"amount": 5_950, "discount": shown}]})
    assert item.amount == 10_000


@pytest.mark.parametrize(
    ("end", "ending"),
    [("2018-03-20", [("2018-03-20", 100)]), ("2018-04-01", []), ("2018-05-01", []), (None, [])],
)
def test_a_discount_that_ends_within_the_period_says_when(end: str | None, ending: list[Any]) -> None:
    second = None if end is None else int(at(end).timestamp())
    shown = {"id": "di_1", "coupon": {"duration": "repeating", "percent_off": 20}, "end": second}
    line = of_item("basil", MARCH) | {"discount_amounts": [{"amount": 100, "discount": "di_1"}]}
    (item,) = items("basil", line, discounts=[shown])
    assert item.amount == 400
    assert [(each.ends_at, each.amount) for each in item.ending_discounts] == [
        (at(day), cents) for day, cents in ending
    ]


@pytest.mark.parametrize(("family", "is_in_arrears"), [("acacia", False), ("basil", True)])
def test_a_line_that_does_not_show_its_price_may_be_billed_in_arrears(
    family: str, is_in_arrears: bool
) -> None:
    ended, begun = items(
        family, of_item(family, FEBRUARY), of_item(family, MARCH), created=seconds(2018, 3, 1)
    )
    assert (ended.in_arrears, begun.in_arrears) == (is_in_arrears, False)


def test_the_amount_of_an_item_is_in_isos_units() -> None:
    shown = {"id": "di_1", "coupon": {"duration": "repeating"}, "end": MARCH["end"] - 60}
    line = of_item("basil", MARCH) | {"amount": 50_000}
    line |= {"discount_amounts": [{"amount": 10_000, "discount": shown}]}
    (item,) = items("basil", line, currency="isk")
    assert (item.amount, item.ending_discounts[0].amount) == (400, 100)
