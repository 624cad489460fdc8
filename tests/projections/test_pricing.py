"""Prices: taxes that they include, trials of single items, negative items, discounts off some products."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.book import Rules
from projections.pricing import bill_cents, is_unpriced
from service.core.events import Discount, Item
from service.core.money import round_fraction
from tests.support.effort import examples
from tests.support.events import at, but, changed, created, event, invoice, item, subscription
from tests.support.folded_books import active, movements, mrr

RULES = Rules()
NEW_YORK = Rules(reporting_tz="America/New_York")


def mrr_of(*items: Item, **fields) -> int:
    return mrr([created(subscription(*items, **fields), "2025-01-10")], "2025-01-10")


def percent(value: str | int, **fields) -> Discount:
    return Discount(percent_off=Decimal(value), **fields)


# Tax in the price


@pytest.mark.parametrize(
    ("cents", "tax", "net"),
    [(11_900, "19", 10_000), (10_550, "5.5", 10_000), (999, "7", 934), (10, "900", 1)],
)
def test_a_tax_in_the_price_is_taken_out(cents, tax, net):
    assert mrr_of(item(cents, inclusive_tax=Decimal(tax))) == net


def test_each_item_has_its_own_tax():
    books, hosting = item(1_070, inclusive_tax=Decimal(7)), item(2_380, inclusive_tax=Decimal(19))
    assert mrr_of(books, hosting, item(500)) == 3_500


def test_an_amount_off_is_off_the_price_with_its_tax():
    assert mrr_of(item(13_000, inclusive_tax=Decimal(20)), discounts=(Discount(amount_off=1_000),)) == 10_000


def test_taxed_items_are_rounded_once_over_all_of_them():
    assert mrr_of(*(item(1, inclusive_tax=Decimal(100)) for _ in range(3))) == 2


def taxed(invoice_id: str, when: str, gross: int, tax: int, **fields):
    """The event of a paid invoice whose prices include a tax."""
    data = invoice("paid", gross, when, invoice_id=invoice_id, subscription_id="sub_1", finalized_at=at(when))
    return event(but(data, taxed_amount=gross, inclusive_tax=tax, **fields), when)


def automatic(cents: int = 11_900, interval: str = "month", every: int = 1):
    return subscription(item(cents, interval, every), automatic_tax=True)


def test_an_automatic_tax_is_that_of_the_first_invoice_even_before_it():
    events = [created(automatic(), "2025-01-10"), taxed("in_1", "2025-02-10", 11_900, 1_900)]
    assert movements(events) == [("2025-01-10", "new", 10_000)]


def test_another_tax_counts_from_the_invoice_that_has_it():
    events = [
        created(automatic(), "2025-01-10"),
        taxed("in_1", "2025-01-10", 11_900, 1_900),
        taxed("in_2", "2025-02-10", 11_900, 0),
        taxed("in_3", "2025-03-10", 11_900, 0),
    ]
    assert movements(events) == [("2025-01-10", "new", 10_000), ("2025-02-10", "expansion", 1_900)]


def test_a_tax_that_was_rounded_in_another_way_changes_nothing():
    events = [
        created(automatic(1_999), "2025-01-10"),
        taxed("in_1", "2025-01-10", 1_999, 319),
        taxed("in_2", "2025-02-10", 667, 106),
        taxed("in_3", "2025-03-10", 1_999, 320),
    ]
    assert movements(events) == [("2025-01-10", "new", 1_680)]


def test_half_a_cent_beside_a_tax_that_has_no_decimal_goes_away_from_zero():
    events = [created(automatic(12_002, "year"), "2025-01-10"), taxed("in_1", "2025-01-10", 12_002, 2_000)]
    assert mrr(events) == 834  # 10,002 a year


def test_drafts_and_invoices_without_a_readable_tax_say_nothing_of_it():
    events = [
        created(automatic(), "2025-01-10"),
        taxed("in_1", "2025-01-11", 11_900, 1_900, status="draft"),
        taxed("in_2", "2025-01-12", 0, 0),
        taxed("in_3", "2025-01-13", 11_900, 11_900),
    ]
    assert movements(events) == [("2025-01-10", "new", 11_900)]


def test_the_tax_of_invoices_is_in_no_price_where_it_is_not_automatic():
    events = [created(subscription(item(5_000)), "2025-01-10"), taxed("in_1", "2025-01-10", 5_000, 800)]
    assert mrr(events) == 5_000


def test_a_new_price_has_the_tax_of_the_last_invoice():
    events = [
        created(automatic(), "2025-01-10"),
        taxed("in_1", "2025-01-10", 11_900, 1_900),
        changed(automatic(23_800), "2025-02-01"),
    ]
    assert movements(events)[-1] == ("2025-02-01", "expansion", 10_000)


# Trials of single items


def test_an_item_counts_nothing_until_its_trial_ends():
    tried = item(3_000, trial_end_at=at("2025-01-24 12:00"))
    assert movements([created(subscription(item(1_000), tried), "2025-01-10")]) == [
        ("2025-01-10", "new", 1_000),
        ("2025-01-24", "expansion", 3_000),
    ]


def test_a_trial_that_begins_later_takes_the_item_away_for_its_time():
    tried = item(700, trial_start_at=at("2025-03-01"), trial_end_at=at("2025-04-01"))
    assert movements([created(subscription(item(500), tried), "2025-01-10")]) == [
        ("2025-01-10", "new", 1_200),
        ("2025-03-01", "contraction", -700),
        ("2025-04-01", "expansion", 700),
    ]


def test_a_trial_ends_on_the_reporting_zones_day():
    events = [created(subscription(item(900, trial_end_at=at("2025-01-24 03:00"))), "2025-01-10 12:00")]
    assert movements(events, NEW_YORK) == [("2025-01-23", "new", 900)]


def test_a_contract_that_is_cancelled_during_its_items_trial_never_counted_anything():
    tried = subscription(item(900, trial_end_at=at("2025-02-10")))
    events = [created(tried, "2025-01-10"), changed(but(tried, status="canceled"), "2025-01-20")]
    assert (movements(events), active(events)) == ([], 0)


# Negative items, fractions of quantities


@pytest.mark.parametrize(
    ("cents", "total"), [((3_000, -700), 2_300), ((-700, 3_000), 2_300), ((3_000, -4_000), 0), ((-1,), 0)]
)
def test_only_the_sum_of_the_items_is_never_below_zero(cents, total):
    assert mrr_of(*map(item, cents)) == total


def test_a_percentage_off_the_contract_is_off_its_sum():
    assert mrr_of(item(3_000), item(-1_000), discounts=(percent(25),)) == 1_500


def test_an_items_own_discount_never_turns_its_price_round():
    assert mrr_of(item(1_000), item(-400, discounts=(Discount(amount_off=50),))) == 600
    assert mrr_of(item(1_000), item(30, discounts=(Discount(amount_off=50),))) == 1_000


@pytest.mark.parametrize(("quantity", "cents"), [("2.5", 2_500), ("0.333", 333), ("0.0005", 1)])
def test_a_quantity_may_have_a_fraction(quantity, cents):
    assert mrr_of(item(1_000, quantity=Decimal(quantity))) == cents


# Discounts off some products


def test_a_discount_for_some_products_is_off_their_items_alone():
    items = (item(8_000, product_id="prod_a"), item(3_000, product_id="prod_b"), item(1_000))
    assert mrr_of(*items, discounts=(percent(25, product_ids=("prod_a",)),)) == 10_000
    assert mrr_of(*items, discounts=(Discount(amount_off=5_000, product_ids=("prod_b",)),)) == 9_000
    assert mrr_of(*items, discounts=(percent(50, product_ids=("prod_z",)),)) == 12_000


def test_an_amount_off_a_product_is_off_each_of_its_own_bills():
    off = Discount(amount_off=1_200, product_ids=("prod_a",))
    items = (item(12_000, "year", product_id="prod_a"), item(500, product_id="prod_b"))
    assert mrr_of(*items, discounts=(off,)) == 1_400


def test_discounts_are_deducted_in_their_order():
    items = (item(6_000, product_id="prod_a"), item(4_000, product_id="prod_b"))
    ten, half = Discount(amount_off=1_000), percent(50, product_ids=("prod_a",))
    assert mrr_of(*items, discounts=(ten, half)) == 6_300  # 5,400 / 2 + 3,600
    assert mrr_of(*items, discounts=(half, ten)) == 6_000


def test_a_product_that_is_not_stated_leaves_open_whether_a_discount_is_off_it():
    discounts = (percent(50, product_ids=("prod_a",)),)
    assert is_unpriced(subscription(item(100), discounts=discounts))
    assert not is_unpriced(subscription(item(100, product_id="prod_b"), discounts=discounts))
    assert not is_unpriced(subscription(item(100)))


# Bills


def bill(data, *items: Item, day: str = "2025-02-10", with_amounts_off: bool = True) -> int:
    shown = items or data.items
    return bill_cents(data, shown, date.fromisoformat(day), RULES, with_amounts_off=with_amounts_off)


def test_of_two_bills_only_one_is_less_by_an_amount_off_the_contract():
    yearly, monthly = item(12_000, "year"), item(1_000)
    data = subscription(yearly, monthly, discounts=(percent(10), Discount(amount_off=100)))
    assert bill(data, monthly) == 800
    assert bill(data, yearly, with_amounts_off=False) == 10_800


def test_a_bill_has_no_tax_and_nothing_of_an_item_on_trial():
    tried = item(5_000, trial_end_at=at("2025-02-10"))
    data = subscription(item(2_400, "week", 2, inclusive_tax=Decimal(20)), tried)
    assert (bill(data, day="2025-02-09"), bill(data)) == (2_000, 7_000)


def test_a_bill_is_never_below_zero():
    assert bill(subscription(item(100), item(-300))) == 0


# Any contract, priced another way

DAYS = [date(2025, 1, 10) + timedelta(days=n) for n in (0, 7, 20, 40)]
MOMENTS = st.sampled_from([None, *(datetime.fromisoformat(f"{day}T06:00:00+00:00") for day in DAYS)])
PRODUCTS = ("prod_a", "prod_b")
MONTHS = {("month", 1): Fraction(1), ("year", 1): Fraction(1, 12), ("week", 2): Fraction("4.33") / 2}

discounts = st.builds(
    lambda off, products, starts, ends, duration: Discount(
        **off, product_ids=products, starts_at=starts, ends_at=ends, duration=duration
    ),
    st.one_of(
        st.fixed_dictionaries({"percent_off": st.sampled_from(list(map(Decimal, ("10", "33.3", "100"))))}),
        st.fixed_dictionaries({"amount_off": st.integers(0, 3_000)}),
        st.just({}),
    ),
    st.sampled_from([(), (), ("prod_a",), PRODUCTS]),
    MOMENTS,
    MOMENTS,
    st.sampled_from(["forever", "repeating", "once"]),
)
items = st.builds(
    lambda cycle, **fields: Item(interval=cycle[0], every=cycle[1], **fields),
    st.sampled_from(sorted(MONTHS)),
    unit_amount=st.sampled_from(list(map(Decimal, ("2499", "-800", "0.5", "12000")))),
    quantity=st.sampled_from([1, 3, Decimal("1.25")]),
    product_id=st.sampled_from(PRODUCTS),
    inclusive_tax=st.sampled_from(list(map(Decimal, ("0", "20", "7.7")))),
    trial_start_at=MOMENTS,
    trial_end_at=MOMENTS,
    discounts=st.lists(discounts, max_size=2).map(tuple),
)


def holds(day: date, starts: datetime | None, ends: datetime | None) -> bool:
    return (starts is None or starts.date() <= day) and (ends is None or ends.date() > day)


def take_off(amounts: dict[int, Fraction], data, off: Discount, day: date, months: Fraction | None) -> None:
    """Take a discount off some of the amounts, by the index of their items."""
    if off.duration == "once" or not holds(day, off.starts_at, off.ends_at):
        return
    chosen = [n for n in amounts if not off.product_ids or data.items[n].product_id in off.product_ids]
    whole = sum(amounts[n] for n in chosen)
    if off.percent_off is not None:
        for n in chosen:
            amounts[n] -= amounts[n] * Fraction(off.percent_off) / 100
    elif off.amount_off and whole > 0:
        if off.product_ids or months is None:
            months = max(MONTHS[data.items[n].interval, data.items[n].every] for n in chosen)
        taken = min(off.amount_off * months, whole)
        for n in chosen:
            amounts[n] -= taken * amounts[n] / whole


def expected_mrr(data, day: date) -> int:
    amounts: dict[int, Fraction] = {}
    for n, each in enumerate(data.items):
        if each.trial_end_at and holds(day, each.trial_start_at, each.trial_end_at):
            continue
        mine = {n: Fraction(each.unit_amount) * Fraction(each.quantity) * MONTHS[each.interval, each.every]}
        for off in each.discounts:
            take_off(mine, data, off, day, None)
        amounts |= mine
    for off in data.discounts:
        take_off(amounts, data, off, day, max(MONTHS[each.interval, each.every] for each in data.items))
    net = sum(amount * 100 / (100 + Fraction(data.items[n].inclusive_tax)) for n, amount in amounts.items())
    return round_fraction(max(Fraction(net), Fraction(0)))


@given(st.lists(items, min_size=1, max_size=4), st.lists(discounts, max_size=3))
@examples(300)
def test_any_contract_counts_what_another_way_of_reckoning_finds(several, off):
    data = subscription(*several, discounts=tuple(off))
    events = [created(data, "2025-01-10 05:00")]
    assert [mrr(events, day.isoformat()) for day in DAYS] == [expected_mrr(data, day) for day in DAYS]
