"""What counts as an order, what goes back of it, and whose it is."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.posted_books import filled, invoices, pays, refunds
from tests.support.running import NOW, Clock, Daybook, running
from tests.support.senders import (
    MX,
    MX_TOKEN,
    STRIPE,
    payment,
    stripe_charge,
    stripe_event,
    stripe_subscription,
    subscription,
)
from tests.support.stores import EACH_STORE, NewDataDir

STORES = EACH_STORE

TOP = "/api/payment/analytics/customers/top"
DAY, LATER, LAST = "2025-03-01", "2025-04-01", "2025-05-01"


def path_of(customer_id: str, read: str = "revenue") -> str:
    return f"/api/payment/analytics/customers/{quote(customer_id, safe='')}/{read}"


async def revenue(daybook: Daybook, customer_id: str, **query: Any) -> dict[str, Any]:
    return await daybook.get(path_of(customer_id), detail="orders", **query)


def figures(answer: dict[str, Any]) -> tuple[list[tuple[str, int]], int, int]:
    """The orders as (day, cents), what was refunded, what was lost in disputes."""
    summary = answer["revenue_summary"]
    orders = [(row["date"], row["amount_cents"]) for row in answer["orders"]]
    back = summary["total_refunds_cents"], summary["total_disputes_cents"]
    assert summary["total_orders"] == len(orders)
    assert summary["total_revenue_cents"] == sum(cents for _, cents in orders)
    assert summary["net_revenue_cents"] == summary["total_revenue_cents"] - sum(back)
    assert sum(row["revenue_cents"] for row in answer["monthly_breakdown"]) == sum(c for _, c in orders)
    assert sum(row["revenue_cents"] for row in answer["product_breakdown"]) == sum(c for _, c in orders)
    return orders, *back


# Stories, each of a customer of its own


async def an_invoice(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000)


async def a_payment(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000)


async def a_payment_that_failed_before(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, status="failed", payment_id=f"pay-{who}")
    await pays(daybook, who, LATER, 5000, payment_id=f"pay-{who}")


async def a_payment_that_failed(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, status="failed")


async def an_invoice_paid_in_parts(daybook: Daybook, who: str) -> None:
    part = {"status": "open", "amount_paid": 2000, "amount_remaining": 3000, "told_at": f"{LATER}T12:00:00Z"}
    await invoices(daybook, who, DAY, 5000, **part)
    await invoices(daybook, who, DAY, 5000, paid_at=f"{LAST}T12:00:00Z", told_at=f"{LAST}T12:00:01Z")


async def an_invoice_paid_in_part(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000, status="open", amount_paid=2000, amount_remaining=3000)


async def an_invoice_given_up_in_part(daybook: Daybook, who: str) -> None:
    given_up = {"status": "uncollectible", "amount_paid": 2000, "amount_remaining": 3000}
    await invoices(daybook, who, DAY, 5000, **given_up)


async def an_invoice_given_up_and_paid(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000, status="uncollectible")
    await invoices(daybook, who, DAY, 5000, paid_at=f"{LATER}T12:00:00Z", told_at=f"{LATER}T12:00:00Z")


async def an_invoice_voided(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000, status="open")
    await invoices(daybook, who, DAY, 5000, status="void", told_at=f"{LATER}T12:00:00Z")


async def an_invoice_of_nothing(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 0)


async def an_invoice_told_twice(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000)
    await invoices(daybook, who, DAY, 5000, told_at=f"{LATER}T12:00:00Z")


async def an_invoice_told_late(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000, told_at=f"{LATER}T12:00:00Z")


async def an_invoice_that_tells_no_day(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000, paid_at=None, told_at=f"{LATER}T12:00:00Z")


async def an_invoice_and_its_payment(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, payment_id=f"pay-{who}")
    await invoices(daybook, who, LATER, 5000, payment_ids=[f"pay-{who}"])


async def a_payment_joined_to_an_invoice(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, payment_id=f"pay-{who}")
    joined = {"payment_id": f"pay-{who}", "invoice_id": f"inv-{who}-{LATER}"}
    await daybook.record("invoice_payment.recorded", f"{LATER}T12:00:00Z", **joined)
    await invoices(daybook, who, LATER, 5000)


async def a_payment_of_some_invoice(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, for_invoice=True)


async def a_refund_before_its_payment(daybook: Daybook, who: str) -> None:
    await refunds(daybook, LATER, 2000, refund_id=f"ref-{who}", payment_id=f"pay-{who}")
    await daybook.catch_up()
    await pays(daybook, who, DAY, 5000, payment_id=f"pay-{who}")


async def a_refund_told_twice(daybook: Daybook, who: str) -> None:
    pay = {"payment_id": f"pay-{who}"}
    await pays(daybook, who, DAY, 5000, **pay)
    await refunds(daybook, LATER, 2000, refund_id=f"ref-{who}", **pay)
    refunded = {"amount_refunded": 2000, "paid_at": f"{DAY}T12:00:00Z", "at": f"{LATER}T12:00:05Z"}
    await pays(daybook, who, DAY, 5000, **pay, **refunded)


async def a_refund_told_by_its_payment(daybook: Daybook, who: str) -> None:
    pay = {"payment_id": f"pay-{who}"}
    await pays(daybook, who, DAY, 5000, **pay)
    refunded = {"amount_refunded": 2000, "paid_at": f"{DAY}T12:00:00Z", "at": f"{LATER}T12:00:00Z"}
    await pays(daybook, who, DAY, 5000, **pay, **refunded)


async def two_refunds_of_an_invoice(daybook: Daybook, who: str) -> None:
    await invoices(daybook, who, DAY, 5000, payment_ids=[f"pay-{who}"])
    for day in (LATER, LAST):
        await refunds(daybook, day, 2500, refund_id=f"ref-{who}-{day}", payment_id=f"pay-{who}")


async def a_refund_under_way(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, payment_id=f"pay-{who}")
    pending = {"refund_id": f"ref-{who}", "payment_id": f"pay-{who}", "status": "pending"}
    await refunds(daybook, LATER, 2000, **pending)


async def a_refund_that_came_back(daybook: Daybook, who: str) -> None:
    await pays(daybook, who, DAY, 5000, payment_id=f"pay-{who}")
    refund = {"refund_id": f"ref-{who}", "payment_id": f"pay-{who}"}
    await refunds(daybook, LATER, 2000, **refund)
    await refunds(daybook, LATER, 2000, **refund, status="failed", told_at=f"{LAST}T12:00:00Z")


async def dispute(daybook: Daybook, who: str, *statuses: tuple[str, str]) -> None:
    await pays(daybook, who, DAY, 5000, payment_id=f"pay-{who}")
    of = {"dispute_id": f"dis-{who}", "payment_id": f"pay-{who}", "amount": 5000, "currency": "usd"}
    for day, status in statuses:
        await daybook.record("dispute.recorded", f"{day}T12:00:00Z", status=status, **of)


async def a_dispute_lost(daybook: Daybook, who: str) -> None:
    await dispute(daybook, who, (LATER, "needs_response"), (LAST, "lost"))


async def a_dispute_won(daybook: Daybook, who: str) -> None:
    await dispute(daybook, who, (LATER, "needs_response"), (LAST, "won"))


Story = Callable[[Daybook, str], Awaitable[None]]
STORIES: dict[Story, tuple[list[tuple[str, int]], int, int]] = {
    an_invoice: ([(DAY, 5000)], 0, 0),
    a_payment: ([(DAY, 5000)], 0, 0),
    a_payment_that_failed_before: ([(LATER, 5000)], 0, 0),
    a_payment_that_failed: ([], 0, 0),
    an_invoice_paid_in_parts: ([(LATER, 5000)], 0, 0),
    an_invoice_paid_in_part: ([(DAY, 2000)], 0, 0),
    an_invoice_given_up_in_part: ([(DAY, 2000)], 0, 0),
    an_invoice_given_up_and_paid: ([(LATER, 5000)], 0, 0),
    an_invoice_voided: ([], 0, 0),
    an_invoice_of_nothing: ([], 0, 0),
    an_invoice_told_twice: ([(DAY, 5000)], 0, 0),
    an_invoice_told_late: ([(DAY, 5000)], 0, 0),
    an_invoice_that_tells_no_day: ([(LATER, 5000)], 0, 0),
    an_invoice_and_its_payment: ([(LATER, 5000)], 0, 0),
    a_payment_joined_to_an_invoice: ([(LATER, 5000)], 0, 0),
    a_payment_of_some_invoice: ([], 0, 0),
    a_refund_before_its_payment: ([(DAY, 5000)], 2000, 0),
    a_refund_told_twice: ([(DAY, 5000)], 2000, 0),
    a_refund_told_by_its_payment: ([(DAY, 5000)], 2000, 0),
    two_refunds_of_an_invoice: ([(DAY, 5000)], 5000, 0),
    a_refund_under_way: ([(DAY, 5000)], 0, 0),
    a_refund_that_came_back: ([(DAY, 5000)], 0, 0),
    a_dispute_lost: ([(DAY, 5000)], 0, 5000),
    a_dispute_won: ([(DAY, 5000)], 0, 0),
}


async def post_stories(daybook: Daybook) -> None:
    for story in STORIES:
        name = story.__name__
        await daybook.record("customer.recorded", f"{DAY}T00:00:00Z", customer_id=name, name=name.title())
        await story(daybook, name)
    await pays(daybook, None, DAY, 777)


@pytest.fixture(scope="module")
def stories(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(new_data_dir(tmp_path_factory.mktemp("stories") / "data"), post_stories, NOW)


async def test_each_story_has_its_orders_and_what_went_back(stories: Path) -> None:
    async with running(stories) as daybook:
        found = {story: figures(await revenue(daybook, story.__name__)) for story in STORIES}

    assert found == STORIES


async def test_who_has_ordered_nothing_has_no_dates_and_no_averages(stories: Path) -> None:
    async with running(stories) as daybook:
        answer = await revenue(daybook, "an_invoice_voided")

    assert answer["customer_name"] == "An_Invoice_Voided"
    assert set(answer["revenue_summary"].values()) == {0, None}
    assert answer["monthly_breakdown"] == answer["product_breakdown"] == answer["orders"] == []
    assert answer["customer_segment"] == "low_value"
    assert answer["activity_status"] is answer["lifecycle_stage"] is None


async def test_the_list_shows_the_same_figures_as_each_customer(stories: Path) -> None:
    async with running(stories) as daybook:
        listed = (await daybook.get(TOP, limit=1000))["customers"]
        for row in listed:
            answer = await revenue(daybook, row["customer_id"])
            shown = {name: row[name] for name in answer["revenue_summary"] if name in row}
            assert shown == {name: answer["revenue_summary"][name] for name in shown}
            assert len(shown) == 10
            for name in ("customer_name", "customer_segment", "activity_status", "lifecycle_stage"):
                assert row[name] == answer[name]
            assert set(row["causes"]) <= {cause for order in answer["orders"] for cause in order["causes"]}
            assert row["causes"]

    # a payment that names no customer is nobody's
    assert {row["customer_id"] for row in listed} == {
        s.__name__ for s, figures in STORIES.items() if figures[0]
    }


async def test_money_goes_back_on_its_own_day(stories: Path) -> None:
    async with running(stories) as daybook:
        refunded = await revenue(daybook, "two_refunds_of_an_invoice")
        before = await revenue(daybook, "two_refunds_of_an_invoice", today="2025-04-30")
        disputed = await revenue(daybook, "a_dispute_lost")

    assert [(row["kind"], row["date"]) for row in refunded["reversals"]] == [
        ("refunded", LATER),
        ("refunded", LAST),
    ]
    assert figures(before) == ([(DAY, 5000)], 2500, 0)
    assert [(row["kind"], row["date"]) for row in disputed["reversals"]] == [("disputed", LAST)]


# Changes of mind


async def test_a_payment_that_turns_out_to_be_an_invoices_is_no_order_of_its_own(daybook: Daybook) -> None:
    await daybook.record("customer.recorded", f"{DAY}T00:00:00Z", customer_id="cus", name="Avery")
    await pays(daybook, "cus", DAY, 5000, payment_id="pay")
    await pays(daybook, "other", DAY, 1)
    await daybook.catch_up()
    before = figures(await revenue(daybook, "cus"))
    await invoices(daybook, "cus", LATER, 5000, status="open", payment_ids=["pay"])
    await daybook.catch_up()
    open_ = figures(await revenue(daybook, "cus"))
    listed = (await daybook.get(TOP))["customers"]
    await invoices(daybook, "cus", LATER, 5000, payment_ids=["pay"])
    await daybook.catch_up()

    assert before == ([(DAY, 5000)], 0, 0)
    assert open_ == ([(DAY, 5000)], 0, 0)
    assert [(row["customer_id"], row["total_orders"]) for row in listed] == [("cus", 1), ("other", 1)]
    assert figures(await revenue(daybook, "cus")) == ([(LATER, 5000)], 0, 0)


async def test_an_order_begins_a_day_of_the_reporting_zone(data_dir: Path) -> None:
    async with running(data_dir, reporting_tz="America/New_York") as daybook:
        await pays(daybook, "cus", DAY, 5000, at="2025-04-01T03:59:59Z", payment_id="1")
        await pays(daybook, "cus", DAY, 5000, at="2025-04-01T04:00:00Z", payment_id="2")
        await daybook.catch_up()

        assert figures(await revenue(daybook, "cus"))[0] == [("2025-03-31", 5000), ("2025-04-01", 5000)]
        answer = await daybook.get(path_of("cus"), today="2025-07-01")
        assert answer["meta"]["calculation_date"] == "2025-07-01T04:00:00Z"


# Currencies, processors, accounts, ids


async def test_currencies_are_never_added_together(daybook: Daybook) -> None:
    await pays(daybook, "cus", DAY, 5000)
    await pays(daybook, "cus", LATER, 100_000, currency="jpy")
    await daybook.catch_up()

    assert figures(await revenue(daybook, "cus"))[0] == [(DAY, 5000)]
    yen = await revenue(daybook, "cus", currency="jpy")
    assert figures(yen)[0] == [(LATER, 100_000)]
    assert yen["customer_segment"] == "whale"  # ¥100,000: the yen has no minor unit
    none = await revenue(daybook, "cus", currency="eur")
    assert figures(none) == ([], 0, 0)
    assert none["currency"] == "eur"
    assert [row["total_revenue_cents"] for row in (await daybook.get(TOP, currency="jpy"))["customers"]] == [
        100_000
    ]


async def test_limits_of_segments_are_in_whole_units_of_the_currency(daybook: Daybook) -> None:
    edges: dict[str, dict[str, tuple[int, str]]] = {}
    for currency, limit in (("usd", 1_000_00), ("jpy", 1_000), ("kwd", 1_000_000)):
        edges[currency] = {
            "a": (10 * limit, "whale"),
            "b": (10 * limit - 1, "high_value"),
            "c": (limit, "high_value"),
            "d": (limit - 1, "medium_value"),
            "e": (limit // 10, "medium_value"),
            "f": (limit // 10 - 1, "low_value"),
        }
        for who, (cents, _) in edges[currency].items():
            await pays(daybook, who, DAY, cents, currency=currency, payment_id=f"{currency}-{who}")
    await daybook.catch_up()

    for currency, of in edges.items():
        rows = (await daybook.get(TOP, currency=currency))["customers"]
        shares = (await daybook.get("/api/payment/analytics/distribution", currency=currency))["segments"]
        assert {row["customer_id"]: row["customer_segment"] for row in rows} == {
            who: segment for who, (_, segment) in of.items()
        }
        for row in shares:
            mine = [cents for cents, segment in of.values() if segment == row["segment"]]
            assert (row["customers"], row["revenue_cents"]) == (len(mine), sum(mine))


async def test_one_id_at_two_processors_is_two_customers(daybook: Daybook) -> None:
    charge = stripe_charge("1", 300, NOW, customer="twin")
    await daybook.post(STRIPE, stripe_event("charge.succeeded", charge))
    await pays(daybook, "twin", DAY, 5000)
    await daybook.catch_up()

    for read in ("revenue", "forecast", "opportunities"):
        answer = await daybook.ask(path_of("twin", read))
        assert answer.status_code == 400
        detail = answer.json()["detail"]
        assert "processor=stripe" in detail
        assert "processor=standard.acme" in detail
    assert figures(await revenue(daybook, "twin", processor="stripe"))[0] == [("2025-11-13", 300)]
    assert figures(await revenue(daybook, "twin", processor="standard.acme"))[0] == [(DAY, 5000)]
    assert (await daybook.ask(path_of("twin"), processor="mxmerchant")).status_code == 404
    rows = (await daybook.get(TOP))["customers"]
    assert [(row["processor"], row["total_revenue_cents"]) for row in rows] == [
        ("standard.acme", 5000),
        ("stripe", 300),
    ]


async def test_one_id_in_two_accounts_is_two_customers(daybook: Daybook) -> None:
    for account, cents in (("", 100), ("acct_b", 200)):
        await pays(daybook, "twin", DAY, cents, account=account, payment_id="same")
    await daybook.catch_up()

    answer = await daybook.ask(path_of("twin"))

    assert answer.status_code == 400
    assert "account=acct_b" in answer.json()["detail"]
    assert figures(await revenue(daybook, "twin", account="acct_b"))[0] == [(DAY, 200)]
    assert figures(await revenue(daybook, "twin", account=""))[0] == [(DAY, 100)]
    rows = (await daybook.get(TOP, account="acct_b"))["customers"]
    assert [row["total_revenue_cents"] for row in rows] == [200]
    assert len((await daybook.get(TOP))["customers"]) == 2


ODD = ("org/team 7", "a/revenue", "Ünï✓", "100%", "a|b", "x?y=1#z", "top", "...", "a+b", "'; --", '"')


async def test_an_id_may_hold_anything_that_can_be_printed(daybook: Daybook) -> None:
    for number, who in enumerate(ODD, start=1):
        await pays(daybook, who, DAY, number)
        await daybook.record("customer.recorded", f"{DAY}T00:00:00Z", customer_id=who, name=f"Named {who}")
    await daybook.catch_up()

    for number, who in enumerate(ODD, start=1):
        answer = await revenue(daybook, who)
        assert answer["customer_id"] == who
        assert answer["customer_name"] == f"Named {who}"
        assert figures(answer)[0] == [(DAY, number)]
        assert (await daybook.ask(path_of(who, "opportunities"))).json()["customer_id"] == who


async def test_an_unknown_customer_is_404(stories: Path) -> None:
    async with running(stories) as daybook:
        for who in ("nobody", "", "a/b", "\0", "\n", "\ud7ff", "A_PAYMENT", "x" * 3000):
            for read in ("revenue", "forecast", "opportunities"):
                answer = await daybook.ask(path_of(who, read))
                assert answer.status_code == 404, (who, answer.text)


async def test_a_customer_with_a_contract_alone_is_known(daybook: Daybook) -> None:
    await daybook.record("subscription.recorded", "2025-11-13T10:00:00Z", **subscription("1", 5000))
    await daybook.post(STRIPE, stripe_event("customer.subscription.created", stripe_subscription("1", 4900)))
    await daybook.catch_up()

    for who in ("cust-1", "cus_1"):
        assert figures(await revenue(daybook, who)) == ([], 0, 0)


# MX Merchant


async def test_payments_of_mx_merchant_are_orders(daybook: Daybook) -> None:
    of = {"customer": None, "customerNumber": "77", "transactionDate": "Mar 1 2025 6:21PM"}
    await daybook.post(MX, payment("501", 12_345, **of))
    await daybook.post(MX, payment("502", 100, eventType="PaymentFail", **of))
    back = {"eventType": "RefundCreated", "totalAmount": "-23.45", "originalPaymentId": "501"}
    await daybook.post(MX, payment("503", 0, **{**of, "transactionDate": "Apr 1 2025 6:21PM"}, **back))
    await daybook.catch_up()

    answer = await revenue(daybook, "77")

    assert figures(answer) == ([(DAY, 12_345)], 2345, 0)
    assert (answer["processor"], answer["account"], answer["customer_name"]) == (
        "mxmerchant",
        "1000000001",
        None,
    )


async def test_customers_of_mx_merchant_are_known_by_name_within_the_merchant(daybook: Daybook) -> None:
    # given one name with a number, with another, with none, and at another merchant
    on = {"transactionDate": "Mar 1 2025 6:21PM"}
    await daybook.post(MX, payment("501", 12_345, customerNumber="77", **on))
    await daybook.post(MX, payment("502", 900, customerNumber="78", **on))
    await daybook.post(MX, payment("503", 50, **on))
    await daybook.post(MX, payment("504", 700, merchantId="1000000002", customerNumber="77", **on))
    # and the number alone
    await daybook.post(MX, payment("505", 30, customer=None, customerNumber="77", **on))
    await daybook.catch_up()

    rows = (await daybook.get(TOP))["customers"]

    told = [(row["account"], row["customer_name"], row["total_revenue_cents"]) for row in rows]
    assert told == [
        ("1000000001", "Avery Stone", 13_295),
        ("1000000002", "Avery Stone", 700),
        ("1000000001", None, 30),
    ]
    assert rows[2]["customer_id"] == "77"
    assert figures(await revenue(daybook, rows[0]["customer_id"]))[0] == [
        (DAY, 12_345),
        (DAY, 900),
        (DAY, 50),
    ]


async def test_an_order_that_nothing_proves_says_so(daybook: Daybook) -> None:
    await daybook.post(MX_TOKEN, payment("501", 700))
    await daybook.post(MX, payment("502", 800))
    await daybook.catch_up()
    (customer,) = (await daybook.get(TOP))["customers"]

    answer = await revenue(daybook, customer["customer_id"])

    assert figures(answer)[0] == [("2025-11-13", 700), ("2025-11-13", 800)]
    assert [order["trust"] for order in answer["orders"]] == ["unsigned", "signed"]


# Products


async def test_a_product_is_called_as_it_was_last_told_else_as_its_line_says_else_by_its_id(
    daybook: Daybook,
) -> None:
    line = {"amount": 1000}
    lines = [
        {**line, "product_id": "told", "product_name": "Of the line"},
        {**line, "product_id": "of-line", "product_name": "Of the line"},
        {**line, "product_id": "bare"},
        {**line, "price_id": "price-alone"},
        line,
    ]
    await invoices(daybook, "cus", DAY, 5000, lines=lines)
    for day, name in (("2025-01-01", "First"), ("2025-01-02", "Told"), ("2025-01-03", None)):
        await daybook.record("product.recorded", f"{day}T00:00:00Z", product_id="told", name=name)
    # another account's product of the same id
    await daybook.record(
        "product.recorded", f"{LATER}T00:00:00Z", account="acct_b", product_id="bare", name="Not this one"
    )
    await daybook.catch_up()

    products = (await revenue(daybook, "cus"))["product_breakdown"]

    assert [(row["product_id"], row["product_name"]) for row in products] == [
        (None, None),
        ("bare", "bare"),
        ("of-line", "Of the line"),
        ("price-alone", "price-alone"),
        ("told", "Told"),
    ]
    assert {row["percentage_of_total"] for row in products} == {20.0}


async def test_what_lines_say_is_shared_out_in_proportion_to_the_cent(daybook: Daybook) -> None:
    lines = [
        {"amount": 100, "product_id": "a"},
        {"amount": 100, "product_id": "b"},
        {"amount": 100, "product_id": "c"},
        {"amount": -0, "product_id": "free"},
    ]
    await invoices(daybook, "cus", DAY, 200, lines=lines)
    credit = [{"amount": 3000, "product_id": "a"}, {"amount": -1000, "product_id": "credit"}]
    await invoices(daybook, "other", DAY, 2000, lines=credit)
    nothing = [{"amount": 500, "product_id": "a"}, {"amount": -500, "product_id": "a"}]
    await invoices(daybook, "balance", DAY, 700, lines=nothing)
    await daybook.catch_up()

    async def parts(who: str) -> dict[str | None, int]:
        rows = (await revenue(daybook, who))["product_breakdown"]
        return {row["product_id"]: row["revenue_cents"] for row in rows}

    assert await parts("cus") == {"a": 67, "b": 67, "c": 66}
    assert await parts("other") == {"a": 2000}
    assert await parts("balance") == {None: 700}


@pytest.mark.parametrize("read", ["revenue", "forecast", "opportunities"])
async def test_a_customer_is_read_with_a_key_where_one_is_set(stories: Path, read: str) -> None:
    path = path_of("a_payment", read)
    async with running(stories, Clock(), api_keys="the-only-read-key") as daybook:
        assert (await daybook.ask(path)).status_code == 401
        answer = await daybook.http.get(path, headers={"X-API-Key": "the-only-read-key"})
        assert answer.status_code == 200
