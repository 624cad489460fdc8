"""Stripe's subscriptions, prices, discounts, taxes and schedules, in the shapes of every API version."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.errors import Unreadable
from service.core.events import (
    UNKNOWN_CUSTOMER,
    AppliedDiscount,
    Customer,
    Discount,
    Item,
    Phase,
    Subscription,
    Unused,
)
from tests.handlers.deliveries import said, seconds

END, LATER, LAST = seconds(2026, 3, 31), seconds(2026, 6, 30), seconds(2026, 12, 31)
UNREADABLE = {"id": "gold", "interval": "month", "interval_count": 797_691_627, "amount": "many"}


def price(**fields: Any) -> dict[str, Any]:
    return {
        "id": "price_1",
        "currency": "eur",
        "recurring": {"interval": "month"},
        "unit_amount": 4200,
    } | fields


def plan(**fields: Any) -> dict[str, Any]:
    return {"id": "price_1", "currency": "eur", "interval": "month", "amount": 4200} | fields


def contract(
    *items: dict[str, Any], kind: str = "customer.subscription.updated", **fields: Any
) -> Subscription:
    listed = [{"current_period_end": END} | item for item in items or ({"price": price()},)]
    stated = {
        "id": "sub_1",
        "customer": "cus_1",
        "status": "active",
        "currency": "eur",
        "items": {"data": listed},
    }
    data = said(kind, **stated | fields)
    assert isinstance(data, Subscription)
    return data


def only_item(*items: dict[str, Any], **fields: Any) -> Item:
    (item,) = contract(*items, **fields).items
    return item


def moment(at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC)


# Twins


@pytest.mark.parametrize("twin", [UNREADABLE, {}, "gold", 5, [], None])
def test_a_plan_that_can_not_be_read_does_not_matter_beside_its_price(twin: Any) -> None:
    assert contract({"price": price(), "plan": twin}, plan=twin) == contract()


@pytest.mark.parametrize(
    "twin", [{"id": "price_1", "object": "price", "deleted": True}, {"id": 7}, "price_1", None]
)
def test_a_plan_is_read_where_its_price_can_not_be(twin: Any) -> None:
    assert only_item({"price": twin, "plan": plan()}) == only_item()


@pytest.mark.parametrize("mode", ["graduated", "volume"])
def test_tiers_and_amounts_are_read_where_they_are_stated(mode: str) -> None:
    tiers = [{"up_to": 5, "unit_amount": 700}, {"up_to": None, "unit_amount_decimal": "612.5"}]
    tiered = {"billing_scheme": "tiered", "tiers_mode": mode}
    bare = price(**tiered, unit_amount=None)
    by_plan = only_item({"price": bare, "plan": plan(**tiered, amount=None, tiers=tiers), "quantity": 9})
    by_price = only_item({"price": {**bare, "tiers": tiers}, "plan": UNREADABLE, "quantity": 9})
    assert by_plan == by_price
    assert [tier.unit_amount for tier in by_plan.tiers] == [700, Decimal("612.5")]
    assert only_item({"price": price(unit_amount=None), "plan": plan(amount=310)}).unit_amount == 310
    assert only_item({"price": price(), "plan": plan(amount=310)}).unit_amount == 4200


def test_a_deleted_price_without_a_twin_is_an_item_without_a_readable_price() -> None:
    gone = only_item({"price": {"id": "price_9", "object": "price", "deleted": True}, "quantity": 3})
    assert gone == Item(interval="month", price_id="price_9", quantity=3)


def test_an_item_without_either_twin_is_unreadable() -> None:
    with pytest.raises(Unreadable, match=r"`price` - at `\$.data.object.items.data\[1\]`"):
        contract({"price": price()}, {"quantity": 2})
    with pytest.raises(Unreadable, match=r"items.data\[0\].plan.interval_count"):
        contract({"plan": UNREADABLE | {"amount": 1}})


@pytest.mark.parametrize("amount", [-500, "-0.25"])
def test_a_credit_is_an_item_with_a_negative_price(amount: Any) -> None:
    field = "unit_amount" if isinstance(amount, int) else "unit_amount_decimal"
    assert only_item({"price": price(**{field: amount})}).unit_amount == Decimal(amount)


@pytest.mark.parametrize("amount", ["1000000000000000", "999999999999999.123456789012"])
def test_a_price_may_be_as_large_as_rupiah_make_it(amount: str) -> None:
    assert only_item({"price": price(unit_amount_decimal=amount)}).unit_amount == Decimal(amount)


# Shapes of all versions


@given(st.data())
def test_every_mix_of_old_and_new_shapes_says_the_same(data: st.DataObject) -> None:
    coupon = {"id": "LOYAL", "duration": "forever", "percent_off": 12.5}
    applied = {"id": "di_1", "start": END}
    old, new = applied | {"coupon": coupon}, applied | {"source": {"type": "coupon", "coupon": coupon}}
    full = data.draw(st.sampled_from([old, new]))
    item = data.draw(
        st.sampled_from(
            [
                {"price": price()},
                {"plan": plan()},
                {"price": price(), "plan": plan()},
                {"price": price(), "plan": UNREADABLE},
            ]
        )
    )
    period_end = data.draw(
        st.sampled_from(
            [
                ({"current_period_end": END}, {}),
                ({}, {"current_period_end": END}),
                ({"current_period_end": END},) * 2,
            ]
        )
    )
    discounts = data.draw(
        st.sampled_from(
            [{"discount": full}, {"discounts": [full]}, {"discount": full, "discounts": ["di_1"]},
             {"discount": full, "discounts": [full]}, {"discount": 7, "discounts": [full]}]
        )
    )  # fmt: skip
    payer = data.draw(
        st.sampled_from(
            [
                {"customer": "cus_1"},
                {"customer": {"id": "cus_1"}},
                {"customer": None, "customer_account": "cus_1"},
            ]
        )
    )
    mixed = said(
        "customer.subscription.updated", id="sub_1", status="active", currency="eur",
        items={"data": [item | period_end[1]]}, **period_end[0], **discounts, **payer,
    )  # fmt: skip
    assert mixed == contract(discounts=[new])


# Items with dates of their own


def test_each_item_has_its_next_bill_where_it_is_not_the_contracts() -> None:
    data = contract(
        {"price": price(), "current_period_end": LATER},
        {"price": price()},
        {"price": price(), "billed_until": LAST},
        {"price": price(), "billed_until": END - 1},
    )
    assert data.next_bill_at == moment(END)
    assert [item.next_bill_at for item in data.items] == [moment(LATER), None, moment(LAST), None]


def test_a_contract_that_is_billed_ahead_bills_next_when_that_is_over() -> None:
    data = contract({"price": price(), "billed_until": LATER}, cancel_at_period_end=True)
    assert (data.next_bill_at, data.items[0].next_bill_at) == (moment(LATER), None)
    assert data.cancel_at == moment(END)
    assert contract({"price": price(), "billed_until": None}).next_bill_at == moment(END)


def test_billing_schedules_say_how_far_items_are_billed_where_the_items_do_not() -> None:
    def ahead(*prices: Any) -> dict[str, Any]:
        named = [{"type": "price", "price": each} for each in prices]
        return {"bill_until": {"computed_timestamp": LATER}, "applies_to": named or None}

    items = {"price": price()}, {"price": price(id="price_2")}
    assert contract(*items, billing_schedules=[ahead()]).next_bill_at == moment(LATER)
    of_one = contract(*items, billing_schedules=[ahead({"id": "price_2"}, "price_3")])
    assert [item.next_bill_at for item in of_one.items] == [None, moment(LATER)]
    told = contract({"price": price(), "billed_until": END}, billing_schedules=[ahead()])
    assert told.next_bill_at == moment(END)


@pytest.mark.parametrize("start", [seconds(2026, 1, 15), None])
def test_an_items_trial_has_its_dates(start: int | None) -> None:
    trial = {"start_date": start, "end_date": LATER, "trial_offer": "to_1"}
    item = only_item({"price": price(), "current_trial": trial})
    assert item.trial_start_at == (moment(start) if start else None)
    assert item.trial_end_at == moment(LATER)


@pytest.mark.parametrize(
    ("offered", "counts"), [("price_1", True), ({"id": "price_1"}, True), ("price_2", False)]
)
def test_a_trial_counts_where_its_offer_states_the_items_price(offered: Any, counts: bool) -> None:
    trial = {"start_date": END, "end_date": LATER, "trial_offer": {"id": "to_1", "price": offered}}
    assert (only_item({"price": price(), "current_trial": trial}).trial_end_at is None) is counts


@pytest.mark.parametrize(
    ("stated", "quantity"),
    [({"quantity": 3}, 3), ({"quantity": 3, "quantity_decimal": "3"}, 3),
     ({"quantity": 2, "quantity_decimal": "2.5"}, Decimal("2.5")),
     ({"quantity_decimal": "0.125"}, Decimal("0.125")), ({"quantity_decimal": "12.000"}, 12),
     ({"quantity": None}, 1), ({"quantity": 0}, 0), ({"quantity_decimal": "0"}, 0)],
)  # fmt: skip
def test_a_quantity_may_have_a_fraction(stated: dict[str, Any], quantity: Any) -> None:
    assert only_item({"price": price()} | stated).quantity == quantity


@pytest.mark.parametrize("day", [1, 31])
def test_the_anchor_is_stated_as_a_moment_and_as_a_day(day: int) -> None:
    data = contract(billing_cycle_anchor=LATER, billing_cycle_anchor_config={"day_of_month": day, "hour": 9})
    assert (data.anchor_at, data.anchor_day) == (moment(LATER), day)
    unreadable = contract(billing_cycle_anchor=LATER, billing_cycle_anchor_config={"day_of_month": 31 + day})
    assert (unreadable.anchor_at, unreadable.anchor_day) == (moment(LATER), None)


@pytest.mark.parametrize("at", [END - 86_400, LAST])
def test_a_stated_end_is_left_as_it_is(at: int) -> None:
    assert contract(cancel_at=at, cancel_at_period_end=False).cancel_at == moment(at)


# Contracts that have ended


@pytest.mark.parametrize(
    "spoilt",
    [{"items": {"data": []}}, {"items": None, "currency": None}, {"items": {"data": [{"price": {"id": 5}}]}},
     {"items": {"data": [{"price": price(recurring={"interval": "fortnight"})}]}}],
)  # fmt: skip
def test_a_contract_that_has_ended_is_read_whatever_its_items_look_like(spoilt: dict[str, Any]) -> None:
    for kind, status in (("deleted", "canceled"), ("updated", "canceled"), ("updated", "incomplete_expired")):
        ended = contract(kind=f"customer.subscription.{kind}", status=status, ended_at=END, **spoilt)
        assert (ended.status, ended.ended_at, ended.items) == (status, moment(END), ())
    with pytest.raises(Unreadable):
        contract(**spoilt)


@pytest.mark.parametrize("spoilt", [{"customer": None}, {"status": None, "customer": None, "items": None}])
def test_a_deleted_contract_has_ended_whoever_had_it(spoilt: dict[str, Any]) -> None:
    ended = contract(kind="customer.subscription.deleted", **{"status": "canceled"} | spoilt)
    assert (ended.customer_id, ended.status) == (UNKNOWN_CUSTOMER, "canceled")


# Discounts


HALF = {"id": "HALF", "duration": "forever", "percent_off": 50}
FIVER = {"id": "FIVER", "duration": "once", "amount_off": 500, "currency": "eur"}


@pytest.mark.parametrize("products", [["prod_1"], ["prod_1", "prod_2"]])
def test_a_coupon_may_be_for_some_products(products: list[str]) -> None:
    stated = {"id": "di_1", "coupon": HALF | {"applies_to": {"products": products}}}
    (found,) = contract(discounts=[stated]).discounts
    assert found == Discount(discount_id="di_1", percent_off=Decimal(50), product_ids=tuple(products))


def test_ids_and_objects_are_listed_beside_each_other_in_their_order() -> None:
    listed = [
        "di_1",
        {"id": "di_2", "source": {"coupon": HALF}},
        {"id": "di_3", "source": {"coupon": "HALF"}},
    ]
    on_item = only_item({"price": price(), "discounts": listed})
    expected = (
        Discount(discount_id="di_1"),
        Discount(discount_id="di_2", percent_off=Decimal(50)),
        Discount(discount_id="di_3"),
    )
    assert on_item.discounts == contract(discounts=listed).discounts == expected


@pytest.mark.parametrize(("kind", "deleted"), [("created", False), ("updated", False), ("deleted", True)])
def test_a_discount_by_an_event_of_its_own_is_off_a_contract_or_off_a_customer(
    kind: str, deleted: bool
) -> None:
    stated = {"id": "di_1", "customer": "cus_1", "start": END, "end": LATER}
    of_contract = said(f"customer.discount.{kind}", **stated, coupon=FIVER, subscription="sub_1")
    of_customer = said(f"customer.discount.{kind}", **stated, source={"coupon": HALF}, subscription=None)
    assert of_contract == AppliedDiscount(
        customer_id="cus_1",
        subscription_id="sub_1",
        discount=Discount(
            discount_id="di_1",
            amount_off=500,
            currency="eur",
            duration="once",
            starts_at=moment(END),
            ends_at=moment(LATER),
        ),
        deleted=deleted,
    )
    assert (of_customer.subscription_id, of_customer.discount.percent_off) == (None, 50)
    assert of_customer.deleted is deleted


@pytest.mark.parametrize("narrow", ["invoice", "invoice_item", "checkout_session", "subscription_item"])
def test_a_discount_off_something_narrower_is_off_no_contract_of_the_customer(narrow: str) -> None:
    fields = {"id": "di_1", "customer": "cus_1", "coupon": HALF, narrow: "x_1"}
    assert said("customer.discount.created", **fields) == Unused(
        original_type="customer.discount.created", customer_id="cus_1"
    )
    assert said("customer.discount.created", **fields, subscription="sub_1").subscription_id == "sub_1"


def test_a_customer_states_a_discount_none_or_nothing_of_it() -> None:
    def discounts(**fields: Any) -> Any:
        data = said("customer.updated", id="cus_1", **fields)
        assert isinstance(data, Customer)
        return data.discounts

    assert discounts() is None
    assert discounts(discount=None) == ()
    assert discounts(discount={"id": "di_1", "coupon": HALF}) == (
        Discount(discount_id="di_1", percent_off=Decimal(50)),
    )
    assert discounts(discount={"id": "di_1", "source": {"coupon": "HALF"}}) == (Discount(discount_id="di_1"),)
    assert discounts(discount={"id": "di_1", "coupon": {"duration": "weekly"}}) == (Discount(),)


# Taxes


def rate(percentage: float, **fields: Any) -> dict[str, Any]:
    return {"id": "txr_1", "inclusive": True, "percentage": percentage} | fields


@pytest.mark.parametrize(
    ("own", "default", "percent"),
    [
        ([rate(19)], [rate(7)], "19"),
        ([], [rate(7), rate(2.5)], "9.5"),
        (None, [rate(20, effective_percentage=8.1)], "8.1"),
        ([rate(20, effective_percentage=0)], [], "0"),
        ([rate(19, inclusive=False)], [rate(7)], "0"),
        (["txr_9"], [rate(7)], "0"),
        (None, None, "0"),
    ],
)
def test_the_tax_that_a_price_includes_is_that_of_its_own_rates_else_of_the_contracts(
    own: Any, default: Any, percent: str
) -> None:
    item = only_item({"price": price(), "tax_rates": own}, default_tax_rates=default)
    assert item.inclusive_tax == Decimal(percent)


@pytest.mark.parametrize(
    ("enabled", "behaviours", "included"),
    [(True, ["inclusive"], True), (True, ["exclusive", "unspecified"], True), (True, ["exclusive"], False),
     (False, ["inclusive"], False), (True, ["exclusive", "exclusive"], False)],
)  # fmt: skip
def test_an_automatic_tax_may_be_in_all_prices_but_exclusive_ones(
    enabled: bool, behaviours: list[str], included: bool
) -> None:
    items = [{"price": price(tax_behavior=behaviour)} for behaviour in behaviours]
    assert contract(*items, automatic_tax={"enabled": enabled}).automatic_tax is included


# Schedules


def phased(*phases: dict[str, Any], **fields: Any) -> Any:
    stated = {"id": "sub_sched_1", "status": "active", "subscription": "sub_1", "customer": "cus_1"}
    return said("subscription_schedule.updated", **stated | fields, phases=list(phases))


def test_a_schedule_names_its_contract_and_its_phases_in_order() -> None:
    first = {
        "start_date": END,
        "end_date": LATER,
        "currency": "eur",
        "items": [{"price": price(), "quantity": 4}],
    }
    second = {"start_date": LATER, "end_date": None, "items": [{"price": "price_2"}], "trial_end": LAST}
    data = phased(first, second, end_behavior="cancel")
    assert (data.subscription_id, data.customer_id, data.currency) == ("sub_1", "cus_1", "eur")
    assert (data.status, data.end_behavior) == ("active", "cancel")
    assert data.phases == (
        Phase(
            starts_at=moment(END),
            ends_at=moment(LATER),
            items=(Item(interval="month", price_id="price_1", unit_amount=Decimal(4200), quantity=4),),
        ),
        Phase(
            starts_at=moment(LATER),
            items=(Item(interval="month", price_id="price_2"),),
            trial_end_at=moment(LAST),
        ),
    )


@pytest.mark.parametrize(
    "items", [{"plans": [{"plan": "price_2"}]}, {"items": [{"price": None, "plan": "price_2"}]}]
)
def test_older_phases_have_plans(items: dict[str, Any]) -> None:
    data = phased({"start_date": END} | items)
    assert data.phases[0].items == (Item(interval="month", price_id="price_2"),)


def test_a_phase_may_be_a_trial_as_a_whole_and_its_prices_include_tax() -> None:
    items = [{"price": price(), "tax_rates": []}]
    data = phased(
        {"start_date": END, "end_date": LATER, "trial": True, "items": items, "default_tax_rates": [rate(10)]}
    )
    assert data.phases[0].trial_end_at == moment(LATER)
    assert data.phases[0].items[0].inclusive_tax == 10


def test_the_discounts_of_a_phase_are_applied_ones_or_coupons_from_its_start_on() -> None:
    three_months = {"id": "Q", "duration": "repeating", "duration_in_months": 3, "percent_off": 10}
    listed = [
        {"discount": "di_1"},
        {"coupon": three_months},
        {"coupon": "HALF"},
        {"promotion_code": "promo_1"},
    ]
    data = phased(
        {"start_date": END, "items": [{"price": price(), "discounts": listed[:1]}], "discounts": listed}
    )
    assert data.phases[0].discounts == (
        Discount(discount_id="di_1"),
        Discount(percent_off=Decimal(10), duration="repeating", starts_at=moment(END), ends_at=moment(LATER)),
        Discount(),
        Discount(),
    )
    assert data.phases[0].items[0].discounts == (Discount(discount_id="di_1"),)
    older = phased({"start_date": END, "items": [], "coupon": HALF})
    assert older.phases[0].discounts == (Discount(percent_off=Decimal(50), starts_at=moment(END)),)


@pytest.mark.parametrize("status", ["not_started", "released", "canceled"])
def test_a_schedule_may_have_no_contract_yet_or_no_more(status: str) -> None:
    data = phased(status=status, subscription=None, customer=None, customer_account="acct_9")
    assert (data.status, data.subscription_id, data.customer_id, data.phases) == (status, None, "acct_9", ())


@pytest.mark.parametrize("released", ["sub_1", {"id": "sub_1", "object": "subscription"}])
def test_a_released_schedule_still_belongs_to_its_contract(released: Any) -> None:
    data = phased(status="released", subscription=None, released_subscription=released)
    assert data.subscription_id == "sub_1"
