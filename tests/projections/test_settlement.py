"""Which payment settles which invoice, and what a link is worth once either side takes it back.

Source: contract 3.
"""

from collections import Counter
from datetime import datetime, timedelta
from functools import partial
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json
from sqlalchemy import select

from projections.collections import COLLECTIONS, Cash
from projections.revenue import REVENUE, CustomerRevenue, Failure, Order, Reversal
from service.books.tables import ROWS, STATEMENTS, row_types
from service.core.events import Event, InvoicePayment
from tests.support.events import at, but, dispute, event, invoice, payment, refund
from tests.support.folded_books import cash, rows_of
from tests.support.temporary_books import new_books

PAID = ("2025-11-13", "collected", 10_000)


def linked(status: str = "paid", amount: int | None = None, **fields) -> InvoicePayment:
    """A link of `pi_1` to `in_1`."""
    fields = {"invoice_id": "in_1", "payment_id": "pi_1", **fields}
    return InvoicePayment(status=status, amount_paid=amount, **fields)


def by_link(*events: Event) -> list[tuple[str, int, str]]:
    """(source, cents, link) of what every invoice or payment collected in the end."""
    cents: Counter[tuple[str, str]] = Counter()
    for row in rows_of(COLLECTIONS, events):
        if isinstance(row, Cash) and row.kind == "collected":
            cents[row.source_id, row.link] += row.amount_cents
    return sorted((source, amount, link) for (source, link), amount in cents.items() if amount)


def orders(*events: Event) -> list[tuple[str, str, int]]:
    """(day, source, cents) of every order."""
    found = [row for row in rows_of(REVENUE, events) if isinstance(row, Order)]
    return sorted((row.date, row.source_id, row.amount_cents) for row in found)


def failures(*events: Event) -> list[tuple[str, str, bool]]:
    """(day, source, recovered) of every failure."""
    found = [row for row in rows_of(REVENUE, events) if isinstance(row, Failure)]
    return sorted((row.date, row.source_id, row.recovered) for row in found)


def unlinked(*events: Event) -> int:
    """How many payments count for want of an invoice."""
    return sum(row.unlinked for row in rows_of(COLLECTIONS, events) if isinstance(row, Cash))


def in_any_order(*events: Event):
    """The books of these events are the same in any order; the collections of it."""
    (books,) = {tuple(cash(order)) for order in permutations(events)}
    return list(books)


# Links that nobody states


@pytest.mark.parametrize("seconds", [-600, -7, 0, 59, 600])
def test_a_payment_near_an_invoice_of_its_customer_and_amount_settles_it(seconds):
    paid = event(invoice("paid", paid_at=at("2025-11-13 10:30")), "2025-11-13 10:31")
    made = event(payment(), at("2025-11-13 10:30") + timedelta(seconds=seconds))
    assert by_link(paid, made) == [("in_1", 10_000, "inferred")]
    assert orders(paid, made) == [("2025-11-13", "in_1", 10_000)]
    assert unlinked(paid, made) == 0


@pytest.mark.parametrize(
    "fields",
    [{"customer_id": "cus_2"}, {"customer_id": None}, {"currency": "eur"}, {"amount": 9_999}],
    ids=["another customer", "no customer", "another currency", "another amount"],
)
def test_a_payment_unlike_the_invoice_is_an_order_of_its_own(fields):
    events = event(invoice("paid"), "2025-11-13"), event(payment(**fields), "2025-11-13")
    assert {source for source, _, _ in by_link(*events)} == {"in_1", "pi_1"}
    assert unlinked(*events) == 1


def test_a_payment_more_than_ten_minutes_away_is_an_order_of_its_own():
    paid = event(invoice("paid", paid_at=at("2025-11-13 10:30")), "2025-11-13 10:30")
    late = event(payment(), at("2025-11-13 10:40:01"))
    assert by_link(paid, late) == [("in_1", 10_000, ""), ("pi_1", 10_000, "")]


def test_the_time_of_the_charge_counts_as_well_as_that_of_its_success():
    paid = event(invoice("paid", paid_at=at("2025-11-13 10:30")), "2025-11-13 10:30")
    slow = event(payment(attempted_at=at("2025-11-13 10:21")), "2025-11-15")
    assert by_link(paid, slow) == [("in_1", 10_000, "inferred")]


def test_a_payment_known_only_from_its_refund_settles_the_invoice_of_its_time():
    paid = event(invoice("paid", paid_at=at("2025-11-13 10:30")), "2025-11-13 10:30")
    back = event(payment(amount_refunded=10_000, paid_at=at("2025-11-13 10:30:04")), "2025-11-20")
    assert in_any_order(paid, back) == [PAID, ("2025-11-20", "refunded", 10_000)]
    assert orders(paid, back) == [("2025-11-13", "in_1", 10_000)]


def test_the_nearest_pair_is_taken_first_and_each_once():
    first = event(invoice("paid", paid_at=at("2025-11-13 10:00")), "2025-11-13 10:00")
    second = event(invoice("paid", paid_at=at("2025-11-13 10:06"), invoice_id="in_2"), "2025-11-13 10:06")
    events = first, second, event(payment(), "2025-11-13 10:05")
    assert by_link(*events) == [("in_1", 10_000, ""), ("in_2", 10_000, "inferred")]
    more = event(payment(payment_id="pi_2"), "2025-11-13 10:07")
    assert {link for _, _, link in by_link(*events, more)} == {"inferred"}
    assert unlinked(*events, more) == 0


def test_pairs_of_equal_distance_go_by_the_ids_of_invoices_and_then_of_payments():
    invoices = [
        event(invoice("paid", paid_at=at("2025-11-13 10:00"), invoice_id=name), "2025-11-13 10:00")
        for name in ("in_1", "in_2")
    ]
    made = [event(payment(payment_id=name), "2025-11-13 10:00") for name in ("pi_b", "pi_a", "pi_c")]
    assert by_link(*invoices, *made) == [
        ("in_1", 10_000, "inferred"),
        ("in_2", 10_000, "inferred"),
        ("pi_c", 10_000, ""),
    ]


@pytest.mark.parametrize(
    "statement",
    [
        event(linked(invoice_id="in_9"), "2025-11-13"),
        event(invoice("paid", payment_ids=("pi_1",), invoice_id="in_9"), "2025-11-13"),
    ],
    ids=["a link", "another invoice's list"],
)
def test_a_stated_link_leaves_the_other_invoice_alone(statement):
    events = event(invoice("paid"), "2025-11-13"), event(payment(), "2025-11-13"), statement
    assert ("in_1", 10_000, "") in by_link(*events)
    assert sum(cents for _, cents, _ in by_link(*events)) == 20_000


def test_an_invoice_paid_outside_of_the_processor_is_no_payments():
    by_hand = event(invoice("paid", paid_out_of_band=True), "2025-11-13")
    assert by_link(by_hand, event(payment(), "2025-11-13")) == [("in_1", 10_000, ""), ("pi_1", 10_000, "")]


def test_links_of_in_house_billers_are_never_inferred():
    events = [
        event(invoice("paid"), "2025-11-13", processor="standard.acme"),
        event(payment(), "2025-11-13", processor="standard.acme"),
    ]
    assert [link for _, _, link in by_link(*events)] == ["", ""]
    assert unlinked(*events) == 0


MOMENTS = st.integers(0, 40).map(lambda minutes: at("2025-11-13 10:00") + timedelta(minutes=minutes))


@given(st.lists(MOMENTS, max_size=6), st.lists(MOMENTS, max_size=6), st.randoms())
def test_links_are_those_of_all_pairs_taken_by_distance_whatever_the_order(paid, made, rng):
    invoices = [event(invoice("paid", paid_at=m, invoice_id=f"in_{n}"), m) for n, m in enumerate(paid)]
    payments = [event(payment(payment_id=f"pi_{n}"), m) for n, m in enumerate(made)]
    events = [*invoices, *payments]
    rng.shuffle(events)

    pairs = _pairs_by_distance(paid, made)

    assert by_link(*events) == sorted(
        [
            *(
                (f"in_{n}", 10_000, "inferred" if n in {i for i, _ in pairs} else "")
                for n in range(len(paid))
            ),
            *((f"pi_{n}", 10_000, "") for n in range(len(made)) if n not in {p for _, p in pairs}),
        ]
    )
    assert unlinked(*events) == len(made) - len(pairs)


def _pairs_by_distance(paid: list[datetime], made: list[datetime]) -> set[tuple[int, int]]:
    """The pairs of (invoice, payment) by brute force."""
    pairs: set[tuple[int, int]] = set()
    everything = sorted(
        (abs(a - b), f"in_{i}", f"pi_{p}", i, p) for i, a in enumerate(paid) for p, b in enumerate(made)
    )
    for distance, _, _, i, p in everything:
        if distance <= timedelta(minutes=10) and not any(i == a or p == b for a, b in pairs):
            pairs.add((i, p))
    return pairs


@given(st.lists(MOMENTS, max_size=5), st.lists(MOMENTS, max_size=5), st.lists(MOMENTS, max_size=5))
def test_events_of_others_change_no_link(paid, made, unrelated):
    mine = [
        *(event(invoice("paid", paid_at=m, invoice_id=f"in_{n}"), m) for n, m in enumerate(paid)),
        *(event(payment(payment_id=f"pi_{n}"), m) for n, m in enumerate(made)),
    ]
    theirs = [event(payment(payment_id=f"pi_o{n}", customer_id="cus_2"), m) for n, m in enumerate(unrelated)]
    others = {name for name, _, _ in by_link(*theirs)}
    assert [row for row in by_link(*mine, *theirs) if row[0] not in others] == by_link(*mine)


# One side alone


@pytest.mark.parametrize(("processor", "invoice_id"), [("stripe", "in_9"), ("standard.acme", "2025-77")])
def test_a_payment_of_an_invoice_that_is_never_reported_is_an_order(processor, invoice_id):
    made = event(payment(1_900, invoice_id=invoice_id), "2025-11-13", processor=processor)
    assert by_link(made) == [("pi_1", 1_900, "stated")]
    assert orders(made) == [("2025-11-13", "pi_1", 1_900)]
    assert unlinked(made) == 0


def test_a_payment_counts_once_when_its_invoice_is_reported_after_all():
    made = event(payment(invoice_id="in_1"), "2025-11-13")
    assert in_any_order(made, event(invoice(), "2025-11-12"), event(invoice("paid"), "2025-11-13")) == [PAID]
    assert orders(made, event(invoice("paid"), "2025-11-13")) == [("2025-11-13", "in_1", 10_000)]


def test_an_invoice_that_never_says_paid_has_what_its_payment_brought():
    events = event(invoice(), "2025-11-01"), event(payment(invoice_id="in_1"), "2025-11-13")
    assert in_any_order(*events) == [PAID]
    assert orders(*events) == [("2025-11-13", "in_1", 10_000)]


@pytest.mark.parametrize("fields", [{}, {"amount_remaining": 0}, {"payment_ids": ("p_7",)}])
def test_paid_without_an_amount_means_all_that_was_due(fields):
    bare = {"amount_paid": 0, "amount_remaining": None, **fields}
    told = event(invoice("paid", 7_350, **bare), "2025-11-13", processor="standard.acme")
    assert cash([told]) == [("2025-11-13", "collected", 7_350)]
    beside = event(
        payment(7_350, payment_id="p_7", invoice_id="in_1"), "2025-11-13", processor="standard.acme"
    )
    assert cash([told, beside]) == [("2025-11-13", "collected", 7_350)]


def test_an_invoice_of_stripe_that_a_credit_settled_collected_nothing():
    assert cash([event(invoice("paid", amount_paid=0), "2025-11-13")]) == []


@pytest.mark.parametrize("paid_on", ["2025-11-09", "2025-12-01"])
def test_money_that_both_sides_state_is_collected_on_the_day_that_the_invoice_states(paid_on):
    made = event(payment(invoice_id="in_1"), "2025-11-13")
    paid = event(invoice("paid", paid_at=at(paid_on)), "2025-12-03")
    assert in_any_order(made, paid) == [(paid_on, "collected", 10_000)]


def test_a_link_to_a_payment_that_is_never_reported_counts_up_to_what_was_due():
    bill = event(invoice(), "2025-11-01")
    assert cash([bill, event(linked(amount=6_000), "2025-11-13")]) == [("2025-11-13", "collected", 6_000)]
    assert cash([bill, event(linked(), "2025-11-13")]) == [PAID]
    two = [
        event(linked(amount=7_000), "2025-11-13"),
        event(linked(amount=7_000, payment_id="pi_2"), "2025-11-14"),
    ]
    assert cash([bill, *two]) == [("2025-11-13", "collected", 7_000), ("2025-11-14", "collected", 3_000)]
    assert cash([bill, event(linked("open", 6_000), "2025-11-13")]) == []


def test_a_payment_for_two_invoices_brings_each_its_share_and_the_rest_by_itself():
    events = [
        event(payment(10_000), "2025-11-13"),
        event(linked(amount=6_500), "2025-11-13"),
        event(linked(amount=3_000, invoice_id="in_2"), "2025-11-13"),
        event(invoice("paid", 6_500), "2025-11-13"),
    ]
    assert by_link(*events) == [("in_1", 6_500, "stated"), ("pi_1", 500, ""), ("pi_1", 3_000, "stated")]
    second = event(invoice("paid", 3_000, invoice_id="in_2"), "2025-11-13")
    assert by_link(*events, second) == [
        ("in_1", 6_500, "stated"),
        ("in_2", 3_000, "stated"),
        ("pi_1", 500, ""),
    ]


def test_a_payment_that_two_invoices_list_brings_each_what_it_owes():
    made = event(payment(20_000), "2025-11-13", processor="standard.acme")
    bills = [
        event(
            invoice("paid", 10_000, invoice_id=name, payment_ids=("pi_1",)),
            "2025-11-13",
            processor="standard.acme",
        )
        for name in ("in_1", "in_2")
    ]
    assert by_link(made, *bills) == [("in_1", 10_000, "stated"), ("in_2", 10_000, "stated")]


@pytest.mark.parametrize(
    ("dues", "stated", "expected"),
    [
        ((2_000, 3_000), (0, 0), [("in_1", 2_000, "stated"), ("in_2", 1_000, "stated")]),
        ((3_000, 3_000), (0, 3_000), [("in_2", 3_000, "stated")]),
        ((1_000, 1_500), (0, 0), [("in_1", 1_000, "stated"), ("in_2", 1_500, "stated"), ("pi_1", 500, "")]),
    ],
    ids=["less than is due", "one says that it is paid", "more than is due"],
)
def test_two_invoices_that_list_a_payment_get_no_more_than_it_brought(dues, stated, expected):
    names = {"payment_ids": ("pi_1",)}
    bills = [
        event(invoice("open", due, invoice_id=f"in_{n}", amount_paid=cents, **names), "2025-11-13")
        for n, (due, cents) in enumerate(zip(dues, stated, strict=True), start=1)
    ]
    assert by_link(event(payment(3_000), "2025-11-13"), *bills) == expected


def test_a_listed_payment_brings_what_the_invoice_says_of_it_and_the_rest_by_itself():
    lists = {"payment_ids": ("pi_1",), "payment_amounts": (1_500,)}
    made = event(payment(4_000), "2025-11-13")
    bills = [
        event(invoice("open", 3_000, invoice_id=name, **lists), "2025-11-13") for name in ("in_1", "in_2")
    ]
    assert by_link(made, bills[0]) == [("in_1", 1_500, "stated"), ("pi_1", 2_500, "")]
    assert by_link(made, *bills) == [
        ("in_1", 1_500, "stated"),
        ("in_2", 1_500, "stated"),
        ("pi_1", 1_000, ""),
    ]


def test_a_payment_in_another_currency_than_its_invoices_counts_by_itself():
    events = event(invoice(), "2025-11-01"), event(payment(currency="eur", invoice_id="in_1"), "2025-11-13")
    assert by_link(*events) == [("pi_1", 10_000, "stated")]


@pytest.mark.parametrize("status", ["void", "uncollectible"])
def test_what_a_voided_invoice_had_collected_stays_the_customers(status):
    events = [
        event(invoice(), "2025-11-01"),
        event(invoice(amount_paid=3_300), "2025-11-03"),
        event(invoice(status, amount_paid=3_300), "2025-11-10"),
    ]
    assert cash(events) == [("2025-11-03", "collected", 3_300)]
    assert orders(*events) == [("2025-11-03", "in_1", 3_300)]


# What is undone


@pytest.mark.parametrize(("amount", "failed_on"), [(1_250, "2025-11-20"), (88_000, "2026-01-07")])
def test_a_payment_that_fails_after_its_success_is_taken_back_on_that_day(amount, failed_on):
    made = event(payment(amount), "2025-11-13")
    back = event(payment(amount, status="failed"), failed_on)
    assert in_any_order(made, back) == sorted(
        [("2025-11-13", "collected", amount), (failed_on, "collected", -amount)]
    )
    assert orders(made, back) == []
    assert unlinked(made, back) == 0


def test_a_payment_that_succeeds_again_counts_from_then():
    events = [
        event(payment(), "2025-11-13"),
        event(payment(status="failed"), "2025-11-20"),
        event(payment(), "2025-12-02"),
    ]
    assert sum(cents for _, _, cents in in_any_order(*events)) == 10_000
    assert orders(*events) == [("2025-12-02", "pi_1", 10_000)]


def test_a_failed_attempt_that_is_reported_again_takes_no_later_success_back():
    first, second = at("2025-11-12"), at("2025-11-13")
    events = [
        event(payment(status="failed", attempted_at=first), "2025-11-12"),
        event(payment(), "2025-11-13"),
        event(payment(status="failed", attempted_at=first), "2025-11-14"),
    ]
    assert in_any_order(*events) == [PAID]
    other = event(payment(attempted_at=second), "2025-11-13")
    assert in_any_order(other, event(payment(status="failed", attempted_at=first), "2025-11-14")) == [PAID]


@pytest.mark.parametrize("teller", ["both", "invoice", "payment"])
def test_an_invoice_that_reopens_is_undone_by_whichever_side_says_so(teller):
    stated = [event(invoice("paid"), "2025-11-13")]
    reopened = [event(invoice("open", amount_paid=0), "2025-11-21")] if teller != "payment" else []
    made = [event(payment(invoice_id="in_1"), "2025-11-13")]
    failed = [event(payment(invoice_id="in_1", status="failed"), "2025-11-21")] if teller != "invoice" else []
    events = [*stated, *made, *reopened, *failed]
    assert in_any_order(*events) == [PAID, ("2025-11-21", "collected", -10_000)]
    assert orders(*events) == []


def test_a_part_payment_that_bounced_leaves_the_other_part():
    events = [
        event(invoice(amount_paid=4_000), "2025-11-13"),
        event(invoice(amount_paid=9_000), "2025-11-15"),
        event(invoice(amount_paid=4_000), "2025-11-22"),
    ]
    assert in_any_order(*events) == [
        ("2025-11-13", "collected", 4_000),
        ("2025-11-15", "collected", 5_000),
        ("2025-11-22", "collected", -5_000),
    ]
    assert orders(*events) == [("2025-11-13", "in_1", 4_000)]


def paid_in_two_ways(part: int = 4_000) -> list[Event]:
    """An invoice of 10000, of which a payment pays a part; that bounces on 5 December."""
    return [
        event(invoice("paid"), "2025-11-13"),
        event(payment(part, invoice_id="in_1"), "2025-11-13"),
        event(payment(part, invoice_id="in_1", status="failed"), "2025-12-05 10:00"),
    ]


@pytest.mark.parametrize("reopened_at", ["2025-12-05 09:00", "2025-12-05 10:00", "2025-12-05 11:00"])
def test_a_part_payment_that_bounces_beside_money_by_hand_is_taken_back_once(reopened_at):
    opened = event(invoice(amount_paid=6_000), reopened_at)
    fell = ("2025-12-05", "collected", -4_000)
    assert in_any_order(*paid_in_two_ways()) == [PAID, fell]
    assert in_any_order(*paid_in_two_ways(), opened) == [PAID, fell]


@pytest.mark.parametrize("part", [4_000, 10_000])
@pytest.mark.parametrize("way", ["by hand", "by a payment", "as the payment alone says"])
def test_what_is_paid_anew_after_a_bounce_is_collected_again(part, way):
    again = [
        event(payment(part, invoice_id="in_1", payment_id="pi_2"), "2026-01-08"),
        event(invoice("paid", paid_at=at("2026-01-08")), "2026-01-08"),
    ]
    told = {"by hand": again[1:], "by a payment": again, "as the payment alone says": again[:1]}[way]
    assert in_any_order(*paid_in_two_ways(part), *told) == [
        PAID,
        ("2025-12-05", "collected", -part),
        ("2026-01-08", "collected", part),
    ]


def test_an_invoice_that_repeats_that_it_is_paid_was_not_paid_anew():
    repeated = event(invoice("paid"), "2026-01-08")
    assert in_any_order(*paid_in_two_ways(), repeated) == [PAID, ("2025-12-05", "collected", -4_000)]


def test_amounts_of_one_second_fall_only_where_an_event_says_what_was_there_before():
    low, high = invoice(amount_paid=1_100), invoice(amount_paid=6_400)
    for first, second in permutations(("evt_a", "evt_b")):
        assert (
            sum(
                cents
                for _, _, cents in cash([event(low, "2025-11-13", first), event(high, "2025-11-13", second)])
            )
            == 6_400
        )
    chained = event(low, "2025-11-13", "evt_a", before=json.encode(high))
    assert sum(cents for _, _, cents in cash([chained, event(high, "2025-11-13", "evt_b")])) == 1_100


def test_a_reopened_invoice_that_another_payment_pays_is_an_order_since_then():
    events = [
        event(invoice("paid"), "2025-11-13"),
        event(payment(invoice_id="in_1"), "2025-11-13"),
        event(invoice("open", amount_paid=0), "2025-11-21"),
        event(payment(payment_id="pi_2", invoice_id="in_1"), "2025-12-02"),
        event(invoice("paid", paid_at=at("2025-12-02")), "2025-12-02"),
    ]
    assert by_link(*events) == [("in_1", 10_000, "stated")]
    assert orders(*events) == [("2025-12-02", "in_1", 10_000)]


def moved(*, with_invoices: bool = True) -> list[Event]:
    """A payment that is taken off `in_1` and put to `in_2` a week later."""
    stated = [
        event(invoice("paid"), "2025-11-13"),
        event(invoice("open", amount_paid=0), "2025-11-20 09:00"),
        event(invoice("paid", invoice_id="in_2", paid_at=at("2025-11-20 09:05")), "2025-11-20 09:05"),
    ]
    return [
        event(payment(), "2025-11-13"),
        event(linked(amount=10_000), "2025-11-13"),
        event(linked("canceled", 10_000), "2025-11-20 09:00"),
        event(linked(amount=10_000, invoice_id="in_2"), "2025-11-20 09:05"),
        *(stated if with_invoices else []),
    ]


def test_a_payment_that_moves_to_another_invoice_came_in_once():
    assert by_link(*moved()) == [("in_2", 10_000, "stated")]
    assert orders(*moved()) == [("2025-11-20", "in_2", 10_000)]
    assert sum(cents for day, _, cents in cash(moved()) if day < "2025-11-20") == 10_000
    assert sum(cents for _, _, cents in cash(moved())) == 10_000


def test_a_payment_that_moves_by_naming_another_invoice_came_in_once():
    events = [
        *(
            event(invoice(invoice_id=name), "2025-11-01", processor="standard.acme")
            for name in ("in_1", "in_2")
        ),
        event(payment(invoice_id="in_1"), "2025-11-13", processor="standard.acme"),
        event(payment(invoice_id="in_2"), "2025-11-20", processor="standard.acme"),
    ]
    assert by_link(*events) == [("in_2", 10_000, "stated")]


@pytest.mark.parametrize("amount", [None, 10_000])
@pytest.mark.parametrize("processor", ["stripe", "standard.acme"])
def test_a_payment_that_moves_within_a_second_came_in_once_where_only_its_links_say_so(amount, processor):
    events = [
        event(payment(), "2025-11-13", processor=processor),
        event(linked("canceled", amount), "2025-11-20", processor=processor),
        event(linked(amount=amount, invoice_id="in_2"), "2025-11-20", processor=processor),
    ]
    assert sum(cents for _, _, cents in in_any_order(*events)) == 10_000
    assert sum(cents for day, _, cents in cash(events) if day < "2025-11-20") == 10_000


def test_a_detached_payment_is_an_order_of_its_own_from_that_day():
    events = [*moved()[:3], event(invoice("paid"), "2025-11-13")]
    assert by_link(*events) == [("pi_1", 10_000, "")]
    assert orders(*events) == [("2025-11-20", "pi_1", 10_000)]
    assert unlinked(*events) == 1


@given(st.sets(st.integers(0, 2)), st.booleans(), st.randoms())
def test_money_that_moved_counts_once_whichever_statements_of_one_side_are_missing(missing, of_links, rng):
    made, *statements = moved()
    links, states = statements[:3], statements[3:]
    rest = links if of_links else states
    present = [each for number, each in enumerate(rest) if number not in missing]
    events = [made, *present, *(states if of_links else links)]
    rng.shuffle(events)

    assert sum(cents for _, _, cents in cash(events)) == 10_000


# Random lives of one payment and one invoice


@st.composite
def lives(draw):
    """(events, cents that are there in the end) of one invoice and a payment of it, told by either side."""
    processor = draw(st.sampled_from(("stripe", "standard.acme")))
    link = draw(st.sampled_from(("by the payment", "by the invoice", "by itself", "by nobody")))
    tellers = draw(st.sampled_from((("invoice", "payment"), ("payment",), ("invoice",))))
    if link == "by nobody":
        tellers = draw(st.sampled_from((("payment",), ("invoice",))))
    moment, paid, events = at("2025-11-01"), False, []
    names = {"invoice_id": "in_1"} if link == "by the payment" else {}
    lists = {"payment_ids": ("pi_1",)} if link == "by the invoice" else {}
    events.append(event(invoice(**lists), moment, processor=processor))
    for gap in draw(st.lists(st.integers(1, 40), max_size=5)):
        moment += timedelta(days=gap)
        paid = not paid
        if "payment" in tellers:
            data = payment(status="succeeded" if paid else "failed", **names)
            events.append(event(data, moment, processor=processor))
        if "invoice" in tellers:
            later = moment + timedelta(seconds=draw(st.integers(-50, 50)))
            data = (
                invoice("paid", paid_at=later, **lists) if paid else invoice("open", amount_paid=0, **lists)
            )
            events.append(event(data, later, processor=processor))
    if link == "by itself" and len(events) > 1:
        when = draw(st.sampled_from((at("2025-11-01"), moment, moment + timedelta(days=50))))
        events.append(event(linked("open"), when, processor=processor))
    return draw(st.permutations(events)), 10_000 if paid else 0


@given(lives())
def test_what_is_left_is_the_money_that_is_there_whoever_tells_it(life):
    events, cents = life
    assert sum(amount for _, _, amount in cash(events)) == cents
    assert [amount for _, _, amount in orders(*events)] == ([cents] if cents else [])


def told_in_parts() -> list[Event]:
    """A payment that moves, a link to infer, one that a later statement breaks, and money that goes back."""
    near = at("2025-11-13 10:02")
    return [
        *moved(),
        event(invoice("paid", invoice_id="in_5", customer_id="cus_5", paid_at=near), near),
        event(payment(payment_id="pi_5", customer_id="cus_5"), near),
        event(payment(payment_id="pi_6", customer_id="cus_5"), near + timedelta(minutes=1)),
        event(linked(invoice_id="in_5", payment_id="pi_6"), near + timedelta(minutes=2)),
        event(linked(invoice_id="in_5", payment_id="pi_7"), "2025-11-14"),
        event(refund(1_000, payment_id="pi_7"), "2025-11-20"),
        event(payment(payment_id="pi_5", customer_id="cus_5", status="failed"), "2025-12-01"),
    ]


@pytest.mark.usefixtures("each_store")
@pytest.mark.parametrize("seed", range(3))
async def test_books_that_grow_event_by_event_are_those_of_all_events_at_once(seed):
    events = told_in_parts()
    Random(seed).shuffle(events)
    async with new_books() as books:
        for each in events:
            await books.record(each)
        async with books.store() as store:
            found = await store.read(partial(_stored_rows, store=store))
    for book, kinds in ((COLLECTIONS, (Cash,)), (REVENUE, (Order, Failure, Reversal, CustomerRevenue))):
        rows = [row for row in rows_of(book, events) if isinstance(row, kinds)]
        assert Counter(map(repr, rows)) == Counter(
            repr(row) for row in found[book.name] if isinstance(row, kinds)
        )


def _stored_rows(connection, store) -> dict[str, list]:
    """Every stored row of the two books."""
    found: dict[str, list] = {}
    for book in (COLLECTIONS, REVENUE):
        book_id = store.positions(connection).books[book.name]
        for kind in row_types(book):
            table = ROWS[kind]
            names = [table.c[name] for name in kind.__struct_fields__]
            stored = connection.execute(select(*names).where(table.c.book == book_id))
            found.setdefault(book.name, []).extend(STATEMENTS[kind].to_row(tuple(row)) for row in stored)
    return found


# Failed tries


def test_tries_at_one_invoice_are_one_failure_whichever_object_reports_them():
    unpaid = event(invoice(payment_failed=True), "2025-11-13 08:00:02")
    refused = event(payment(status="failed"), "2025-11-13 08:00")
    assert failures(unpaid, refused) == [("2025-11-13", "in_1", False)]
    stated = event(payment(status="failed", invoice_id="in_1"), "2025-11-13 08:00")
    assert failures(unpaid, stated) == [("2025-11-13", "in_1", False)]
    assert failures(stated) == [("2025-11-13", "in_1", False)]


def test_tries_far_apart_are_two_failures():
    unpaid = event(invoice(payment_failed=True), "2025-11-13 08:00")
    assert len(failures(unpaid, event(payment(status="failed"), "2025-11-13 08:11"))) == 2


def test_a_try_that_fails_before_its_payment_is_linked_is_the_invoices():
    events = [
        event(invoice(payment_failed=True), "2025-11-13 08:00"),
        event(payment(status="failed"), "2025-11-13 08:00:01"),
        event(payment(), "2025-11-15 08:00"),
        event(invoice("paid", paid_at=at("2025-11-15 08:00")), "2025-11-15 08:00:03"),
    ]
    assert failures(*events) == [("2025-11-13", "in_1", True)]
    assert orders(*events) == [("2025-11-15", "in_1", 10_000)]


def test_tries_of_payments_for_one_invoice_that_is_never_reported_are_one_failure():
    def attempt(name: str, status: str, when: str):
        return event(
            payment(1_370, payment_id=name, status=status, invoice_id="2077"), when, processor="mxmerchant"
        )

    events = [
        attempt("31", "failed", "2025-11-03"),
        attempt("32", "failed", "2025-11-05"),
        attempt("33", "succeeded", "2025-11-08"),
    ]
    assert failures(*events[:2]) == [("2025-11-03", "2077", False)]
    assert failures(*events) == [("2025-11-03", "2077", True)]
    assert orders(*events) == [("2025-11-08", "33", 1_370)]
    (order,) = [row for row in rows_of(REVENUE, events) if isinstance(row, Order)]
    assert not order.paid_first_try


@pytest.mark.parametrize(
    ("paid_on", "recovered"), [("2025-11-12", False), ("2025-11-13", True), ("2025-11-14", True)]
)
def test_a_failure_has_recovered_by_what_was_paid_since_and_not_before(paid_on, recovered):
    part = event(payment(4_000, invoice_id="in_1"), paid_on)
    bounced = event(payment(payment_id="pi_2", status="failed", invoice_id="in_1"), "2025-11-13")
    assert failures(event(invoice(), "2025-11-01"), part, bounced) == [("2025-11-13", "in_1", recovered)]


# Money that went back


@pytest.mark.parametrize("given_back", [refund(4_400), dispute("lost", 4_400)], ids=["refund", "dispute"])
@pytest.mark.parametrize(
    "link", [event(linked(), "2025-11-13"), event(invoice("paid", payment_ids=("pi_1",)), "2025-11-13")]
)
def test_what_goes_back_of_a_payment_that_is_never_reported_is_its_invoices_customers(given_back, link):
    events = event(invoice("paid"), "2025-11-13"), link, event(given_back, "2025-11-20")
    assert ("2025-11-20", given_back.amount) in [(day, cents) for day, _, cents in in_any_order(*events)]
    (buyer,) = [row for row in rows_of(REVENUE, events) if isinstance(row, CustomerRevenue)]
    assert (buyer.customer_id, buyer.revenue_cents, buyer.net_cents) == ("cus_1", 10_000, 5_600)


def nets(*events: Event) -> dict[str, int]:
    """What is left of each customer's money; "" is nobody's."""
    net: Counter[str] = Counter()
    for row in rows_of(COLLECTIONS, events):
        if isinstance(row, Cash):
            net[row.customer_id] += row.amount_cents * (1 if row.kind == "collected" else -1)
    return dict(net)


def test_the_rest_of_a_payment_that_names_no_customer_is_its_invoices_customers():
    paid = [
        event(invoice("paid", 3_000), "2025-11-13"),
        event(payment(5_000, customer_id=None), "2025-11-13"),
        event(linked(amount=3_000), "2025-11-13"),
    ]
    assert nets(*paid) == {"cus_1": 5_000}
    assert nets(*paid, event(refund(5_000), "2025-11-20")) == {"cus_1": 0}


@pytest.mark.parametrize("customer_id", [None, "cus_2"])
def test_a_detached_payment_that_names_no_customer_goes_back_to_whom_it_was_from(customer_id):
    events = [
        event(invoice("paid", 3_000), "2025-11-13"),
        event(payment(3_000, customer_id=None), "2025-11-13"),
        event(linked(amount=3_000), "2025-11-13"),
        event(linked("canceled"), "2025-12-10"),
        event(invoice("open", 3_000), "2025-12-10"),
        event(refund(3_000, "2025-12-11"), "2025-12-11"),
    ]
    if customer_id:  # then it pays another's invoice
        events += [
            event(linked(amount=3_000, invoice_id="in_2"), "2025-12-10"),
            event(invoice("paid", 3_000, invoice_id="in_2", customer_id=customer_id), "2025-12-10"),
        ]
    assert set(nets(*events).values()) == {0}


def test_what_goes_back_counts_also_where_nobody_names_the_customer():
    made = event(payment(2_000, invoice_id="in_9", customer_id=None), "2025-11-13")
    assert cash([made, event(refund(500), "2025-11-20")]) == [
        ("2025-11-13", "collected", 2_000),
        ("2025-11-20", "refunded", 500),
    ]


@pytest.mark.parametrize("customer_id", [None, "cus_1"])
@pytest.mark.parametrize("names_payment", [(True, False), (False, True)])
@pytest.mark.parametrize(
    ("data", "went_back"),
    [
        (refund(500, "2025-11-20"), ("2025-11-20", "refunded", 500)),
        (dispute("lost", 500), ("2025-12-01", "disputed", 500)),
    ],
    ids=["refund", "dispute"],
)
def test_what_goes_back_counts_once_where_it_is_told_with_its_payment_and_without(
    data, went_back, names_payment, customer_id
):
    tellings = [data if is_named else but(data, payment_id=None) for is_named in names_payment]
    events = [
        event(invoice("paid", 2_000), "2025-11-13", processor="acme"),
        event(payment(2_000, invoice_id="in_1", customer_id=customer_id), "2025-11-13", processor="acme"),
        event(tellings[0], "2025-12-01", processor="acme"),
        event(tellings[1], "2025-12-04", processor="acme"),
    ]
    assert cash(events) == [("2025-11-13", "collected", 2_000), went_back]
    assert nets(*events) == {"cus_1": 1_500}


@pytest.mark.parametrize("names_payment", [(True, False), (False, True)])
@pytest.mark.parametrize(
    ("began", "ended"),
    [(refund(500), refund(500, status="failed")), (dispute("lost"), dispute("won"))],
    ids=["refund", "dispute"],
)
def test_what_did_not_go_back_in_the_end_counts_nowhere_whichever_telling_says_so(
    began, ended, names_payment
):
    tellings = [
        told if is_named else but(told, payment_id=None)
        for told, is_named in zip((began, ended), names_payment, strict=True)
    ]
    events = [
        event(invoice("paid", 2_000), "2025-11-13"),
        event(payment(2_000, invoice_id="in_1", customer_id=None), "2025-11-13"),
        event(tellings[0], "2025-11-20"),
        event(tellings[1], "2025-12-01"),
    ]
    assert nets(*events) == {"cus_1": 2_000}


def test_a_refund_moves_no_link():
    paid = event(invoice("paid"), "2025-11-13")
    made = event(payment(), "2025-11-13")
    assert by_link(paid, made, event(refund(), "2025-11-20")) == [("in_1", 10_000, "inferred")]
