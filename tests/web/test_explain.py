"""A figure is taken apart: into rows that add up to it, and events whose bytes are checked again."""

import csv
import io
import re
from collections.abc import Callable
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.core.money import round_half_away
from service.reads.explain.figures import EXPLAINABLE
from tests.support.openapi import answer_schema, is_described
from tests.support.posted_books import filled, invoices, pays, refunds
from tests.support.running import NOW, Daybook, running
from tests.support.senders import STANDARD, recorded, subscription
from tests.support.stores import EACH_STORE, NewDataDir
from tests.web.figures import figures_of

STORES = EACH_STORE

EXPLAIN = "/api/v1/explain"
ENDING = {"cancel_at": "2025-12-20T12:00:00Z"}


async def post_business(daybook: Daybook) -> None:
    """Contracts that come, grow, shrink, go and come again; bills of every status; money given back."""

    async def told(
        day: str, key: str, cents: int, interval: str = "month", every: int = 1, **more: Any
    ) -> None:
        bill = {"next_bill_at": "2025-11-20T12:00:00Z", **more}
        data = subscription(key, cents, interval, every, **bill)
        await daybook.record("subscription.recorded", f"{day}T10:00:00Z", **data)

    await told("2025-09-02", "1", 5000)
    await told("2025-10-01", "1", 9000)
    await told("2025-11-04", "1", 7000)
    await told("2025-09-05", "2", 2000, "week")
    await told("2025-10-31", "2", 2000, "week", status="canceled")
    await told("2025-11-07", "2b", 3000, "week", customer_id="cust-2")
    await told("2025-11-07", "3", 4000, "week", 4, **ENDING)
    await told("2025-11-08", "4", 6000, "week", 10, next_bill_at="2025-11-25T12:00:00Z")
    await told("2025-11-08", "5", 1000, currency="eur")
    line = {"product_id": "prod-1", "product_name": "Hours"}
    for day, cents in (("2025-09-09", 5000), ("2025-11-09", 2500)):
        lines = [{"amount": cents - 500, **line}, {"amount": 500, "product_id": "prod-2"}]
        await invoices(daybook, "cust-1", day, cents, subscription_id="sub-1", lines=lines)
    await invoices(daybook, "cust-6", "2025-11-10", 800, status="open", payment_failed=True)
    await invoices(daybook, "cust-6", "2025-11-11", 900, status="uncollectible")
    await invoices(daybook, "cust-6", "2025-11-28", 700, status="draft")
    await pays(daybook, "cust-1", "2025-10-12", 1200, payment_id="pay-1")
    await refunds(daybook, "2025-11-12", 300, payment_id="pay-1")
    of = {"payment_id": "pay-1", "currency": "usd", "amount": 200}
    await daybook.record("dispute.recorded", "2025-11-12T12:00:00Z", dispute_id="d", status="lost", **of)


@pytest.fixture(scope="module")
def business(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(new_data_dir(tmp_path_factory.mktemp("business") / "data"), post_business, NOW)


RANGE = {"from_": "2025-09", "to": "2025-11"}
ONE = {"customer_id": "cust-1"}
DOCUMENTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # as explain is asked, and the read beside it
    "month-detail": ({"year": 2025, "month": 11}, {}),
    "monthly-totals": ({"from_": "2025-09-05", "to": "2025-11-10"}, {"detail": "cash"}),
    "mrr": ({}, {}),
    "movements": (RANGE, {"detail": "customers"}),
    "upcoming": ({"from_": "2025-11-14", "to": "2025-11-30"}, {}),
    "customer-revenue": (
        ONE,
        {"detail": "orders", "breakdown": "monthly,quarterly,by_product", "include_predictions": "false"},
    ),
}
UNTOLD = re.compile(r"/orders/\d+/products/\d+/amount_cents")  # of what an order is made says its own row


def average(found: dict[str, Any]) -> int:
    orders = found["terms"].get("total_orders", found["terms"].get("orders"))
    return round_half_away(found["sum"], orders) if orders else 0


def dates(found: dict[str, Any]) -> list[date]:
    return [date.fromisoformat(row["date"]) for row in found["rows"]]


# What the words of a formula give, of the sum and the terms; it is the sum where there is none.
MADE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "arr_cents": lambda of: 12 * of["sum"],
    "arpa_cents": lambda of: round_half_away(of["sum"], of["terms"]["customers"]),
    "top_share": lambda of: round(of["sum"] / of["terms"]["total_cents"], 4),
    "avg_order_value_cents": average,
    "percentage_of_total": lambda of: round(100 * of["sum"] / of["terms"]["total_revenue_cents"], 2),
    "days_until_payment": lambda of: (dates(of)[0] - NOW.date()).days,
    "customer_lifespan_days": lambda of: (dates(of)[-1] - dates(of)[0]).days,
    "purchase_frequency_days": lambda of: round_half_away(
        of["terms"]["customer_lifespan_days"], of["terms"]["total_orders"]
    ),
    "avg_days_between_purchases": lambda of: round(
        of["terms"]["customer_lifespan_days"] / (of["terms"]["total_orders"] - 1), 2
    ),
}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_every_figure_is_what_its_rows_make(business: Path, name: str) -> None:
    asked, beside = DOCUMENTS[name]
    path = EXPLAINABLE[name].path.replace("{customer_id}", ONE["customer_id"])
    query = {key: value for key, value in asked.items() if key != "customer_id"}
    places = set()
    async with running(business) as daybook:
        document = await daybook.get(path, **query, **beside)
        for pointer, value in figures_of(document):
            if UNTOLD.fullmatch(pointer):
                continue
            places.add(re.sub(r"/\d+/", "/*/", pointer)[1:])
            found = await daybook.get(EXPLAIN, figure=name + pointer, **asked)

            make = MADE.get(pointer.rpartition("/")[2])
            assert found["value"] == value == (make(found) if make else found["sum"]), pointer
            assert found["adds_up"] is (None if make else True), pointer
            assert found["formula"] or not make, pointer
            assert sum(row["contributes"] for row in found["rows"]) == found["sum"], pointer
            assert len(found["rows"]) == found["count"], pointer
            assert not value or found["rows"], pointer
            causes = {cause for row in found["rows"] for cause in row["causes"]}
            assert {event["cause"] for event in found["events"]} == causes
            assert all(event["delivery"]["verified"] is True for event in found["events"])
    assert places == set(EXPLAINABLE[name].figures)
    assert is_described(found, answer_schema(EXPLAIN))


async def test_the_current_month_is_explained_as_its_detail_is(business: Path) -> None:
    async with running(business) as daybook:
        for pointer in ("summary/open_cents", "weeks/2/customers", "days/0/payments", "top/1/amount_cents"):
            now = await daybook.get(EXPLAIN, figure=f"current-month/{pointer}")
            november = await daybook.get(EXPLAIN, figure=f"month-detail/{pointer}", year=2025, month=11)

            assert now["value"] == november["value"] > 0
            assert now["rows"] == november["rows"]


async def test_a_customers_mrr_is_made_of_the_steps_until_a_day(business: Path) -> None:
    async with running(business) as daybook:
        then = await daybook.get(EXPLAIN, figure="mrr", today="2025-10-31", **ONE)
        now = await daybook.get(EXPLAIN, figure="mrr/arr_cents", **ONE)
        more = await daybook.ask(EXPLAIN, figure="mrr/customers", **ONE)

    assert then["figure"] == "mrr/mrr_cents"
    assert (then["value"], [row["contributes"] for row in then["rows"]]) == (9000, [5000, 4000])
    assert [event["occurred_at"] for event in then["events"]] == [
        "2025-09-02T10:00:00Z",
        "2025-10-01T10:00:00Z",
    ]
    assert then["of"]["customer_id"] == "cust-1"
    assert (now["value"], now["sum"], now["terms"]) == (84000, 7000, {"mrr_cents": 7000})
    assert more.json()["detail"] == "figure: of mrr there are mrr_cents, arr_cents"


async def test_a_row_can_be_named_by_what_it_says(business: Path) -> None:
    async with running(business) as daybook:
        day = await daybook.get(EXPLAIN, figure="month-detail/days/date=2025-11-20/total_cents")
        move = "movements/movements/customer_id=cust-2,kind=churn/amount_cents"
        movement = await daybook.get(EXPLAIN, figure=move, **RANGE)
        missing = await daybook.ask(EXPLAIN, figure="month-detail/days/date=2025-11-19/total_cents")
        several = await daybook.ask(EXPLAIN, figure="movements/movements/customer_id=cust-1/amount_cents")

    assert day["value"] == day["sum"] == 14000
    assert movement["value"] == -8660
    assert movement["of"]["date"] == "2025-10-31"
    assert (missing.status_code, several.status_code) == (404, 404)
    assert missing.json()["detail"] == "figure: no rows of this answer of month-detail are date=2025-11-19"


async def test_each_currency_and_policy_has_its_own(business: Path) -> None:
    async with running(business) as daybook:
        for query in ({"currency": "eur"}, {"policy": "stripe"}, {"policy": "chartmogul"}):
            mrr = await daybook.get("/api/v1/mrr", **query)
            for name in ("mrr_cents", "customers", "active_contracts"):
                found = await daybook.get(EXPLAIN, figure=f"mrr/{name}", **query)
                assert found["value"] == found["sum"] == mrr[name]
        default = await daybook.get(EXPLAIN, figure="mrr/customers")
        stripe = await daybook.get(EXPLAIN, figure="mrr/customers", policy="stripe")
        nobody = await daybook.get(EXPLAIN, figure="mrr/arpa_cents", currency="jpy")

    assert default["value"] - stripe["value"] == 1  # whose end is set
    assert (nobody["value"], nobody["rows"]) == (None, [])


async def test_rows_come_a_page_at_a_time_and_sums_whole(business: Path) -> None:
    query = {"figure": "customer-revenue/revenue_summary/net_revenue_cents", **ONE}
    async with running(business) as daybook:
        whole = await daybook.get(EXPLAIN, **query)
        pages = [await daybook.get(EXPLAIN, limit=2, **query)]
        while cursor := pages[-1]["next_cursor"]:
            pages.append(await daybook.get(EXPLAIN, limit=2, cursor=cursor, **query))
        listed = await daybook.ask(EXPLAIN, format="csv", **query)

    assert {row["table"] for row in whole["rows"]} == {"orders", "reversals"}
    assert [row for page in pages for row in page["rows"]] == whole["rows"]
    assert {(page["count"], page["sum"], page["value"]) for page in pages} == {(5, 8200, 8200)}
    assert [len(page["rows"]) for page in pages] == [2, 2, 1]
    assert all(len(page["events"]) == len(page["rows"]) for page in pages)
    lines = list(csv.DictReader(io.StringIO(listed.text)))
    assert [int(line["contributes"]) for line in lines] == [row["contributes"] for row in whole["rows"]]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({}, "figure: one of"),
        ({"figure": "nothing/at/all"}, "nothing/… can't be explained; there are current-month"),
        ({"figure": "mrr/weeks_per_month"}, "of mrr there are mrr_cents, arr_cents"),
        ({"figure": "month-detail/year"}, "of month-detail there are summary/total_cents"),
        ({"figure": "month-detail/days/0"}, "of month-detail there are"),
        ({"figure": "month-detail/meta/position"}, "of month-detail there are"),
        ({"figure": "movements"}, "of movements there are periods/*/opening_cents"),
        ({"figure": "mrr", "year": 2025}, "year: no such parameter of mrr, which takes policy"),
        ({"figure": "mrr", "policy": "none"}, "policy: of chartmogul, default, stripe"),
        ({"figure": "month-detail", "month": 13}, "month: "),
        ({"figure": "customer-revenue"}, "customer_id: the customer"),
        ({"figure": "mrr", "cursor": "eA=="}, "cursor: "),
        ({"figure": "mrr", "position": 1}, "position: no such parameter"),
    ],
)
async def test_an_unknown_figure_is_refused_and_the_known_ones_are_named(
    daybook: Daybook, query: dict[str, Any], said: str
) -> None:
    answer = await daybook.ask(EXPLAIN, **query)

    assert answer.status_code == 400
    assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    "figure", ["mrr/by_schedule/0/mrr_cents", f"month-detail/days/{'9' * 9}/payments", "upcoming/days/x/a"]
)
async def test_a_row_that_is_not_there_is_not_found(daybook: Daybook, figure: str) -> None:
    answer = await daybook.ask(EXPLAIN, figure=figure)

    assert answer.status_code == 404
    assert is_described(answer.json(), answer_schema(EXPLAIN, status="404"))


async def test_an_unknown_customer_is_not_found(daybook: Daybook) -> None:
    for figure in ("mrr", "customer-revenue"):
        assert (await daybook.ask(EXPLAIN, figure=figure, customer_id="nobody")).status_code == 404


async def test_a_figure_of_empty_books_has_no_rows(daybook: Daybook) -> None:
    for figure in ("mrr", "month-detail", "upcoming", "month-detail/top_share", "mrr/customers"):
        found = await daybook.get(EXPLAIN, figure=figure)
        assert (found["value"], found["sum"], found["count"], found["events"]) == (0, 0, 0, [])


async def test_one_event_id_of_two_accounts_is_told_apart(daybook: Daybook) -> None:
    for account, cents in (("acct_1", 500), ("acct_2", 700)):
        event = {**recorded("subscription.recorded", subscription("1", cents)), "account": account}
        await daybook.post(STANDARD, event, message_id="msg_1")
    await daybook.catch_up()

    both = await daybook.get(EXPLAIN, figure="mrr")
    one = await daybook.get(EXPLAIN, figure="mrr", account="acct_2")

    assert [(event["account"], event["position"]) for event in both["events"]] == [
        ("acct_1", 1),
        ("acct_2", 2),
    ]
    assert [event["account"] for event in one["events"]] == ["acct_2"]
    assert (await daybook.http.get(one["events"][0]["link"])).json()["position"] == 2


async def test_an_answer_has_a_tag_of_its_own(business: Path) -> None:
    async with running(business) as daybook:
        answer = await daybook.ask(EXPLAIN, figure="mrr")
        again = await daybook.http.get(
            EXPLAIN, params={"figure": "mrr"}, headers={"If-None-Match": answer.headers["etag"]}
        )

    assert again.status_code == 304


async def test_rows_are_in_the_order_of_their_days(business: Path) -> None:
    async with running(business) as daybook:
        found = await daybook.get(EXPLAIN, figure="mrr")

    assert all(before["date"] <= after["date"] for before, after in pairwise(found["rows"]))
