"""A figure is taken apart: into rows that add up to it, and events whose bytes are checked again."""

import csv
import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from service.reads.explain.catalog import EXPLAINABLE
from tests.support.openapi import answer_schema, is_described
from tests.support.posted_books import filled
from tests.support.running import NOW, Daybook, running
from tests.support.senders import STANDARD, STRIPE, recorded, stripe_event, stripe_subscription, subscription
from tests.support.stores import EACH_STORE, NewDataDir
from tests.web.business import post_business

STORES = EACH_STORE

EXPLAIN = "/api/v1/explain"


@pytest.fixture(scope="module")
def business(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled(new_data_dir(tmp_path_factory.mktemp("business") / "data"), post_business, NOW)


RANGE = {"from_": "2025-09", "to": "2025-11"}
ONE = {"customer_id": "cust-1"}


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
        ({"figure": "nothing/at/all"}, "nothing/… can't be explained; there are annual-forecast"),
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
        ({"figure": "metrics", "position": 1}, "position: not for this read"),
        ({"figure": "distribution", "known_at": "2025-11-13"}, "known_at: not for this read"),
        ({"figure": "mrr", "position": 1}, "position: at most 0"),
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


async def test_no_figure_of_empty_books_is_said_to_be_wrong(daybook: Daybook) -> None:
    figures = [
        f"{name}/{figure}"
        for name, read in EXPLAINABLE.items()
        for figure in read.figures
        if "*" not in figure and "{customer_id}" not in read.path
    ]
    for figure in figures:
        found = await daybook.get(EXPLAIN, figure=figure)
        assert found["value"] in (0, None), figure
        assert found["adds_up"] is not False, figure


async def test_one_event_id_of_two_accounts_is_told_apart(daybook: Daybook) -> None:
    for account, cents in (("north", 500), ("south", 700)):
        data = subscription("1", cents)
        event = {**recorded("subscription.recorded", data), "account": account}
        await daybook.post(STANDARD, event, message_id="msg_1")
    await daybook.catch_up()

    both = await daybook.get(EXPLAIN, figure="mrr")
    one = await daybook.get(EXPLAIN, figure="mrr", account="south")

    assert [(event["account"], event["position"]) for event in both["events"]] == [
        ("north", 1),
        ("south", 2),
    ]
    assert [event["account"] for event in one["events"]] == ["south"]
    assert (await daybook.http.get(one["events"][0]["link"])).json()["position"] == 2


async def test_one_event_of_stripe_that_two_endpoints_tell_is_one(daybook: Daybook) -> None:
    event = stripe_event("customer.subscription.created", stripe_subscription("1", 500))
    for account in ("acct_2", "acct_1"):
        await daybook.post(STRIPE, {**event, "account": account})
    await daybook.catch_up()

    found = await daybook.get(EXPLAIN, figure="mrr")

    assert found["value"] == 500
    assert [event["account"] for event in found["events"]] == ["acct_1"]


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
