"""Look-backs over HTTP: what was known at the month's end, what is known now, and what came between."""

import csv
import io
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from projections import MRR
from service.books.engine import Engine
from service.bootstrap import open_books
from service.reads.catalog import READS
from tests.support.openapi import is_described
from tests.support.posted_books import filled, invoices, pays, refunds
from tests.support.running import Clock, Daybook, running
from tests.support.senders import STANDARD, subscription
from tests.support.stores import NewDataDir

SHAPE = {read.path: read.shape.__name__ for read in READS}
NOW = datetime(2025, 11, 13, 10, 30, tzinfo=UTC)
EXPLAIN = "/api/v1/explain"
MONTH_END = 4  # how many of the events were recorded by then
OCTOBER = {"from_": "2025-10", "to": "2025-10"}
FIVE: list[tuple[str, dict[str, Any]]] = [
    ("/api/v1/mrr", {}),
    ("/api/v1/mrr/movements", {**OCTOBER, "by": "day", "detail": "customers"}),
    ("/api/v1/revenue/month-detail", {"year": 2025, "month": 10}),
    ("/api/v1/revenue/monthly-totals", {**OCTOBER, "detail": "cash"}),
    ("/api/v1/upcoming", {"from_": "2025-10-01", "to": "2025-12-31"}),
]


LATER = {
    "type": "unused",
    "occurred_at": "2025-11-12T10:00:00Z",
    "data": {"original_type": "x"},
}
CONTRACT = subscription("1", 500, next_bill_at="2025-11-01T10:00:00Z")
ENDED = {"status": "canceled", "ended_at": "2025-10-25T10:00:00Z"}
PAYMENT = "pay-cust-9-2025-10-20"
# An October, and what was told of it in November: when it was recorded, and what.
STORY: tuple[tuple[str, Callable[[Daybook], Awaitable[str]]], ...] = (
    (
        "2025-10-01T10:05",
        lambda to: to.record("subscription.recorded", "2025-10-01T10:00:00Z", **CONTRACT),
    ),
    (
        "2025-10-01T10:05",
        lambda to: to.record(
            "customer.recorded", "2025-10-01T10:00:00Z", customer_id="cust-1", name="Ada Example"
        ),
    ),
    ("2025-10-20T12:01", lambda to: pays(to, "cust-9", "2025-10-20", 700)),
    ("2025-10-31T20:00", lambda to: invoices(to, "cust-1", "2025-10-31", 1000)),
    ("2025-11-03T09:00", lambda to: invoices(to, "cust-2", "2025-10-30", 300, account="acct_b")),
    ("2025-11-04T09:00", lambda to: refunds(to, "2025-10-31", 200, payment_id=PAYMENT)),
    (
        "2025-11-10T09:00",
        lambda to: to.record("subscription.recorded", "2025-10-25T10:00:00Z", **(CONTRACT | ENDED)),
    ),
    ("2025-11-13T10:00", lambda to: pays(to, "cust-9", "2025-11-13", 50)),
)
HEAD = len(STORY)


async def tell(daybook: Daybook, events: int = HEAD) -> None:
    """The first events of the story."""
    for moment, say in STORY[:events]:
        daybook.clock.now = datetime.fromisoformat(f"{moment}:00Z")
        await say(daybook)
    await daybook.catch_up()


@pytest.fixture(scope="module")
def october(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Daybook that was told of October; it keeps what it has been asked for from test to test."""
    return filled(new_data_dir(tmp_path_factory.mktemp("october") / "data"), tell, NOW)


@pytest.fixture
async def october_daybook(october: Path) -> AsyncIterator[Daybook]:
    async with running(october, Clock(NOW)) as daybook:
        yield daybook


def without_meta(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "meta"}


def files_in(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "lookback").glob("*") if path.name != "lock")


async def test_a_month_as_it_was_known_at_its_end_and_as_it_is_known_now(october_daybook: Daybook) -> None:
    async def october(**known: str) -> list[int]:
        totals = await october_daybook.get("/api/v1/revenue/monthly-totals", **OCTOBER, **known)
        mrr = await october_daybook.get("/api/v1/mrr", **({"today": "2025-10-31"} | known))
        month = totals["months"][0]
        names = ("billed_cents", "collected_cents", "refunded_cents", "net_cents")
        return [*(month[name] for name in names), mrr["mrr_cents"]]

    assert await october(known_at="2025-10-31") == [1000, 1700, 0, 1700, 500]
    assert await october() == [1300, 2000, 200, 1800, 0]


@pytest.mark.parametrize(("path", "query"), FIVE, ids=[path.rpartition("/")[2] for path, _ in FIVE])
async def test_a_read_answers_as_it_did_then(
    october_daybook: Daybook, tmp_path: Path, new_data_dir: NewDataDir, path: str, query: dict[str, Any]
) -> None:
    async with running(new_data_dir(tmp_path / "then")) as then:
        await tell(then, MONTH_END)
        answered = await then.get(path, today="2025-10-31", **query)

    by_time = await october_daybook.get(path, known_at="2025-10-31T23:59:59Z", **query)
    by_position = await october_daybook.get(path, position=MONTH_END, today="2025-10-31", **query)

    assert by_time == by_position
    assert is_described(by_time, SHAPE[path])
    assert without_meta(by_time) == without_meta(answered)
    assert by_time["meta"] == {
        "position": MONTH_END,
        "recorded_at": "2025-10-31T20:00:00Z",
        "lag_events": HEAD - MONTH_END,
        "calculation_date": "2025-10-31",
        "data_freshness": "as_known",
        "weeks_per_month": "4.33",
        "unpriced_contracts": 0,
        "overdue_contracts": 0,
        "unlinked_payments": 0,
        "ignored_events": 0,
        "set_aside": 0,
        "inferred_share": 0.0,
        "unknown_statuses": 0,
    }
    assert without_meta(by_time) != without_meta(await october_daybook.get(path, today="2025-10-31", **query))


async def test_a_time_moves_today_and_a_position_does_not(october_daybook: Daybook) -> None:
    async def day(**query: Any) -> str:
        return (await october_daybook.get("/api/v1/mrr", **query))["date"]

    assert await day(known_at="2025-10-31") == "2025-10-31"
    assert await day(known_at="2025-10-31T23:30:00Z") == "2025-10-31"
    assert await day(known_at="2025-10-31", today="2025-11-30") == "2025-11-30"
    assert await day(known_at="2030-01-01") == "2025-11-13"
    assert await day(position=MONTH_END) == "2025-11-13"


async def test_a_day_ends_in_the_reporting_zone(october: Path, tmp_path: Path) -> None:
    data_dir = Path(shutil.copytree(october, tmp_path / "data", ignore=shutil.ignore_patterns("lookback")))
    async with running(data_dir, Clock(NOW), reporting_tz="Asia/Tokyo") as daybook:
        # In Tokyo, 20:00 UTC on the 31st is November.
        assert (await daybook.get("/api/v1/mrr", known_at="2025-10-31"))["meta"]["position"] == MONTH_END - 1


async def test_before_the_first_event_the_books_are_empty(october_daybook: Daybook) -> None:
    for known in ({"position": 0, "today": "2025-09-30"}, {"known_at": "2025-09-30"}):
        answer = await october_daybook.get("/api/v1/mrr", **known)

        assert (answer["mrr_cents"], answer["active_contracts"], answer["customers"]) == (0, 0, 0)
        assert (answer["meta"]["position"], answer["meta"]["recorded_at"]) == (0, None)


async def test_what_the_books_hold_now_is_answered_from_them(daybook: Daybook) -> None:
    await tell(daybook, 4)
    daybook.clock.now = NOW

    at_head = await daybook.get("/api/v1/mrr", position=4)
    by_now = await daybook.get("/api/v1/mrr", known_at="2025-11-13")
    now = await daybook.get("/api/v1/mrr")

    assert without_meta(at_head) == without_meta(now)
    assert by_now == now
    assert at_head["meta"] == now["meta"] | {"data_freshness": "as_known"}
    assert files_in(daybook.state.settings.data_dir) == []


async def test_books_that_are_behind_are_not_taken_for_those_at_the_head(daybook: Daybook) -> None:
    await tell(daybook, 3)
    await daybook.record("subscription.recorded", "2025-10-02T10:00:00Z", **subscription("2", 900))

    answer = await daybook.get("/api/v1/mrr", position=4)

    assert (answer["mrr_cents"], answer["meta"]["position"], answer["meta"]["lag_events"]) == (1400, 4, 0)
    assert (await daybook.get("/api/v1/mrr"))["mrr_cents"] == 500


async def test_books_of_which_some_are_ahead_are_not_taken_for_those_at_a_position(daybook: Daybook) -> None:
    await tell(daybook, 3)
    await daybook.record("subscription.recorded", "2025-10-02T10:00:00Z", **subscription("2", 900))
    ahead = open_books(daybook.state.settings, [MRR])
    await Engine(daybook.state.ledger, ahead, daybook.clock).catch_up()
    await ahead.close()

    assert (await daybook.get("/api/v1/mrr"))["mrr_cents"] == 1400
    assert (await daybook.get("/api/v1/mrr", position=3))["mrr_cents"] == 500


async def test_the_etag_of_a_look_back_holds_though_the_ledger_grows(
    october_daybook: Daybook, tmp_path: Path, october: Path
) -> None:
    first = await october_daybook.ask("/api/v1/mrr", known_at="2025-10-31")
    data_dir = Path(shutil.copytree(october, tmp_path / "data"))
    async with running(data_dir, Clock(NOW)) as later:
        await later.post(STANDARD, LATER, message_id="later")
        await later.catch_up()

        again = await later.http.get(
            "/api/v1/mrr",
            params={"known_at": "2025-10-31"},
            headers={"If-None-Match": first.headers["etag"]},
        )
        changed = await later.ask("/api/v1/mrr", known_at="2025-10-31")

    assert again.status_code == 304
    assert changed.json()["meta"]["lag_events"] == first.json()["meta"]["lag_events"] + 1


async def test_a_list_of_a_look_back_comes_as_csv(october_daybook: Daybook) -> None:
    answer = await october_daybook.ask(
        "/api/v1/revenue/monthly-totals", known_at="2025-10-31", **OCTOBER, format="csv"
    )

    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["month"], row["billed_cents"], row["refunded_cents"]) == ("2025-10", "1000", "0")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"position": HEAD + 1}, "position"),
        ({"position": -1}, "position"),
        ({"position": 3, "known_at": "2025-10-31"}, "known_at"),
        ({"known_at": "2025-10-32"}, "known_at"),
        ({"known_at": "2025-10-31T10:00:00"}, "known_at"),  # in no zone
        ({"known_at": "20251031T100000Z"}, "known_at"),
        ({"known_at": "0001-01-01T00:00:00Z"}, "known_at"),
        ({"known_at": ""}, "known_at"),
    ],
)
async def test_an_invalid_look_back_is_refused(
    october_daybook: Daybook, query: dict[str, Any], named: str
) -> None:
    answer = await october_daybook.ask("/api/v1/mrr", **query)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{named}: ")


async def test_other_reads_can_not_look_back(october_daybook: Daybook) -> None:
    answer = await october_daybook.ask("/api/v1/contracts", position=1)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("position: no such parameter here")


# Restatements

FROM_NOVEMBER = {"from_": "2025-11-01", "to": "2025-11-30"}


def told_as(rows: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in rows]


async def test_restatements_say_what_late_events_changed_and_by_how_much(october_daybook: Daybook) -> None:
    answer = await october_daybook.get("/api/v1/restatements", **FROM_NOVEMBER)

    names = "position figure date until change_cents before_cents after_cents account customer_id".split()
    assert told_as(answer["restatements"], *names) == [
        (5, "billed_cents", "2025-10-30", "2025-10-30", 300, 1000, 1300, "acct_b", "cust-2"),
        (5, "collected_cents", "2025-10-30", "2025-10-30", 300, 1700, 2000, "acct_b", "cust-2"),
        (6, "refunded_cents", "2025-10-31", "2025-10-31", 200, 0, 200, "", "cust-9"),
        (7, "mrr", "2025-10-25", "2025-11-09", -500, 500, 0, "", "cust-1"),
    ]
    assert answer["restatements"][2] == {
        "recorded_at": "2025-11-04T09:00:00Z",
        "position": 6,
        "cause": "standard.acme:msg_11",
        "type": "refund.recorded",
        "figure": "refunded_cents",
        "date": "2025-10-31",
        "until": "2025-10-31",
        "month": "2025-10",
        "currency": "usd",
        "account": "",
        "customer_id": "cust-9",
        "change_cents": 200,
        "before_cents": 0,
        "after_cents": 200,
    }
    assert (answer["meta"]["position"], answer["meta"]["data_freshness"]) == (HEAD, "real_time")
    assert is_described(answer, "Restatements")
    cause = await october_daybook.get(f"/api/v1/ledger/causes/{answer['restatements'][2]['cause']}")
    assert cause["position"] == 6


async def test_restatements_add_up_to_what_the_month_became(october_daybook: Daybook) -> None:
    then = await october_daybook.get("/api/v1/revenue/monthly-totals", known_at="2025-10-31", **OCTOBER)
    now = await october_daybook.get("/api/v1/revenue/monthly-totals", **OCTOBER)
    rows = (await october_daybook.get("/api/v1/restatements", **FROM_NOVEMBER))["restatements"]

    for figure in ("billed_cents", "collected_cents", "refunded_cents", "disputed_cents"):
        changed = sum(
            row["change_cents"] for row in rows if (row["figure"], row["month"]) == (figure, "2025-10")
        )
        assert changed == now["months"][0][figure] - then["months"][0][figure]


async def test_restatements_of_one_account_are_about_its_own_figures(october_daybook: Daybook) -> None:
    answer = await october_daybook.get("/api/v1/restatements", account="acct_b", **FROM_NOVEMBER)

    assert told_as(answer["restatements"], "figure", "before_cents", "after_cents") == [
        ("billed_cents", 0, 300),
        ("collected_cents", 0, 300),
    ]
    assert (await october_daybook.get("/api/v1/restatements", currency="eur", **FROM_NOVEMBER))[
        "restatements"
    ] == []


async def test_the_range_of_restatements_is_of_the_days_on_which_events_were_recorded(
    october_daybook: Daybook,
) -> None:
    one_day = await october_daybook.get("/api/v1/restatements", from_="2025-11-04", to="2025-11-04")
    by_default = await october_daybook.get("/api/v1/restatements")

    assert told_as(one_day["restatements"], "position") == [(6,)]
    meta = one_day["meta"]
    assert (meta["position"], meta["lag_events"], meta["data_freshness"]) == (6, HEAD - 6, "as_known")
    assert (by_default["from"], by_default["to"]) == ("2025-10-14", "2025-11-13")
    assert told_as(by_default["restatements"], "position") == [(5,), (5,), (6,), (7,)]


async def test_restatements_come_in_pages_and_whole_as_csv(october_daybook: Daybook) -> None:
    whole = (await october_daybook.get("/api/v1/restatements", **FROM_NOVEMBER))["restatements"]

    pages, query = [], {**FROM_NOVEMBER, "limit": 3}
    answer = await october_daybook.ask("/api/v1/restatements", **query)
    pages += answer.json()["restatements"]
    assert 'rel="next"' in answer.headers["link"]
    last = await october_daybook.ask("/api/v1/restatements", **query, cursor=answer.json()["next_cursor"])
    pages += last.json()["restatements"]

    assert pages == whole
    assert last.json()["next_cursor"] is None
    text = (await october_daybook.ask("/api/v1/restatements", **FROM_NOVEMBER, format="csv")).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["cause"] for row in rows] == [row["cause"] for row in whole]
    assert list(rows[0]) == list(whole[0])


async def test_new_restatements_are_added_to_those_that_are_known(daybook: Daybook) -> None:
    await tell(daybook, 6)
    daybook.clock.now = NOW
    before = (await daybook.get("/api/v1/restatements"))["restatements"]
    await invoices(daybook, "cust-3", "2025-10-31", 70)

    # The books have not taken it in: the ledger alone says what it restates.
    after = (await daybook.get("/api/v1/restatements"))["restatements"]

    assert told_as(before, "position", "before_cents", "after_cents") == [
        (5, 1000, 1300),
        (5, 1700, 2000),
        (6, 0, 200),  # the last that the books have taken in
    ]
    assert after[:3] == before
    assert told_as(after[3:], "position", "figure", "before_cents", "after_cents") == [
        (7, "billed_cents", 1300, 1370),
        (7, "collected_cents", 2000, 2070),
    ]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ({"from_": "2025-11-02", "to": "2025-11-01"}, "from"),
        ({"from_": "1990-01-01"}, "to"),
        ({"cursor": "bm90IGEgcGxhY2U="}, "cursor"),
        ({"position": 1}, "position"),
    ],
)
async def test_an_invalid_range_is_refused(
    october_daybook: Daybook, query: dict[str, Any], named: str
) -> None:
    answer = await october_daybook.ask("/api/v1/restatements", **query)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(f"{named}: ")


async def test_a_look_back_needs_a_key(october: Path) -> None:
    async with running(october, Clock(NOW), api_keys="a-key-of-this-test") as daybook:
        for path, query in (("/api/v1/restatements", {}), ("/api/v1/mrr", {"position": 1})):
            assert (await daybook.ask(path, **query)).status_code == 401


FIGURES_OF_OCTOBER = {  # where each kind of restated figure is shown
    "mrr": ("mrr/mrr_cents", {}),
    "billed_cents": ("monthly-totals/months/0/billed_cents", OCTOBER),
    "collected_cents": ("monthly-totals/months/0/collected_cents", OCTOBER),
    "refunded_cents": ("monthly-totals/months/0/refunded_cents", OCTOBER),
}


async def test_a_restated_figure_is_explained_as_it_was_before_its_event_and_after(
    october_daybook: Daybook,
) -> None:
    answer = await october_daybook.get("/api/v1/restatements", from_="2025-11-01")
    assert {row["figure"] for row in answer["restatements"]} == set(FIGURES_OF_OCTOBER)
    for row in answer["restatements"]:
        figure, query = FIGURES_OF_OCTOBER[row["figure"]]
        query = query | {"figure": figure, "today": row["date"]}
        before = await october_daybook.get(EXPLAIN, position=row["position"] - 1, **query)
        after = await october_daybook.get(EXPLAIN, position=row["position"], **query)

        assert (before["value"], after["value"]) == (row["before_cents"], row["after_cents"])
        assert before["adds_up"] is after["adds_up"] is True
        assert row["cause"] in {event["cause"] for event in after["events"]}
        assert row["cause"] not in {event["cause"] for event in before["events"]}
        assert after["meta"]["data_freshness"] == "as_known"
        assert is_described(after, "ExplainedFigure")


async def test_a_figure_is_explained_by_what_was_known_at_a_moment(october_daybook: Daybook) -> None:
    query = {"figure": "monthly-totals/months/0/net_cents", **OCTOBER}
    then = await october_daybook.get(EXPLAIN, known_at="2025-10-31", **query)
    now = await october_daybook.get(EXPLAIN, **query)

    assert (then["value"], then["sum"], then["meta"]["position"]) == (1700, 1700, MONTH_END)
    assert (now["value"], now["sum"], now["meta"]["position"]) == (1800, 1800, HEAD)
    assert all(event["position"] <= MONTH_END for event in then["events"])
    assert all(event["delivery"]["verified"] for event in (*then["events"], *now["events"]))
