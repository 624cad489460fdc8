"""Money collected, refunded and lost in disputes, each once and on its own day. Source: contract 3."""

from itertools import permutations

import pytest

from projections.book import Rules
from projections.collections import COLLECTIONS, Cash
from projections.revenue import REVENUE, Failure, Order
from projections.status_words import UnknownStatus
from service.core.events import CREATED, DELETED
from tests.support.events import at, but, dispute, event, invoice, payment, refund, settles
from tests.support.folded_books import cash, rows_of

NEW_YORK = Rules(reporting_tz="America/New_York")
PAID = ("2025-11-13", "collected", 10_000)


def charged(**fields):
    return event(payment(**fields), "2025-11-13", rank=CREATED)


def charge_says(refunded: int, when: str, event_id: str | None = None):
    """What a charge's own event says of its refunds."""
    data = payment(amount_refunded=refunded, paid_at=at("2025-11-13"))
    return event(data, when, event_id, rank=DELETED)


# Invoices


def test_an_invoice_is_collected_on_the_day_it_was_paid_and_not_when_that_was_told():
    assert cash([event(invoice("paid"), "2025-11-15")]) == [PAID]


def test_an_invoice_without_a_time_of_payment_is_collected_when_it_was_told():
    assert cash([event(invoice("paid", paid_at=None), "2025-11-15")]) == [("2025-11-15", "collected", 10_000)]


def test_invoice_paid_and_payment_succeeded_are_one_fact():
    assert cash([event(invoice("paid"), "2025-11-13") for _ in range(2)]) == [PAID]


def test_payments_in_part_are_collected_each_on_its_day():
    events = [
        event(invoice(), "2025-11-13"),
        event(invoice(amount_paid=4_000), "2025-11-15"),
        event(invoice("paid", paid_at=at("2025-12-01")), "2025-12-01"),
    ]
    assert cash(events) == [("2025-11-15", "collected", 4_000), ("2025-12-01", "collected", 6_000)]


def test_an_open_invoice_is_not_collected():
    assert cash([event(invoice(), "2025-11-13")]) == []


def test_an_invoice_is_collected_on_the_reporting_zones_day():
    events = [event(invoice("paid", paid_at=at("2025-12-01 01:00")), "2025-12-01 01:00")]
    assert cash(events, NEW_YORK) == [("2025-11-30", "collected", 10_000)]


# Payments and their invoices


def test_a_payment_of_no_invoice_is_collected_once_however_often_it_is_told():
    events = [charged(), event(payment(), "2025-11-13 00:00:01"), event(payment(), "2025-11-14")]
    assert cash(events) == [PAID]


def test_a_failed_payment_is_not_collected():
    assert cash([charged(status="failed")]) == []


def test_a_payment_that_failed_first_is_collected_when_it_succeeded():
    assert cash([event(payment(status="failed"), "2025-11-10"), charged()]) == [PAID]


def test_a_payment_known_only_from_its_refund_is_collected_on_the_day_it_was_paid():
    assert cash([charge_says(2_500, "2025-11-20")]) == [PAID, ("2025-11-20", "refunded", 2_500)]


@pytest.mark.parametrize(
    "link",
    [
        event(invoice("paid", payment_ids=("pi_1",)), "2025-11-13"),
        event(settles(), "2025-11-13"),
    ],
    ids=["the invoice lists it", "an event joins them"],
)
def test_a_payment_linked_to_an_invoice_before_or_after_counts_once(link):
    events = {charged(), link, event(invoice("paid"), "2025-11-13")}
    assert all(cash(order) == [PAID] for order in permutations(events))


def test_a_payment_that_names_its_invoice_counts_through_it():
    assert cash([charged(invoice_id="in_1"), event(invoice("paid"), "2025-11-13")]) == [PAID]


def test_a_payment_for_an_invoice_that_it_does_not_name_counts_through_it():
    assert cash([charged(for_invoice=True), event(invoice("paid"), "2025-11-13")]) == [PAID]


def test_a_payment_is_collected_in_the_minor_units_of_its_currency():
    assert cash([charged(amount=1_200, currency="jpy")]) == [("2025-11-13", "collected", 1_200)]
    assert cash([charged(amount=12_345, currency="kwd")]) == [("2025-11-13", "collected", 12_345)]


# Refunds


def test_a_refund_counts_on_the_day_it_was_made():
    assert cash([charged(), event(refund(), "2025-11-25")]) == [PAID, ("2025-11-20", "refunded", 2_500)]


def test_a_refund_told_before_its_charge_counts():
    assert cash([event(refund(), "2025-11-20")]) == [("2025-11-20", "refunded", 2_500)]


@pytest.mark.parametrize("status", ["pending", "failed", "canceled", "requires_action"])
def test_a_refund_that_did_not_succeed_does_not_count(status):
    assert cash([charged(), event(refund(status=status), "2025-11-20")]) == [PAID]


def test_a_pending_refund_counts_once_it_has_succeeded_on_the_day_it_was_made():
    events = [
        charged(),
        event(refund(status="pending"), "2025-11-20", rank=0),
        event(refund(), "2025-11-24", rank=1),
    ]
    assert all(cash(order) == [PAID, ("2025-11-20", "refunded", 2_500)] for order in permutations(events))


def test_a_refund_that_succeeded_and_then_failed_does_not_count():
    events = [
        charged(),
        event(refund(), "2025-11-20", rank=1),
        event(refund(status="failed"), "2025-11-22", rank=2),
    ]
    assert cash(events) == [PAID]


def test_a_refund_told_by_itself_and_by_its_charge_counts_once():
    events = [charged(), charge_says(2_500, "2025-11-20"), event(refund(), "2025-11-20")]
    assert all(cash(order) == [PAID, ("2025-11-20", "refunded", 2_500)] for order in permutations(events))


def test_refunds_that_only_the_charge_tells_count_by_what_each_adds():
    events = [charged(), charge_says(2_500, "2025-11-20"), charge_says(10_000, "2025-12-02")]
    assert cash(events) == [PAID, ("2025-11-20", "refunded", 2_500), ("2025-12-02", "refunded", 7_500)]


def test_a_failed_refund_is_not_told_by_the_charge_either():
    events = [
        charged(),
        charge_says(2_500, "2025-11-20"),
        event(refund(status="failed"), "2025-11-21", rank=2),
    ]
    assert cash(events) == [PAID]


def test_two_refunds_of_one_second_are_two():
    events = [
        charged(),
        event(refund(2_500), "2025-11-20"),
        event(refund(2_500, refund_id="re_2"), "2025-11-20"),
        charge_says(5_000, "2025-11-20"),
    ]
    assert cash(events) == [PAID, *[("2025-11-20", "refunded", 2_500)] * 2]


def test_a_refund_of_an_invoices_payment_counts():
    events = [
        event(invoice("paid", payment_ids=("pi_1",)), "2025-11-13"),
        charged(),
        event(refund(), "2025-11-20"),
    ]
    assert cash(events) == [PAID, ("2025-11-20", "refunded", 2_500)]


def test_a_refund_that_only_the_charge_tells_keeps_its_day_beside_one_told_twice():
    events = [
        charged(),
        charge_says(2_000, "2025-11-20"),
        charge_says(5_000, "2025-12-05"),
        event(refund(3_000, "2025-12-05", refund_id="re_2"), "2025-12-05"),
    ]
    assert cash(events) == [PAID, ("2025-11-20", "refunded", 2_000), ("2025-12-05", "refunded", 3_000)]


def test_a_refund_of_no_payment_counts():
    alone = refund(1_150, "2025-11-21", payment_id=None)
    assert cash([event(alone, "2025-11-21")]) == [("2025-11-21", "refunded", 1_150)]


@pytest.mark.parametrize("amount", [2_500, 10_000])
def test_a_refund_of_unknown_status_counts_only_through_its_charge(amount):
    unsaid = event(refund(amount, status="unknown"), "2025-11-20")
    assert cash([charged(), unsaid]) == [PAID]
    events = [charged(), unsaid, charge_says(amount, "2025-11-20")]
    assert all(cash(order) == [PAID, ("2025-11-20", "refunded", amount)] for order in permutations(events))


@pytest.mark.parametrize("fields", [{"processor": "standard.acme"}, {"attempted_at": at("2025-11-13")}])
def test_a_refund_that_its_charge_takes_back_does_not_count(fields):
    processor = fields.pop("processor", "stripe")

    def says(refunded: int, when: str):
        return event(payment(amount_refunded=refunded, **fields), when, processor=processor)

    events = [
        says(0, "2025-11-13"),
        says(1_000, "2025-11-20"),
        says(4_000, "2025-11-22"),
        says(0, "2025-12-01"),
    ]
    assert cash(events[:3]) == [PAID, ("2025-11-20", "refunded", 1_000), ("2025-11-22", "refunded", 3_000)]
    assert cash(events) == [PAID]
    assert cash([*events[:3], says(1_500, "2025-12-01")]) == [
        PAID,
        ("2025-11-20", "refunded", 1_000),
        ("2025-11-22", "refunded", 500),
    ]


def test_refunds_that_a_charge_reports_in_one_second_are_never_a_fall():
    for first, second in permutations(("evt_a", "evt_b")):
        events = [
            charged(),
            charge_says(2_000, "2025-11-20", first),
            charge_says(3_100, "2025-11-20", second),
        ]
        assert sum(cents for _, kind, cents in cash(events) if kind == "refunded") == 3_100


def test_another_attempt_of_a_payment_says_nothing_of_its_refunds():
    made = at("2025-11-13")
    events = [
        event(payment(amount_refunded=700, attempted_at=made), "2025-11-20"),
        event(payment(status="failed", attempted_at=at("2025-11-12")), "2025-11-21"),
        event(payment(), "2025-11-22"),
    ]
    assert ("2025-11-20", "refunded", 700) in cash(events)


# Holds


def held(amount: int = 10_000, when: str = "2025-11-12", **fields):
    """A hold of `pi_1`, which has moved no money."""
    return event(payment(amount, status="authorized", **fields), when, rank=CREATED)


@pytest.mark.parametrize(("amount", "let_go"), [(3_700, "2025-11-19"), (125_000, "2025-12-01")])
def test_a_hold_that_is_released_collects_and_refunds_nothing(amount, let_go):
    released = held(amount, let_go, amount_released=amount)
    lapsed = event(refund(amount, let_go, captured=False), let_go)
    unexplained = event(refund(amount, let_go), let_go)
    assert cash([held(amount)]) == []
    assert all(cash(order) == [] for order in permutations([held(amount), released, lapsed]))
    assert cash([held(amount), unexplained]) == []
    assert cash([lapsed]) == []


def test_a_hold_is_collected_when_and_as_far_as_it_is_captured():
    captured = event(payment(6_200, amount_released=3_800), "2025-11-15")
    taken = [("2025-11-15", "collected", 6_200)]
    assert cash([held(), captured]) == taken
    given_back = event(refund(3_800, "2025-11-15"), "2025-11-15")
    assert all(cash(order) == taken for order in permutations([held(), captured, given_back]))


def test_a_refund_of_what_was_captured_counts_beside_the_part_that_was_released():
    captured = event(payment(6_200, amount_released=3_800), "2025-11-15")
    released = event(refund(3_800, "2025-11-15"), "2025-11-15")
    back = event(refund(3_800, "2025-11-22", refund_id="re_2"), "2025-11-22")
    assert cash([held(), captured, released, back]) == [
        ("2025-11-15", "collected", 6_200),
        ("2025-11-22", "refunded", 3_800),
    ]
    says = event(payment(6_200, amount_released=3_800, amount_refunded=3_800), "2025-11-22")
    assert ("2025-11-22", "refunded", 3_800) in cash([held(), captured, says, back])


# Disputes


def disputes(*statuses: str, **fields):
    """A dispute of each status, ten days apart, from 10 December on."""
    days = ("2025-12-10", "2025-12-20", "2025-12-30", "2026-01-09", "2026-01-19")
    return [event(dispute(status, **fields), day) for status, day in zip(statuses, days, strict=False)]


def test_a_lost_dispute_counts_on_the_day_it_was_lost():
    events = [
        charged(),
        event(dispute("needs_response"), "2025-11-20", rank=CREATED),
        event(dispute("lost"), "2025-12-20"),
        event(dispute("lost"), "2025-12-21", rank=DELETED),
    ]
    assert all(cash(order) == [PAID, ("2025-12-20", "disputed", 10_000)] for order in permutations(events))


@pytest.mark.parametrize("status", ["needs_response", "under_review", "won", "warning_closed"])
def test_a_dispute_that_is_not_lost_does_not_count(status):
    assert cash([charged(), event(dispute(status), "2025-12-20")]) == [PAID]


@pytest.mark.parametrize(
    ("statuses", "lost_on"),
    [
        (("lost", "won"), None),
        (("lost", "under_review"), "2025-12-10"),
        (("needs_response", "lost", "needs_response", "under_review"), "2025-12-20"),
        (("lost", "under_review", "won"), None),
        (("lost", "under_review", "lost"), "2025-12-10"),
        (("lost", "won", "under_review", "lost"), "2026-01-09"),
    ],
)
def test_a_lost_dispute_counts_until_it_is_won_whatever_lies_between(statuses, lost_on):
    expected = [(lost_on, "disputed", 10_000)] if lost_on else []
    assert cash(disputes(*statuses)) == expected


def test_a_dispute_took_its_money_on_its_first_day_though_one_event_does_not_name_the_payment():
    *earlier, last = disputes("lost", "under_review", "lost")
    nameless = event(but(last.data, payment_id=None), last.occurred_at, rank=0)
    for events in permutations([*earlier, nameless, last]):
        assert cash(events) == [("2025-12-10", "disputed", 10_000)]


@pytest.mark.parametrize(("taken", "expected"), [(None, []), (0, []), (8_150, 8_150), (12_000, 12_000)])
def test_a_prevented_dispute_counts_what_was_taken(taken, expected):
    rows = cash(disputes("needs_response", "prevented", amount_taken=taken))
    assert rows == ([("2025-12-20", "disputed", expected)] if expected else [])


# What came unsigned


def test_an_unsigned_payment_counts_once_a_fetch_confirms_it():
    waiting = event(payment(awaits_confirmation=True), "2025-11-13", trust="unsigned")
    fetched = event(payment(), "2025-11-13", trust="fetched")
    assert cash([waiting]) == []
    assert cash([waiting, fetched]) == cash([fetched, waiting]) == [PAID]


@pytest.mark.parametrize("created", ["2025-11-13 23:59", "2025-11-13 23:59:40", "2025-11-14"])
@pytest.mark.parametrize("invoice_id", [None, "1053"])
def test_a_payment_that_a_fetch_shows_voided_was_never_collected(created, invoice_id):
    notified = event(payment(invoice_id=invoice_id), "2025-11-13 23:59", "z", processor="mxmerchant")
    void = event(but(notified.data, status="voided"), created, "a", processor="mxmerchant", trust="fetched")
    assert cash([notified]) == [("2025-11-13", "collected", 10_000)]
    assert cash([notified, void]) == cash([void, notified]) == []


def test_an_unsigned_refund_counts_once_a_fetch_confirms_it():
    waiting = event(refund(awaits_confirmation=True), "2025-11-20", trust="unsigned")
    confirmed = event(refund(), "2025-11-20", trust="fetched")
    assert cash([charged(), waiting]) == [PAID]
    assert cash([charged(), waiting, confirmed]) == [PAID, ("2025-11-20", "refunded", 2_500)]


def test_an_unsigned_dispute_that_no_fetch_confirms_does_not_count():
    waiting = event(but(dispute("lost"), awaits_confirmation=True), "2025-12-20", trust="unsigned")
    assert cash([charged(), waiting]) == [PAID]


# Status words


@pytest.mark.parametrize("word", ["settled", "on_hold"])
def test_a_payment_of_an_unknown_status_counts_nothing_and_is_flagged(word):
    paid = event(payment(), "2025-11-13", processor="standard.acme")
    unknown = event(payment(status=word), "2025-11-20", processor="standard.acme")
    rows = rows_of(COLLECTIONS, [paid, unknown])
    assert sum(row.amount_cents for row in rows if isinstance(row, Cash)) == 0
    assert [(row.source_id, row.status) for row in rows if isinstance(row, UnknownStatus)] == [("pi_1", word)]


def test_an_invoice_of_an_unknown_status_counts_nothing_and_is_flagged():
    unknown = event(invoice("settled", amount_paid=500), "2025-11-13", processor="standard.acme")
    rows = rows_of(COLLECTIONS, [unknown])
    assert sum(row.amount_cents for row in rows if isinstance(row, Cash)) == 0
    assert [row.status for row in rows if isinstance(row, UnknownStatus)] == ["settled"]


def test_a_known_status_takes_the_flag_away():
    unknown = event(payment(status="settled"), "2025-11-13", processor="standard.acme")
    paid = event(payment(), "2025-11-14", processor="standard.acme")
    assert not any(isinstance(row, UnknownStatus) for row in rows_of(COLLECTIONS, [unknown, paid]))


def test_a_dispute_that_was_told_of_later_took_its_money_on_its_own_day():
    lost = event(dispute("lost", taken_at=at("2023-04-02")), "2025-11-13", trust="fetched")
    assert ("2023-04-02", "disputed", 10_000) in cash([event(payment(), "2023-03-01"), lost])


def test_a_failure_that_was_told_of_later_is_a_try_of_its_own_day():
    failed = payment(status="failed", failed_at=at("2023-03-01"), attempted_at=at("2023-03-01"))
    paid = payment(paid_at=at("2023-03-05"), attempted_at=at("2023-03-05"))
    rows = rows_of(REVENUE, [event(data, "2025-11-13", trust="fetched") for data in (failed, paid)])
    (order,) = [row for row in rows if isinstance(row, Order)]
    (failure,) = [row for row in rows if isinstance(row, Failure)]
    assert (order.date, order.paid_first_try, failure.date) == ("2023-03-05", False, "2023-03-01")
