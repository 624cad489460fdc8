"""Next bills, invoices by the day they were billed, and bills rolled on. Source: contract 3."""

from datetime import date

import pytest

from projections.book import Rules
from projections.schedules import decode
from service.core.cadence import cadence_label, schedule_label
from service.core.events import DELETED, Discount, InvoicePayment, Period
from tests.support.events import at, but, changed, created, event, invoice, item, payment, subscription
from tests.support.folded_books import bills, contract, listed, next_bill

TOKYO = Rules(reporting_tz="Asia/Tokyo")
NEW_YORK = Rules(reporting_tz="America/New_York")
NOVEMBER = at("2025-11-13")


def renewing(*items, **fields):
    return subscription(*items, **{"next_bill_at": NOVEMBER, **fields})


def of_sub(status="open", amount=24_900, when="2025-11-13", **fields):
    return invoice(status, amount, when, subscription_id="sub_1", **fields)


def one(data) -> list:
    return [created(data, "2025-10-13")]


# Next bills


def test_the_next_bill_is_the_processors_own_date_and_the_recurring_amount():
    assert listed(one(renewing())) == [("2025-11-13", "upcoming", 24_900)]


def test_the_next_bill_is_the_trials_end_while_trialing():
    trial = renewing(status="trialing", trial_end_at=at("2025-10-27"))
    assert next_bill(one(trial)) == "2025-10-27"


def test_a_trial_that_is_over_leaves_the_next_bill_alone():
    assert next_bill(one(renewing(trial_end_at=at("2025-10-27")))) == "2025-11-13"


@pytest.mark.parametrize(
    "status",
    ["canceled", "paused", "incomplete", "incomplete_expired", "unpaid", "inactive", "completed"],
)
def test_these_statuses_have_no_next_bill(status):
    assert next_bill(one(renewing(status=status))) is None


@pytest.mark.parametrize("status", ["active", "past_due", "trialing"])
def test_these_statuses_have_a_next_bill(status):
    assert next_bill(one(renewing(status=status))) == "2025-11-13"


def test_a_paused_collection_has_no_next_bill():
    assert next_bill(one(renewing(collection_paused=True))) is None


@pytest.mark.parametrize(
    ("cancel_at", "expected"),
    [("2025-11-12", None), ("2025-11-13", None), ("2025-11-13 23:59", None), ("2025-11-14", "2025-11-13")],
)
def test_a_cancellation_on_or_before_the_date_leaves_no_next_bill(cancel_at, expected):
    assert next_bill(one(renewing(cancel_at=at(cancel_at)))) == expected


def test_a_late_active_gives_a_canceled_contract_no_next_bill():
    plan = renewing()
    gone = event(but(plan, status="canceled"), "2025-10-20", rank=DELETED)
    assert next_bill([*one(plan), gone, changed(plan, "2025-10-21")]) is None


def test_the_next_bill_is_less_the_discounts_that_last_until_then():
    off = Discount(amount_off=4_900, duration="repeating", ends_at=at("2025-11-13"))
    lasting = Discount(amount_off=4_900, duration="repeating", ends_at=at("2025-11-14"))
    assert [listed(one(renewing(discounts=(d,))))[0][2] for d in (off, lasting)] == [24_900, 20_000]


def test_the_next_bill_leaves_out_metered_and_one_off_items():
    items = (item(1_000), item(500, metered=True), item(900, "once"))
    assert listed(one(renewing(*items))) == [("2025-11-13", "upcoming", 1_000)]


def test_the_next_bill_is_one_interval_and_not_a_month():
    (bill,) = bills(one(renewing(item(53_500, "week"))))
    assert (bill.amount_cents, bill.mrr_cents) == (53_500, 231_655)


def test_a_once_contract_has_a_next_bill_and_no_bill_after_it():
    (bill,) = bills(one(renewing(item(9_000, "once"))))
    assert (bill.date, bill.amount_cents, bill.mrr_cents, bill.next_bill_date) == (
        "2025-11-13",
        9_000,
        0,
        None,
    )


def test_a_declined_once_contract_keeps_its_next_bill():
    (bill,) = bills(one(renewing(item(9_000, "once"), declined=True)))
    assert (bill.amount_cents, bill.declined) == (9_000, True)


def test_a_past_due_contract_shows_as_declined():
    assert contract(one(renewing(status="past_due"))).declined


def test_a_next_bill_of_nothing_is_not_listed():
    assert listed(one(renewing(item(0)))) == []


def test_a_moment_lands_on_the_reporting_zones_day():
    plan = one(renewing(next_bill_at=at("2025-11-30 20:00")))
    assert [next_bill(plan), next_bill(plan, TOKYO)] == ["2025-11-30", "2025-12-01"]


def test_a_calendar_date_never_shifts():
    plan = one(subscription(next_bill_on=date(2025, 11, 30)))
    assert {next_bill(plan, rules) for rules in (Rules(), TOKYO, NEW_YORK)} == {"2025-11-30"}


# What comes after it


@pytest.mark.parametrize(
    ("interval", "every", "label", "word"),
    [
        ("week", 1, "Weekly - 1 Week", "weekly"),
        ("week", 4, "Weekly - 4 Weeks", "every 4 weeks"),
        ("week", 10, "Weekly - 10 Weeks", "every 10 weeks"),
        ("month", 1, "Monthly - 1 Month", "monthly"),
        ("month", 3, "Monthly - 3 Months", "quarterly"),
        ("year", 1, "Yearly - 1 Year", "yearly"),
        ("once", 1, "Once", "once"),
    ],
)
def test_schedules_read_the_same_whatever_the_processor(interval, every, label, word):
    assert (schedule_label(interval, every), cadence_label(interval, every)) == (label, word)


# The contract's own schedule, and discounts that end


def test_a_contract_says_what_its_bills_are_worth_after_each_discounts_end():
    offs = (
        Discount(amount_off=4_900, duration="repeating", ends_at=at("2026-01-13")),
        Discount(amount_off=1_000, duration="repeating", ends_at=at("2026-03-01")),
    )
    row = contract(one(renewing(discounts=offs)))
    assert row.amount_cents == 19_000
    (schedule,) = decode(row.schedules)
    assert schedule.amounts == (("2025-11-13", 19_000), ("2026-01-13", 23_900), ("2026-03-01", 24_900))


# Invoices


def test_an_invoice_is_billed_on_the_day_it_was_finalized():
    draft = invoice("draft")
    open_ = but(draft, status="open", finalized_at=at("2025-12-01 01:00"))
    assert listed([event(draft, "2025-11-13"), event(open_, "2025-12-01 01:00")]) == [
        ("2025-12-01", "open", 10_000)
    ]


def test_an_invoice_near_midnight_is_billed_on_the_reporting_zones_day():
    events = [event(invoice(finalized_at=at("2025-12-01 01:00")), "2025-12-01 01:00")]
    assert listed(events, NEW_YORK) == [("2025-11-30", "open", 10_000)]


def test_a_draft_counts_as_upcoming_on_the_day_it_was_made():
    assert listed([event(invoice("draft"), "2025-11-13")]) == [("2025-11-13", "draft", 10_000)]


@pytest.mark.parametrize("status", ["void", "deleted"])
def test_void_and_deleted_invoices_are_left_out(status):
    events = [event(invoice("draft"), "2025-11-13"), event(invoice(status), "2025-11-13")]
    assert listed(events) == []


@pytest.mark.parametrize("word", ["cancelled", "pending", "voided"])
def test_an_invoice_with_a_word_that_no_rule_knows_is_no_bill(word):
    known = event(invoice(), "2025-11-13", processor="standard.acme")
    unknown = event(invoice(word), "2025-11-14", processor="standard.acme")
    assert listed([known, unknown]) == []


def test_an_invoice_of_nothing_is_left_out():
    assert listed([event(invoice("paid", 0), "2025-11-13")]) == []


def test_an_uncollectible_invoice_is_listed_and_owes_nothing():
    (bill,) = bills([event(invoice(), "2025-11-13"), event(invoice("uncollectible"), "2025-12-13")])
    assert (bill.status, bill.open_cents) == ("uncollectible", 0)


def test_an_uncollectible_invoice_may_still_be_paid():
    events = [event(invoice("uncollectible"), "2025-12-13"), event(invoice("paid"), "2025-12-20")]
    assert listed(events) == [("2025-11-13", "paid", 10_000)]


def test_a_paid_invoice_that_is_open_again_is_owed_again():
    (bill,) = bills([event(invoice("paid"), "2025-11-13"), event(invoice("open"), "2025-11-14")])
    assert (bill.status, bill.open_cents) == ("open", 10_000)


@pytest.mark.parametrize("status", ["void", "deleted"])
def test_a_void_or_deleted_invoice_stays_so(status):
    assert listed([event(invoice(status), "2025-11-13"), event(invoice("open"), "2025-11-14")]) == []


@pytest.mark.parametrize(("paid", "given_up"), [(0, 10_000), (4_000, 6_000), (9_999, 1)])
def test_what_is_given_up_of_an_invoice_is_what_was_not_paid(paid, given_up):
    events = [event(invoice(), "2025-11-13"), event(invoice("uncollectible", amount_paid=paid), "2025-12-13")]
    (bill,) = bills(events)
    assert (bill.open_cents, bill.uncollectible_cents) == (0, given_up)


def test_an_invoice_made_opened_and_paid_in_one_second_is_paid():
    events = [event(invoice(status), "2025-11-13") for status in ("paid", "open", "draft")]
    assert listed(events) == listed(events[::-1]) == [("2025-11-13", "paid", 10_000)]


def test_an_invoice_whose_collection_failed_says_so_until_it_is_paid():
    failed = event(invoice(payment_failed=True), "2025-11-13 10:00")
    (bill,) = bills([event(invoice(), "2025-11-13"), failed])
    assert (bill.status, bill.declined, bill.open_cents) == ("failed", True, 10_000)
    assert listed([failed, event(invoice("paid"), "2025-11-20")]) == [("2025-11-13", "paid", 10_000)]


def test_what_is_paid_in_part_is_open_for_the_rest():
    partly = invoice(amount_paid=4_000)
    (bill,) = bills([event(invoice(), "2025-11-13"), event(partly, "2025-11-15")])
    assert (bill.amount_cents, bill.open_cents) == (10_000, 6_000)


def test_what_remains_is_taken_as_it_is_told():
    (bill,) = bills([event(invoice(amount_paid=1_000, amount_remaining=2_000), "2025-11-13")])
    assert bill.open_cents == 2_000


# An invoice and the next bill


def test_an_invoice_covers_the_next_bill_while_the_subscriptions_update_is_late():
    events = [*one(renewing()), event(of_sub("draft"), "2025-11-13")]
    assert listed(events) == [("2025-11-13", "draft", 24_900)]


def test_both_stand_once_the_subscription_has_moved_on():
    moved = changed(renewing(next_bill_at=at("2025-12-13")), "2025-11-13 00:01")
    events = [*one(renewing()), event(of_sub(), "2025-11-13"), moved]
    assert listed(events) == [("2025-11-13", "open", 24_900), ("2025-12-13", "upcoming", 24_900)]
    assert bills(events)[0].next_bill_date == "2025-12-13"


@pytest.mark.parametrize("amount", [500, 30_000])
def test_an_invoice_of_changes_does_not_cover_the_renewal_of_its_day(amount):
    changes = of_sub("paid", amount, within_period=True)
    assert listed([*one(renewing()), event(changes, "2025-11-13")]) == [
        ("2025-11-13", "paid", amount),
        ("2025-11-13", "upcoming", 24_900),
    ]


def test_an_earlier_invoice_does_not_cover_the_next_bill():
    events = [*one(renewing()), event(of_sub("paid", when="2025-10-13"), "2025-10-13")]
    assert [day for day, _, _ in listed(events)] == ["2025-10-13", "2025-11-13"]


@pytest.mark.parametrize(("status", "amount"), [("void", 24_900), ("paid", 0)])
def test_a_void_invoice_or_one_of_nothing_covers_the_next_bill(status, amount):
    assert listed([*one(renewing()), event(of_sub(status, amount), "2025-11-13")]) == []


def test_a_deleted_draft_does_not_cover_the_next_bill():
    events = [*one(renewing()), event(of_sub("deleted"), "2025-11-13")]
    assert listed(events) == [("2025-11-13", "upcoming", 24_900)]


def period(start, end):
    return Period(starts_at=at(start), ends_at=at(end))


def in_december(*items):
    """A contract whose anchor is the 10th at noon, and whose items have next bills of their own."""
    return one(subscription(*items, anchor_at=at("2025-09-10 12:00")))


def own(cents, interval, next_bill, every=1):
    return item(cents, interval, every, next_bill_at=at(next_bill))


def still_to_come(events) -> list:
    return [(day, cents) for day, status, cents in listed(events) if status == "upcoming"]


@pytest.mark.parametrize(
    ("billed", "expected"),
    [
        (period("2025-12-10 12:00", "2026-01-10 12:00"), []),
        (period("2026-01-10 12:00", "2026-02-10 12:00"), []),
        (period("2025-11-10 12:00", "2025-12-10 12:00"), [("2025-12-10", 4_900)]),
        (period("2025-12-10 12:00", "2025-12-15 09:00"), []),
        (period("2025-12-09 12:00", "2025-12-15 09:00"), [("2025-12-10", 4_900)]),
    ],
    ids=["that period", "a later one", "the one before", "one of no interval", "one of none, earlier"],
)
@pytest.mark.parametrize("made", ["2025-11-20", "2025-12-10 09:00", "2025-12-12"])
def test_an_invoice_covers_the_bills_whose_period_it_bills_whenever_it_is_made(billed, expected, made):
    events = in_december(own(4_900, "month", "2025-12-10 12:00"))
    assert still_to_come([*events, event(of_sub("paid", 100, made, periods=(billed,)), made)]) == expected


def test_an_invoice_of_the_month_before_and_the_one_to_come_covers_the_renewal():
    events = in_december(item(4_900, next_bill_at=at("2025-12-10 12:00")), item(5, metered=True))
    used = period("2025-11-10 12:00", "2025-12-10 12:00")
    renewed = period("2025-12-10 12:00", "2026-01-10 12:00")
    for periods in ((used, renewed), (renewed, used)):
        issued = event(of_sub("paid", when="2025-12-10 12:00", periods=periods), "2025-12-10 12:00")
        assert still_to_come([*events, issued]) == []


WEEKLY, MONTHLY, YEARLY = (own(7, "week", "2025-12-03"), own(49, "month", "2025-12-10"),
                           own(500, "year", "2025-12-10"))  # fmt: skip


@pytest.mark.parametrize(
    ("periods", "expected"),
    [
        ([("2025-12-10", "2026-01-10")], [7, 500]),
        ([("2025-12-10", "2025-12-17")], [49, 500]),
        ([("2025-12-10", "2026-12-10")], [7, 49]),
        ([("2025-12-10", "2025-12-17"), ("2025-12-10", "2026-01-10")], [500]),
        ([("2025-12-03", "2025-12-10")], [49, 500]),
        ([("2025-11-26", "2025-12-03")], [7, 49, 500]),
        ([("2025-12-10", "2025-12-31")], []),
        ([("2025-12-03", "2025-12-31")], [49, 500]),
        ([], []),
    ],
)
def test_an_invoice_covers_the_bills_of_its_own_interval(periods, expected):
    events = in_december(WEEKLY, MONTHLY, YEARLY)
    stated = tuple(period(*each) for each in periods)
    issued = event(of_sub("paid", when="2025-12-10", periods=stated), "2025-12-10")
    assert sorted(cents for _, cents in still_to_come([*events, issued])) == expected


def test_a_period_that_may_be_of_two_intervals_covers_both():
    items = own(1, "week", "2026-02-01", 4), own(2, "month", "2026-02-01")
    issued = of_sub("paid", when="2026-02-01", periods=(period("2026-02-01", "2026-03-01"),))
    events = [*one(subscription(*items, anchor_at=at("2026-01-01"))), event(issued, "2026-02-01")]
    assert still_to_come(events) == []


@pytest.mark.parametrize(("start", "end"), [("2025-01-31", "2025-02-28"), ("2025-02-28", "2025-03-31")])
def test_the_periods_of_short_months_are_months(start, end):
    plan = subscription(own(1, "week", start, 5), own(2, "month", start), anchor_at=at("2024-12-31"))
    issued = event(of_sub("paid", when=start, periods=(period(start, end),)), start)
    assert [cents for _, cents in still_to_come([created(plan, "2025-01-01"), issued])] == [1]


def test_a_period_starts_on_a_day_of_the_reporting_zone_and_is_as_long_as_in_utc():
    plan = one(renewing(item(2), own(1, "week", "2025-11-01 03:30"), next_bill_at=at("2025-11-01 03:30")))
    issued = of_sub(
        "paid", when="2025-11-01 03:30", periods=(period("2025-11-01 03:30", "2025-12-01 03:30"),)
    )
    for rules in (Rules(), TOKYO, NEW_YORK):
        found = listed([*plan, event(issued, "2025-11-01 03:30")], rules)
        assert [cents for _, status, cents in found if status == "upcoming"] == [1]


def test_a_bill_shows_the_contracts_mrr_at_the_end_of_its_day():
    dearer = changed(renewing(item(30_000), next_bill_at=at("2025-12-13")), "2025-11-13 05:00")
    events = [*one(renewing()), event(of_sub(), "2025-11-13"), dearer]
    assert [bill.mrr_cents for bill in bills(events)] == [30_000, 30_000]


def test_an_invoice_before_its_subscription_is_told_is_a_bill_by_itself():
    (bill,) = bills([event(of_sub(), "2025-11-13")])
    assert (bill.contract_id, bill.interval, bill.mrr_cents) == ("sub_1", "once", 0)


def test_a_draft_on_the_stated_day_is_followed_by_the_bill_an_interval_on():
    events = [*one(renewing()), event(of_sub("draft"), "2025-11-13")]
    (bill,) = bills(events)
    assert (bill.status, bill.next_bill_date) == ("draft", "2025-12-13")


def test_an_invoice_long_after_the_stated_day_is_followed_by_the_first_bill_after_it():
    plan = renewing(anchor_at=at("2024-12-31"), next_bill_at=at("2025-02-28"))
    (bill,) = bills([*one(plan), event(of_sub(when="2025-04-10"), "2025-04-10")])
    assert bill.next_bill_date == "2025-04-30"


@pytest.mark.parametrize(
    "plan",
    [
        renewing(cancel_at=at("2025-12-13")),
        renewing(item(9_000, "once")),
        renewing(status="canceled"),
        subscription(),
    ],
    ids=["ends then", "once", "canceled", "states no next bill"],
)
def test_nothing_follows_the_last_bill(plan):
    (bill,) = bills([*one(plan), event(of_sub(), "2025-11-13")])
    assert bill.next_bill_date is None


def test_two_invoices_of_one_day_are_followed_by_the_bill_after_that_day():
    moved = renewing(next_bill_at=at("2025-12-13"))
    both = [event(of_sub(invoice_id=name), "2025-11-13") for name in ("in_1", "in_2")]
    assert [bill.next_bill_date for bill in bills([*one(moved), *both])] == [
        "2025-12-13",
        "2025-12-13",
        "2026-01-13",
    ]


# What its payments say of it


def owed(*events) -> tuple[str, int, int]:
    """(status, open cents, uncollectible cents) of the one bill."""
    (bill,) = bills(events)
    return bill.status, bill.open_cents, bill.uncollectible_cents


@pytest.mark.parametrize("contract_id", [None, "sub_1"])
def test_an_open_invoice_owes_what_its_payments_have_not_paid(contract_id):
    bill = event(invoice(subscription_id=contract_id), "2025-11-13")
    part = event(payment(3_000, invoice_id="in_1"), "2025-11-14")
    rest = [
        event(payment(7_000, payment_id="pi_2"), "2025-11-15"),
        event(InvoicePayment(invoice_id="in_1", payment_id="pi_2", amount_paid=7_000), "2025-11-15"),
    ]
    assert owed(bill, part) == ("open", 7_000, 0)
    assert owed(bill, part, *rest) == ("paid", 0, 0)


def test_an_invoice_that_was_given_up_lost_what_its_payments_have_not_paid():
    given_up = event(invoice("uncollectible"), "2025-12-01")
    part = event(payment(4_000, invoice_id="in_1"), "2025-11-14")
    assert owed(given_up, part) == ("uncollectible", 0, 6_000)


@pytest.mark.parametrize(("part", "link"), [(10_000, {}), (4_000, {"invoice_id": "in_1"})])
def test_a_paid_invoice_owes_what_a_payment_took_back(part, link):
    paid = event(invoice("paid"), "2025-11-13")
    made = event(payment(part, **link), "2025-11-13")
    failed = event(payment(part, status="failed", **link), "2025-12-05")
    assert owed(paid, made) == ("paid", 0, 0)
    assert owed(paid, made, failed) == ("open", part, 0)
