"""A contract's past before its first event, by what was billed."""

from collections.abc import Sequence
from itertools import pairwise, permutations

import pytest

from projections.book import Rules
from projections.mrr import MRR, Movement, Step
from service.core.cadence import schedule_of_period
from service.core.events import BilledItem, EndingDiscount, Event, Subscription
from tests.support.events import at, but, changed, created, event, invoice, item, subscription
from tests.support.folded_books import bills, contract, movements, mrr, rows_of


def billed(
    start: str, end: str, amount: int = 10_000, interval: str | None = "month", **fields
) -> BilledItem:
    fields = {"item_id": "si_1", **fields}
    return BilledItem(starts_at=at(start), ends_at=at(end), amount=amount, interval=interval, **fields)


def bill(number: int, *items: BilledItem, status: str = "paid", **fields) -> Event:
    """An invoice of `sub_1`, issued when its first item's period begins."""
    day = min(each.starts_at for each in items)
    data = invoice(status, when=day.date().isoformat(), invoice_id=f"in_{number}", billed=items)
    return event(but(data, subscription_id="sub_1", **fields), day)


def observed(when: str, *items, **fields) -> Event:
    """The contract as its processor's API shows it."""
    return changed(subscription(*(items or (item(10_000),)), **fields), when, trust="fetched")


def levels(events: Sequence[Event], *days: str) -> list[int]:
    return [mrr(events, day) for day in days]


def trusts(events: Sequence[Event]) -> dict[str, str]:
    return {row.date: row.trust for row in rows_of(MRR, events) if isinstance(row, Movement)}


MONTHS = ("2025-01-10", "2025-02-10", "2025-03-10", "2025-04-10")
THREE_MONTHS = [bill(n, billed(*span)) for n, span in enumerate(pairwise(MONTHS))]


def test_a_contract_first_observed_counts_before_by_what_was_billed():
    events = [*THREE_MONTHS, observed("2025-04-02")]
    assert movements(events) == [("2025-01-10", "new", 10_000)]
    assert levels(events, "2025-01-09", "2025-01-10", "2025-03-31", "2025-04-02") == [
        0,
        10_000,
        10_000,
        10_000,
    ]


def test_what_is_inferred_says_so_and_what_is_observed_does_not():
    events = [*THREE_MONTHS, observed("2025-04-02")]
    assert trusts(events) == {"2025-01-10": "inferred"}
    steps = [row for row in rows_of(MRR, events) if isinstance(row, Step)]
    assert sorted((s.date, s.trust, s.mrr_cents, s.contracts) for s in steps) == [
        ("2025-01-10", "inferred", 10_000, 1),
        ("2025-04-02", "fetched", 10_000, 1),
        ("2025-04-02", "inferred", -10_000, -1),
    ]


def test_the_causes_of_what_is_inferred_are_the_invoices():
    events = [*THREE_MONTHS, observed("2025-04-02")]
    (first,) = [row for row in rows_of(MRR, events) if isinstance(row, Movement)]
    assert first.causes == f'["{THREE_MONTHS[0].cause}"]'


def test_events_in_any_order_give_the_same_rows():
    events = [*THREE_MONTHS[:2], observed("2025-04-02"), observed("2025-05-02", item(12_000))]
    expected = set(rows_of(MRR, events))
    assert all(set(rows_of(MRR, order)) == expected for order in permutations(events))


def test_without_an_event_of_the_contract_nothing_is_inferred():
    assert movements(THREE_MONTHS) == []


def test_nothing_is_inferred_from_the_first_event_on():
    events = [*THREE_MONTHS, created(subscription(item(7_000)), "2025-01-10")]
    assert movements(events) == [("2025-01-10", "new", 7_000)]
    assert trusts(events) == {"2025-01-10": "signed"}


def test_a_price_that_rose_and_a_gap_without_bills_are_movements():
    events = [
        bill(1, billed("2025-01-10", "2025-02-10")),
        bill(2, billed("2025-02-10", "2025-03-10", 15_000)),
        bill(3, billed("2025-05-10", "2025-06-10", 15_000)),
        observed("2025-06-01", item(15_000)),
    ]
    assert movements(events) == [
        ("2025-01-10", "new", 10_000),
        ("2025-02-10", "expansion", 5_000),
        ("2025-03-10", "churn", -15_000),
        ("2025-05-10", "reactivation", 15_000),
    ]


def test_a_contract_that_had_ended_when_it_was_observed_counts_until_its_end():
    ended = observed("2025-08-01", status="canceled", ended_at=at("2025-03-20"))
    assert movements([*THREE_MONTHS, ended]) == [
        ("2025-01-10", "new", 10_000),
        ("2025-03-20", "churn", -10_000),
    ]


def test_a_yearly_and_a_monthly_item_count_each_by_its_interval():
    events = [
        bill(1, billed("2024-03-01", "2025-03-01", 120_000, "year", item_id="si_y")),
        bill(2, billed("2024-06-01", "2024-07-01", 1_000, item_id="si_m")),
        observed("2025-01-01", item(120_000, "year")),
    ]
    assert levels(events, "2024-05-31", "2024-06-01", "2024-07-01") == [10_000, 11_000, 10_000]


def test_the_interval_is_that_of_the_contracts_item_of_that_price_where_the_line_has_none():
    line = billed("2025-02-01", "2025-03-01", 10_000, None, price_id="price_1")
    events = [bill(1, line), observed("2025-02-20", item(10_000, "week", 4, price_id="price_1"))]
    assert mrr(events, "2025-02-10") == 10_825  # four weeks, though February is a month


def test_a_metered_item_of_the_contract_is_not_inferred():
    line = billed("2025-02-01", "2025-03-01", 10_000, None, price_id="price_1")
    assert (
        mrr([bill(1, line), observed("2025-02-20", item(price_id="price_1", metered=True))], "2025-02-10")
        == 0
    )


@pytest.mark.parametrize("metered", [True, False])
def test_what_was_billed_in_arrears_is_by_use_unless_the_contract_says_otherwise(metered):
    line = billed(
        "2025-01-10", "2025-02-10", 2_000, None, item_id="si_2", price_id="price_2", in_arrears=True
    )
    bills = [*THREE_MONTHS, bill(9, line)]
    removed = observed("2025-04-02")
    shown = observed("2025-04-02", item(10_000), item(2_000, price_id="price_2", metered=metered))
    assert mrr([*bills, removed], "2025-01-20") == 10_000
    assert mrr([*bills, shown], "2025-01-20") == (10_000 if metered else 12_000)


def test_discounts_that_end_within_a_yearly_period_count_until_they_end():
    """$1,200 a year, less $240 for three months and $120 for six, is $70, $90 and then $100 a month."""
    ending = [
        EndingDiscount(ends_at=at("2024-09-01"), amount=12_000),
        EndingDiscount(ends_at=at("2024-06-01"), amount=24_000),
    ]
    line = billed("2024-03-01", "2025-03-01", 84_000, "year", ending_discounts=tuple(ending))
    events = [bill(1, line), observed("2025-03-01", item(120_000, "year"))]
    assert movements(events) == [
        ("2024-03-01", "new", 7_000),
        ("2024-06-01", "expansion", 2_000),
        ("2024-09-01", "expansion", 1_000),
    ]


def test_a_discount_that_would_end_after_the_item_was_billed_anew_ends_nothing():
    ending = (EndingDiscount(ends_at=at("2024-09-01"), amount=24_000),)
    events = [
        bill(1, billed("2024-03-01", "2025-03-01", 96_000, "year", ending_discounts=ending)),
        bill(2, billed("2024-05-01", "2024-06-01", 9_000)),
        observed("2024-06-01", item(9_000)),
    ]
    assert movements(events) == [("2024-03-01", "new", 8_000), ("2024-05-01", "expansion", 1_000)]


@pytest.mark.parametrize("status", ["draft", "void", "deleted"])
def test_an_invoice_that_was_not_issued_or_is_void_infers_nothing(status):
    assert movements(
        [bill(1, billed("2025-01-10", "2025-02-10"), status=status), observed("2025-02-01")]
    ) == [("2025-02-01", "new", 10_000)]


@pytest.mark.parametrize("status", ["open", "uncollectible"])
def test_an_invoice_that_is_not_paid_infers_like_a_paid_one(status):
    events = [bill(1, billed("2025-01-10", "2025-02-10"), status=status), observed("2025-02-01")]
    assert movements(events) == [("2025-01-10", "new", 10_000)]


def test_a_later_period_of_an_item_ends_the_one_before():
    events = [
        bill(1, billed("2025-01-01", "2025-02-01", 10_000)),
        bill(2, billed("2025-01-15", "2026-01-15", 240_000, "year")),
        observed("2025-01-20", item(240_000, "year")),
    ]
    assert levels(events, "2025-01-14", "2025-01-15", "2025-01-20") == [10_000, 20_000, 20_000]


def test_lines_of_one_item_and_period_add_up_and_a_second_invoice_of_them_does_not():
    tiers = [billed("2025-01-01", "2025-02-01", 3_000), billed("2025-01-01", "2025-02-01", 2_000)]
    events = [bill(1, *tiers), bill(2, *tiers), observed("2025-01-20", item(5_000))]
    assert mrr(events, "2025-01-10") == 5_000


def test_nothing_counts_before_the_contracts_start_or_in_its_trial():
    events = [
        bill(1, billed("2025-01-01", "2025-02-01")),
        bill(2, billed("2025-02-01", "2025-03-01")),
        observed(
            "2025-02-25",
            started_at=at("2025-01-05"),
            trial_start_at=at("2025-01-10"),
            trial_end_at=at("2025-02-10"),
        ),
    ]
    assert levels(events, "2025-01-04", "2025-01-05", "2025-01-10", "2025-02-09", "2025-02-10") == [
        *(0, 10_000, 0),
        *(0, 10_000),
    ]


def test_periods_begin_in_the_reporting_zone():
    events = [bill(1, billed("2025-01-10 02:00", "2025-02-10 02:00")), observed("2025-02-01")]
    found = movements(events, Rules(reporting_tz="America/New_York"))
    assert found == [("2025-01-09", "new", 10_000)]


def test_a_contract_that_moved_counts_for_its_first_customer_before():
    events = [
        *THREE_MONTHS,
        observed("2025-04-02"),
        event(subscription(item(10_000), customer_id="cus_2"), "2025-04-20"),
    ]
    found = [row for row in rows_of(MRR, events) if isinstance(row, Movement)]
    assert sorted((row.customer_id, row.date, row.kind) for row in found) == [
        ("cus_1", "2025-01-10", "new"),
        ("cus_1", "2025-04-20", "churn"),
        ("cus_2", "2025-04-20", "new"),
    ]
    assert contract(events).terms.startswith('[["2025-01-10",10000,true]')


def test_an_invoice_of_the_past_shows_the_inferred_mrr_of_its_day():
    events = [*THREE_MONTHS, observed("2025-04-02", next_bill_at=at("2025-04-10"))]
    assert [(row.date, row.mrr_cents) for row in bills(events)] == [
        ("2025-01-10", 10_000),
        ("2025-02-10", 10_000),
        ("2025-03-10", 10_000),
        ("2025-04-10", 10_000),
    ]


def test_an_end_that_can_not_be_read_keeps_the_customer_of_nobody():
    ended = Subscription(
        subscription_id="sub_1", customer_id="cus_1", status="canceled", currency="xxx", items=()
    )
    events = [*THREE_MONTHS, changed(but(ended, ended_at=at("2025-03-20")), "2025-08-01")]
    assert movements(events) == [("2025-01-10", "new", 10_000), ("2025-03-20", "churn", -10_000)]


def test_four_weeks_of_february_are_four_weeks_where_the_price_is_billed_so_otherwise():
    """The contract has another price since, and the lines of its invoices name theirs by the id alone."""
    days = ("2025-01-04", "2025-02-01", "2025-03-01", "2025-03-29")
    events = [
        bill(number, billed(*span, interval=None, price_id="price_of_four_weeks"))
        for number, span in enumerate(pairwise(days))
    ]
    events.append(observed("2025-08-02"))
    assert levels(events, "2025-01-05", "2025-02-05", "2025-03-05") == [10_825] * 3


def test_a_void_invoice_tells_how_often_its_price_was_billed_and_nothing_else():
    february = billed("2025-02-03", "2025-03-03", 10_000, None, price_id="price_1")
    march = billed("2025-03-03", "2025-03-31", 10_000, None, price_id="price_1")
    events = [
        bill(1, february),
        bill(2, march, status="void"),
        observed("2025-04-01", item(price_id="price_2")),
    ]
    assert levels(events, "2025-02-10", "2025-03-10") == [10_825, 0]


def test_a_line_that_states_its_interval_tells_it_of_other_lines_too():
    stated = billed("2025-02-01", "2025-03-01", interval="week", every=4, price_id="price_of_four_weeks")
    silent = billed("2026-02-01", "2026-03-01", interval=None, price_id="price_of_four_weeks")
    events = [bill(1, stated), bill(2, silent), observed("2026-08-02")]
    assert levels(events, "2025-02-05", "2026-02-05") == [10_825, 10_825]


def test_the_length_of_a_trial_says_nothing_of_how_often_its_price_is_billed():
    terms = {"interval": None, "price_id": "price_of_a_month"}
    events = [
        bill(1, billed("2024-12-27", "2025-01-10", amount=0, **terms)),
        bill(2, billed("2025-01-10", "2025-02-10", **terms)),
        observed("2025-08-02"),
    ]
    assert levels(events, "2025-01-05", "2025-01-20") == [0, 10_000]


@pytest.mark.parametrize(
    ("start", "end", "schedule"),
    [
        ("2025-01-10", "2025-02-10", ("month", 1)),
        ("2025-01-31", "2025-02-28", ("month", 1)),
        ("2025-02-28", "2025-03-31", ("month", 1)),
        ("2025-02-01", "2025-03-01", ("month", 1)),
        ("2025-01-15", "2025-04-15", ("month", 3)),
        ("2024-02-29", "2025-02-28", ("year", 1)),
        ("2024-01-01", "2026-01-01", ("year", 2)),
        ("2025-01-10", "2025-02-07", ("week", 4)),
        ("2025-01-10", "2025-01-17", ("week", 1)),
        ("2025-01-10", "2025-01-20", ("day", 10)),
    ],
)
def test_the_length_of_a_period_is_its_interval(start, end, schedule):
    assert schedule_of_period(at(start).date(), at(end).date()) == schedule
