"""What all reads have in common: parameters, scope, freshness, ETag, and what explains a row."""

import asyncio
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.reads.catalog import READS
from service.reads.parameters import to_cursor
from service.reads.read import Read
from service.reads.snapshots import precompute
from service.web.reads import COMMON
from tests.support.posted_books import LISTS, path_of, some_path
from tests.support.running import NOW, Daybook, running
from tests.support.senders import STANDARD, STRIPE, recorded, stripe_event, stripe_subscription, subscription
from tests.support.stores import EACH_STORE

AT = "2025-11-13T10:00:00Z"
RECORDED = "subscription.recorded"
each = pytest.mark.parametrize("read", READS, ids=lambda read: read.name)


def refused(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


# Defaults and parameters


@pytest.mark.parametrize("read", LISTS, ids=lambda read: read.name)
async def test_every_read_answers_while_the_ledger_is_empty(daybook: Daybook, read: Read) -> None:
    answer = await daybook.get(read.path)

    assert answer["currency"] == "usd"
    assert answer["meta"] == {
        "position": 0,
        "recorded_at": None,
        "lag_events": 0,
        "calculation_date": "2025-11-13" if read.dated else "2025-11-13T10:30:00Z",
        "data_freshness": "real_time",
        "weeks_per_month": "4.33",
        "unpriced_contracts": 0,
        "overdue_contracts": 0,
        "unknown_statuses": 0,
        "unlinked_payments": 0,
        "ignored_events": 0,
        "set_aside": 0,
        "inferred_share": 0.0,
    }


@pytest.mark.parametrize("read", [read for read in READS if read not in LISTS], ids=lambda read: read.name)
async def test_a_read_of_an_unknown_customer_is_404(daybook: Daybook, read: Read) -> None:
    assert refused(await daybook.ask(path_of(read, "nobody")), 404)


async def test_without_parameters_a_read_is_of_the_present(daybook: Daybook) -> None:
    await daybook.catch_up()

    detail = await daybook.get("/api/v1/revenue/month-detail")
    year = await daybook.get("/api/v1/revenue/annual-forecast")
    quarters = (await daybook.get("/api/v1/revenue/quarterly-forecast"))["quarters"]
    months = (await daybook.get("/api/v1/revenue/monthly-totals"))["months"]
    periods = (await daybook.get("/api/v1/mrr/movements"))["periods"]
    upcoming = await daybook.get("/api/v1/upcoming")

    assert (detail["year"], detail["month"], year["year"]) == (2025, 11, 2025)
    assert [quarter["quarter"] for quarter in quarters] == ["2025-Q4", "2026-Q1", "2026-Q2", "2026-Q3"]
    assert [months[0]["month"], months[-1]["month"], len(months)] == ["2024-12", "2025-11", 12]
    assert [periods[0]["period"], periods[-1]["period"], len(periods)] == ["2024-12", "2025-11", 12]
    assert (upcoming["from"], upcoming["to"]) == ("2025-11-13", "2025-12-13")


async def test_today_is_the_day_in_the_reporting_zone(data_dir: Path) -> None:
    async with running(data_dir, reporting_tz="Pacific/Auckland") as daybook:
        daybook.clock.now = NOW.replace(hour=12)  # past midnight in Auckland

        assert (await daybook.get("/api/v1/mrr"))["date"] == "2025-11-14"


async def test_mrr_answers_for_the_end_of_today_whatever_day_that_is(daybook: Daybook) -> None:
    await daybook.record(RECORDED, "2025-11-13T23:59:59Z", **subscription("1", 1000))
    await daybook.catch_up()

    for today, cents in (("2025-11-12", 0), ("2025-11-13", 1000), ("2031-01-01", 1000)):
        assert (await daybook.get("/api/v1/mrr", today=today))["mrr_cents"] == cents
        assert (await daybook.get("/api/v1/mrr", today=today))["meta"]["calculation_date"] == today


@each
async def test_an_unknown_parameter_is_named(daybook: Daybook, read: Read) -> None:
    assert refused(await daybook.ask(read.path, curency="usd"), 400).startswith("curency")


_BAD = {
    "currency": ["", "us", "dollars", "u$d", "€€€"],
    "today": [
        "",
        "yesterday",
        "2025-13-01",
        "2025-11-31",
        "20251113",
        "2025-W46-4",
        "0001-01-01",
        "9999-12-31",
    ],
    "at_least": ["", "-1", "1.5", "x", "9" * 30, "9" * 5000],
    "timeout_ms": ["-1", "30001", "soon"],
    "position": ["", "-1", "1.5", "x", "9" * 18, "9" * 30, "9" * 5000],
    "known_at": [
        "",
        "yesterday",
        "2025-11-31",
        "20251113",
        "2025-W46-4",
        "0001-01-01",
        "9999-12-31",
        "2025-11-13T10:30:00",
        "2025-11-13 10:30:00Z",
        "2025-11-13T25:30:00Z",
        "20251113T103000Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
    ],
    "format": ["xml", ""],
    "year": ["1969", "3000", "next", "-2025", "--5", "²"],
    "month": ["0", "13", "november"],
    "quarters": ["0", "21"],
    "from": ["2025", "2025-13", "0000-01", "9999-12", "2025-1", "x" * 7],
    "to": ["2025", "2025-13", "9999-12", "9999-12-31"],
    "by": ["week", ""],
    "detail": ["all"],
    "kind": ["", "upgrade", "new,"],
    "limit": ["0", "1001", "all"],
    "cursor": ["%%%", "é", "YWJ", "gIA="],
    "sort": ["", "name"],
    "order": ["", "up"],
    "segments": ["", "rich", "whale,", "whale;low_value"],
    "stage": ["", "active"],
    "period": ["", "last_3_months"],
    "breakdown": ["", "weekly", "monthly,weekly"],
    "include_predictions": ["", "1", "True"],
    "forecast": ["", "1", "True"],
    "overdue": ["", "1", "True"],
    "months": ["0", "37", "1.5"],
    "processor": ["\0"],
    "account": ["\0"],
}


@each
async def test_a_value_that_cannot_be_used_is_a_400_that_names_its_parameter(
    daybook: Daybook, read: Read
) -> None:
    assert {p.name for p in read.parameters} - {"policy", "status"} <= _BAD.keys()
    for parameter in (*COMMON, *read.parameters):
        for value in _BAD.get(parameter.name, []):
            answer = await daybook.ask(read.path, **{parameter.name: value})
            assert refused(answer, 400).startswith(f"{parameter.name}:"), (parameter.name, value)


@each
@pytest.mark.parametrize("today", ["1970-01-01", "2024-02-29", "2025-12-31", "2999-12-31"])
async def test_every_read_answers_for_any_today(mx_contracts: Path, read: Read, today: str) -> None:
    async with running(mx_contracts) as daybook:
        answer = await daybook.ask(await some_path(daybook, read), today=today)

    # A default range may lie outside the calendar; then its parameter is named.
    assert answer.status_code == 200 or refused(answer, 400).startswith(("from:", "to:")), answer.text


@pytest.mark.parametrize(
    "path", ["/api/v1/upcoming", "/api/v1/mrr/movements", "/api/v1/revenue/monthly-totals"]
)
async def test_a_range_that_ends_before_it_starts_or_is_over_ten_years_is_400(
    daybook: Daybook, path: str
) -> None:
    assert refused(await daybook.ask(path, from_="2025-12-01", to="2025-11-30"), 400).startswith("from:")
    assert refused(await daybook.ask(path, from_="2005-01-01", to="2025-11-30"), 400).startswith("to:")


# Freshness


async def test_meta_says_how_far_the_books_are(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 1000))
    await daybook.catch_up()
    recorded_at = "2025-11-13T10:30:00Z"
    daybook.clock.now += timedelta(seconds=90)
    await daybook.record(RECORDED, AT, **subscription("2", 1000))

    behind = (await daybook.get("/api/v1/mrr"))["meta"]
    await daybook.catch_up()
    caught_up = (await daybook.get("/api/v1/mrr"))["meta"]

    assert (behind["position"], behind["lag_events"], behind["data_freshness"]) == (1, 1, "catching_up")
    assert behind["recorded_at"] == recorded_at
    assert (caught_up["position"], caught_up["lag_events"], caught_up["data_freshness"]) == (
        2,
        0,
        "real_time",
    )
    assert caught_up["recorded_at"] == "2025-11-13T10:31:30Z"


@each
async def test_at_least_gives_504_where_the_books_stay_behind(daybook: Daybook, read: Read) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 1000))

    answer = await daybook.ask(read.path, at_least=1, timeout_ms=0)

    assert "position 0, not yet 1" in refused(answer, 504)


async def test_the_wait_is_measured_by_the_clock_and_not_by_its_sleeps(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a process so busy that every sleep takes far longer than it was asked for
    looks = 0
    read = daybook.state.store.read

    async def counted(query: Any) -> Any:
        nonlocal looks
        looks += 1
        return await read(query)

    async def keep_busy() -> None:
        while True:
            time.sleep(0.05)  # noqa: ASYNC251
            await asyncio.sleep(0)

    await daybook.post(STANDARD, STANDARD.event("1", 100))
    busy = asyncio.create_task(keep_busy())
    monkeypatch.setattr(daybook.state.store, "read", counted)

    # when
    began = time.monotonic()
    answer = await daybook.ask("/api/v1/mrr", at_least=1, timeout_ms=300)
    took = time.monotonic() - began
    busy.cancel()

    # then
    assert refused(answer, 504)
    assert took >= 0.3
    assert looks <= 7  # 50 ms each at least; thirty sleeps of 10 ms would be as many looks


async def test_at_least_waits_until_the_books_hold_the_position(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 1000))

    asked = asyncio.create_task(daybook.get("/api/v1/mrr", at_least=1, timeout_ms=20_000))
    behind = await daybook.get("/api/v1/mrr")
    await daybook.catch_up()

    assert behind["meta"]["position"] == 0
    assert (await asked)["mrr_cents"] == 1000


# Scope


async def test_currencies_never_meet(daybook: Daybook) -> None:
    for key, currency, cents in (("1", "usd", 1000), ("2", "eur", 300), ("3", "jpy", 7), ("4", "kwd", 1234)):
        more = {"currency": currency, "next_bill_at": "2025-11-20T12:00:00Z"}
        await daybook.record(RECORDED, AT, **{**subscription(key, cents), **more})
    await daybook.catch_up()

    for currency, cents in (("usd", 1000), ("EUR", 300), ("jpy", 7), ("kwd", 1234), ("gbp", 0)):
        of = {"currency": currency}
        mrr = await daybook.get("/api/v1/mrr", **of)
        others = {row["currency"]: row["mrr_cents"] for row in mrr["other_currencies"]}
        assert mrr["currency"] == currency.lower()
        assert mrr["mrr_cents"] == cents
        assert sum(others.values()) == 2541 - cents
        assert currency.lower() not in others
        assert (await daybook.get("/api/v1/upcoming", **of))["total_cents"] == cents
        detail = await daybook.get("/api/v1/revenue/month-detail", **of)
        assert detail["summary"]["total_cents"] == detail["summary"]["book_mrr_cents"] == cents
        year = await daybook.get("/api/v1/revenue/annual-forecast", year=2026, **of)
        assert year["total_cents"] == 12 * cents
        assert len((await daybook.get("/api/v1/contracts", **of))["contracts"]) == (1 if cents else 0)


async def test_without_a_currency_it_is_the_reporting_one(data_dir: Path) -> None:
    async with running(data_dir, reporting_currency="EUR") as daybook:
        assert (await daybook.get("/api/v1/mrr"))["currency"] == "eur"


async def test_an_account_sees_its_own_and_none_sees_all(daybook: Daybook) -> None:
    for account, cents in (("", 1), ("acct_a", 20), ("acct_b", 300)):
        thing = subscription("1", cents, next_bill_at="2025-11-20T12:00:00Z")
        await daybook.record(RECORDED, AT, account=account, **thing)
    connected = stripe_event(
        "customer.subscription.created", stripe_subscription("1", 4000), account="acct_a"
    )
    await daybook.post(STRIPE, connected)
    await daybook.catch_up()

    for scope, cents, contracts in (
        ({}, 4321, 4),
        ({"account": ""}, 1, 1),
        ({"account": "acct_a"}, 4020, 2),
        ({"account": "acct_b"}, 300, 1),
        ({"account": "acct_c"}, 0, 0),
    ):
        mrr = await daybook.get("/api/v1/mrr", **scope)
        assert (mrr["mrr_cents"], mrr["active_contracts"], mrr["customers"]) == (cents, contracts, contracts)
        assert (await daybook.get("/api/v1/upcoming", **scope))["total_cents"] == cents
        detail = await daybook.get("/api/v1/revenue/month-detail", **scope)
        assert (detail["summary"]["total_cents"], detail["summary"]["customers"]) == (cents, contracts)
        movements = await daybook.get("/api/v1/mrr/movements", **scope)
        assert movements["periods"][-1]["closing_cents"] == cents


# ETag


@each
async def test_what_the_caller_has_already_is_304(mx_contracts: Path, read: Read) -> None:
    async with running(mx_contracts) as daybook:
        path = await some_path(daybook, read)
        first = await daybook.ask(path)
        etag = first.headers["etag"]
        assert etag.startswith("W/") != read.dated
        strong = etag.removeprefix("W/")

        for held in (etag, strong, f"W/{strong}", f'"other", {etag}', "*"):
            again = await daybook.http.get(path, headers={"If-None-Match": held})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        changed = await daybook.http.get(path, headers={"If-None-Match": '"other"'})
        assert (changed.status_code, changed.content) == (200, first.content)


async def test_a_new_event_gives_a_new_etag(daybook: Daybook) -> None:
    before = (await daybook.ask("/api/v1/mrr")).headers["etag"]
    await daybook.record(RECORDED, AT, **subscription("1", 1000))
    await daybook.catch_up()

    after = await daybook.http.get("/api/v1/mrr", headers={"If-None-Match": before})

    assert after.status_code == 200
    assert after.headers["etag"] != before


# Lists


async def test_pages_hold_every_contract_once(demo: Path) -> None:
    async with running(demo) as daybook:
        whole = (await daybook.get("/api/v1/contracts", limit=1000))["contracts"]
        for limit in (1, 7, 68, 69, 70):
            pages, cursor = [], None
            while cursor or not pages:
                page = await daybook.get(
                    "/api/v1/contracts", limit=limit, **({"cursor": cursor} if cursor else {})
                )
                assert 0 < len(page["contracts"]) <= limit
                pages += page["contracts"]
                cursor = page["next_cursor"]
            assert pages == whole

    assert len(whole) == 69
    assert len({(row["processor"], row["account"], row["contract_id"]) for row in whole}) == 69


async def test_contracts_may_be_asked_by_status_in_any_case(mx_contracts: Path) -> None:
    async with running(mx_contracts) as daybook:
        rows = (await daybook.get("/api/v1/contracts"))["contracts"]
        for status in {row["status"] for row in rows} | {"nothing"}:
            for asked in (status, status.upper(), status.title()):
                found = (await daybook.get("/api/v1/contracts", status=asked))["contracts"]
                assert found == [row for row in rows if row["status"] == status]


NAMES = {  # of customers; by bytes capitals stand before small letters, and these before any accent
    "1": "avery",
    "2": "Zoe",
    "3": None,  # then the id is their name: cust-3
    "4": "Åsa",
    "5": "Avery",
    "6": "Avery",
    "7": "Bo\u00a0Unprintable",
}
BY_NAME = ["5", "6", "7", "2", "1", "3", "4"]


async def given_named_contracts(daybook: Daybook) -> None:
    for key, name in NAMES.items():
        await daybook.record(
            RECORDED, AT, **subscription(key, 100, "week", 4, next_bill_at="2025-11-20T12:00:00Z")
        )
        await daybook.record("customer.recorded", AT, customer_id=f"cust-{key}", name=name)
    await daybook.catch_up()


def keys_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["contract_id"].removeprefix("sub-") for row in rows]


@pytest.mark.parametrize("store_kind", EACH_STORE, scope="module")
async def test_contracts_go_by_the_customers_name_and_pages_follow_it(daybook: Daybook) -> None:
    await given_named_contracts(daybook)

    for limit in (1, 2, 5, 100):
        rows, cursor = [], None
        while cursor or not rows:
            asked = {"limit": limit} | ({"cursor": cursor} if cursor else {})
            page = await daybook.get("/api/v1/contracts", **asked)
            rows += page["contracts"]
            cursor = page["next_cursor"]
        assert keys_of(rows) == BY_NAME


@pytest.mark.parametrize("store_kind", EACH_STORE, scope="module")
async def test_what_is_added_between_two_pages_takes_no_place_twice(daybook: Daybook) -> None:
    await given_named_contracts(daybook)
    first = await daybook.get("/api/v1/contracts", limit=3)

    for key, name in (("8", "Aaron"), ("9", "Zachary")):
        await daybook.record(RECORDED, AT, **subscription(key, 100))
        await daybook.record("customer.recorded", AT, customer_id=f"cust-{key}", name=name)
    await daybook.catch_up()
    rest = await daybook.get("/api/v1/contracts", cursor=first["next_cursor"])

    assert keys_of(first["contracts"]) == BY_NAME[:3]
    assert keys_of(rest["contracts"]) == ["9", *BY_NAME[3:]]


async def test_contracts_of_one_id_go_by_account_then_processor(daybook: Daybook) -> None:
    for account in ("south", "north"):
        await daybook.record(RECORDED, AT, account=account, **subscription("1", 100))
    await daybook.catch_up()

    first = await daybook.get("/api/v1/contracts", limit=1)
    second = await daybook.get("/api/v1/contracts", limit=1, cursor=first["next_cursor"])

    assert [page["contracts"][0]["account"] for page in (first, second)] == ["north", "south"]
    assert second["next_cursor"] is None


async def test_a_cursor_that_names_no_contract_is_400(daybook: Daybook) -> None:
    await given_named_contracts(daybook)

    answer = await daybook.ask("/api/v1/contracts", cursor=to_cursor("subscription|standard.acme||none"))

    assert refused(answer, 400) == "cursor: the `next_cursor` of the page before"


async def test_bills_of_a_day_go_by_the_customers_name(daybook: Daybook) -> None:
    await given_named_contracts(daybook)
    await daybook.record(RECORDED, AT, **subscription("0", 100, next_bill_at="2025-11-19T12:00:00Z"))
    await daybook.catch_up()

    upcoming = await daybook.get("/api/v1/upcoming", forecast="true", to="2025-12-18")
    november = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=11)
    december = await daybook.get("/api/v1/revenue/month-detail", year=2025, month=12)

    assert keys_of(upcoming["payments"]) == ["0", *BY_NAME, *BY_NAME]
    assert keys_of(november["payments"]) == ["0", *BY_NAME]
    assert keys_of(december["payments"]) == [*BY_NAME, "0"]


async def test_what_is_coming_is_listed_by_day_with_names(daybook: Daybook) -> None:
    for key, day, name in (
        ("1", "20", "Zoe Last"),
        ("2", "20", None),
        ("3", "20", "Avery First"),
        ("4", "24", "Bo"),
    ):
        thing = subscription(key, 100, "week", 4, next_bill_at=f"2025-11-{day}T12:00:00Z")
        await daybook.record(RECORDED, AT, **thing)
        await daybook.record("customer.recorded", AT, customer_id=f"cust-{key}", name=name)
    await daybook.catch_up()

    upcoming = await daybook.get("/api/v1/upcoming", today="2025-11-14")
    short = await daybook.get("/api/v1/upcoming", from_="2025-11-21", to="2025-11-24", today="2025-11-30")

    assert upcoming["days"] == [
        {
            "billing_date": "2025-11-20",
            "payment_count": 3,
            "daily_revenue_cents": 300,
            "customers": ["Avery First", "Zoe Last", "cust-2"],
        },
        {"billing_date": "2025-11-24", "payment_count": 1, "daily_revenue_cents": 100, "customers": ["Bo"]},
    ]
    assert (upcoming["total_cents"], upcoming["payments_count"], upcoming["customers_count"]) == (400, 4, 4)
    assert [row["days_until_payment"] for row in upcoming["payments"]] == [6, 6, 6, 10]
    assert {row["billing_schedule"] for row in upcoming["payments"]} == {"Weekly - 4 Weeks"}
    assert [(row["customer_name"], row["days_until_payment"]) for row in short["payments"]] == [("Bo", -6)]


async def test_names_are_shown_on_bills_and_contracts_as_they_were_last_told(daybook: Daybook) -> None:
    await daybook.record(RECORDED, AT, **subscription("1", 100, next_bill_at="2025-11-20T12:00:00Z"))
    await daybook.record("customer.recorded", AT, customer_id="cust-1", name="Old Name")
    await daybook.record(
        "customer.recorded", "2025-11-13T10:00:01Z", customer_id="cust-1", name="Ünïcode & Co."
    )
    await daybook.catch_up()

    bill = (await daybook.get("/api/v1/revenue/month-detail"))["payments"][0]
    contract = (await daybook.get("/api/v1/contracts"))["contracts"][0]

    assert bill["customer_name"] == contract["customer_name"] == "Ünïcode & Co."


# Snapshots


@each
async def test_a_document_left_ready_is_the_one_that_would_be_made(
    demo: Path, tmp_path: Path, read: Read
) -> None:
    async with running(Path(shutil.copytree(demo, tmp_path / "data"))) as daybook:
        path = await some_path(daybook, read)
        fresh = (await daybook.ask(path)).content
        await precompute(daybook.state.store, daybook.clock.now.date())
        ready = (await daybook.ask(path)).content
        await daybook.post(
            STANDARD, recorded(RECORDED, subscription("1", 77, next_bill_at="2025-11-20T12:00:00Z"))
        )
        await daybook.catch_up()
        after = (await daybook.ask(path, account="")).content

    assert ready == fresh
    assert after != fresh
