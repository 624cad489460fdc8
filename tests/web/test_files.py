"""Lists as files: their names, amounts as decimals, the rows of a detail, and workbooks of Excel."""

import csv
import io
import sys
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Struct, json
from openpyxl import load_workbook

from service.reads.answers import Day, about, cents, or_null
from service.reads.catalog import READS
from service.reads.files import columns, to_file
from service.reads.read import Read
from tests.support.posted_books import filled, path_of, pays, post_mx_contracts, post_november
from tests.support.running import Daybook, running
from tests.support.senders import subscription
from tests.support.stores import NewDataDir

ASKED = {"today": "2025-11-13"}
RANGE = {"from": "2025-11", "to": "2025-11"}
ANALYTICS = "/api/payment/analytics"
LISTED = [read for read in READS if read.rows]
each = pytest.mark.parametrize("read", LISTED, ids=lambda read: read.name)


@pytest.fixture(scope="module")
def shop(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo posts, and some orders, one of them of a customer whose name looks like a formula."""

    async def post_all(daybook: Daybook) -> None:
        await post_november(daybook)
        await post_mx_contracts(daybook)
        for day in ("2025-01-15", "2025-02-15", "2025-09-15", "2025-11-05"):
            await pays(daybook, "cus/1", day, 150_000)
        for number, day in enumerate(("2025-08-15", "2025-08-16")):
            await pays(daybook, "quiet", day, 150_000 + number)
        name = {"customer_id": "quiet", "name": "=1+1", "email": "@example.com"}
        await daybook.record("customer.recorded", "2025-08-15T00:00:00Z", **name)

    return filled(new_data_dir(tmp_path_factory.mktemp("shop") / "data"), post_all)


async def file(daybook: Daybook, path: str, **query: Any) -> Any:
    answer = await daybook.http.get(path, params={**ASKED, "format": "csv", **query})
    assert answer.status_code == 200, answer.text
    return answer


def csv_rows(answer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def sheet(body: bytes) -> Any:
    """The one sheet of a workbook, read by another library than the one that wrote it."""
    book = load_workbook(io.BytesIO(body))
    (found,) = book.worksheets
    return found


# Names


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        (
            "/api/v1/revenue/month-detail",
            {"year": 2025, "month": 11},
            "november_collections_2025",
        ),
        ("/api/v1/revenue/month-detail", {"year": 2026, "month": 2}, "february_collections_2026"),
        ("/api/v1/revenue/current-month", {}, "revenue_current_month_2025-11-13"),
        ("/api/v1/revenue/annual-forecast", {"year": 2026}, "revenue_annual_forecast_2026"),
        ("/api/v1/revenue/quarterly-forecast", {}, "revenue_quarterly_forecast_2025-11-13"),
        ("/api/v1/revenue/monthly-totals", RANGE, "revenue_monthly_totals_2025-11-01_to_2025-11-30"),
        (
            "/api/v1/revenue/monthly-totals",
            RANGE | {"detail": "cash"},
            "revenue_monthly_totals_cash_2025-11-01_to_2025-11-30",
        ),
        (
            "/api/v1/mrr/movements",
            RANGE | {"detail": "customers"},
            "mrr_movements_customers_2025-11-01_to_2025-11-30",
        ),
        ("/api/v1/contracts", {}, "contracts_2025-11-13"),
        ("/api/v1/ledger/events", {}, "ledger_events_2025-11-13"),
        (f"{ANALYTICS}/customers/top", {}, "customers_top_2025-11-13"),
        (
            f"{ANALYTICS}/customers/cus%2F1/revenue",
            {"detail": "orders"},
            "customers_cus_1_revenue_orders_2025-11-13",
        ),
    ],
)
async def test_a_file_is_named_after_what_it_holds(
    shop: Path, path: str, query: dict[str, Any], name: str
) -> None:
    async with running(shop) as daybook:
        for ending in ("csv", "xlsx"):
            answer = await file(daybook, path, format=ending, **query)
            assert answer.headers["content-disposition"] == f'attachment; filename="{name}.{ending}"'
        as_json = await daybook.http.get(path, params={**ASKED, **query})

    assert "content-disposition" not in as_json.headers


# Details


@pytest.mark.parametrize(
    ("path", "detail", "rows"),
    [
        ("/api/v1/revenue/monthly-totals", "cash", "cash"),
        ("/api/v1/mrr/movements", "customers", "movements"),
        (f"{ANALYTICS}/customers/cus%2F1/revenue", "orders", "orders"),
    ],
)
async def test_with_a_detail_a_file_holds_its_rows(shop: Path, path: str, detail: str, rows: str) -> None:
    async with running(shop) as daybook:
        listed = (await daybook.get(path, detail=detail, **ASKED))[rows]
        found = csv_rows(await file(daybook, path, detail=detail))

    assert len(listed) == len(found) >= 4
    assert [row["causes"] for row in found] == [" ".join(row["causes"]) for row in listed]
    assert [row["amount_cents"] for row in found] == [str(row["amount_cents"]) for row in listed]


async def test_without_its_detail_a_customers_revenue_is_no_list(shop: Path) -> None:
    path = f"{ANALYTICS}/customers/quiet/revenue"
    async with running(shop) as daybook:
        refused = await daybook.ask(path, format="xlsx")
        as_json = await daybook.http.get(path, headers={"Accept": "text/csv"})
        as_csv = await daybook.http.get(f"{path}?detail=orders", headers={"Accept": "text/csv"})

    assert refused.status_code == 400
    assert refused.json()["detail"] == "format: only with detail=orders; else there is no list"
    assert as_json.headers["content-type"] == "application/json"
    assert len(csv_rows(as_csv)) == 2


# Decimals


@each
async def test_decimals_stand_beside_their_amounts_and_say_the_same(shop: Path, read: Read) -> None:
    async with running(shop) as daybook:
        plain = csv_rows(await file(daybook, path_of(read, "cus/1")))
        decimals = csv_rows(await file(daybook, path_of(read, "cus/1"), amounts="decimal"))

    names = columns(read.shape, read.rows)
    added = {name.removesuffix("_cents") for name in names if name.endswith("_cents")}
    assert not added & set(names)
    wanted = [
        part
        for name in names
        for part in ([name, name.removesuffix("_cents")] if "_cents" in name else [name])
    ]
    assert plain
    for before, after in zip(plain, decimals, strict=True):
        assert list(after) == list(dict.fromkeys(part for part in wanted if part in after))
        assert {name: after[name] for name in before} == before
        for name in added:
            minor = before[f"{name}_cents"]
            assert after[name] == (f"{Decimal(minor) / 100:.2f}" if minor else "")


@pytest.mark.parametrize(
    ("currency", "cents_", "text"),
    [("usd", 5, "0.05"), ("usd", 10**15, "10000000000000.00"), ("jpy", 1234, "1234"), ("kwd", 1234, "1.234")],
)
async def test_a_decimal_has_the_digits_of_its_currency(
    daybook: Daybook, currency: str, cents_: int, text: str
) -> None:
    await pays(daybook, "cus", "2025-11-01", cents_, currency=currency)
    await daybook.record(
        "subscription.recorded",
        "2025-11-01T00:00:00Z",
        **subscription("1", cents_, currency=currency, customer_id="cus"),
    )
    await daybook.catch_up()

    asked = {"currency": currency, "amounts": "decimal"}
    (customer,) = csv_rows(await file(daybook, f"{ANALYTICS}/customers/top", **asked))
    (contract,) = csv_rows(await file(daybook, "/api/v1/contracts", **asked))
    workbook = sheet((await file(daybook, "/api/v1/contracts", format="xlsx", currency=currency)).content)

    assert (customer["total_revenue"], contract["amount"]) == (text, text)
    names = [cell.value for cell in workbook[1]]
    cell = workbook.cell(2, names.index("amount") + 1)
    digits = len(text.partition(".")[2])
    zeros = f".{'0' * digits}" if digits else ""
    assert cell.number_format == f'#,##0{zeros} "{currency.upper()}"'
    assert Decimal(str(cell.value)) == Decimal(text)


async def test_what_went_out_is_a_negative_decimal(daybook: Daybook) -> None:
    for day, status in (("12", "active"), ("13", "unpaid")):
        data = {**subscription("1", 105), "status": status}
        await daybook.record("subscription.recorded", f"2025-11-{day}T10:00:00Z", **data)
    await daybook.catch_up()

    (row,) = csv_rows(
        await file(
            daybook,
            "/api/v1/mrr/movements",
            amounts="decimal",
            by="day",
            **{"from": "2025-11-13", "to": "2025-11-13"},
        )
    )
    assert (row["churn_cents"], row["churn"]) == ("-105", "-1.05")


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ({"amounts": "decimal"}, "amounts: only of a file, with format=csv or format=xlsx"),
        ({"amounts": "decimal", "format": "json"}, "amounts: only of a file"),
        ({"amounts": "float", "format": "csv"}, "amounts: in a file"),
        ({"format": "ods"}, "format: csv for the list"),
    ],
)
async def test_what_no_file_can_be_is_400(daybook: Daybook, query: dict[str, str], detail: str) -> None:
    answer = await daybook.ask("/api/v1/contracts", **query)

    assert answer.status_code == 400
    assert answer.json()["detail"].startswith(detail)


# Whole lists


async def test_the_log_as_a_file_is_whole_or_refused(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, head = "/api/v1/ledger/events", 101
    for number in range(head):
        await pays(daybook, f"cus-{number}", "2025-11-01", 100)

    whole = await file(daybook, path)
    monkeypatch.setattr("service.web.ledger._FILE_EVENTS", head - 1)
    refused = await daybook.ask(path, format="csv")
    page = await file(daybook, path, limit=100)

    assert [row["position"] for row in csv_rows(whole)] == [str(n) for n in range(1, head + 1)]
    assert "link" not in whole.headers
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith(f"limit: the log is over {head - 1} events or ")
    assert len(csv_rows(page)) == 100
    assert "next" in page.links


# Workbooks


def as_csv_text(cell: Any) -> str:
    """A cell of a workbook as CSV has it."""
    if isinstance(cell.value, datetime):
        return cell.value.date().isoformat()
    if isinstance(cell.value, bool):
        return str(cell.value).lower()
    return "" if cell.value is None else str(cell.value)


@each
async def test_a_workbook_holds_the_rows_of_the_csv(shop: Path, read: Read) -> None:
    async with running(shop) as daybook:
        rows = csv_rows(await file(daybook, path_of(read, "cus/1"), amounts="decimal"))
        answer = await file(daybook, path_of(read, "cus/1"), format="xlsx")

    assert answer.headers["content-type"].endswith("spreadsheetml.sheet")
    header, *lines = sheet(answer.content).iter_rows()
    assert [cell.value for cell in header] == list(rows[0])
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        for cell, (name, text) in zip(line, row.items(), strict=True):
            if name + "_cents" in row and text:
                assert (cell.data_type, Decimal(str(cell.value))) == ("n", Decimal(text))
                assert cell.number_format == '#,##0.00 "USD"'
            elif name.endswith("_cents") and text:
                assert (cell.data_type, cell.value) == ("n", int(text))
            elif name.endswith("_date") and text:
                assert (cell.data_type, cell.number_format) == ("d", "yyyy-mm-dd")
                assert as_csv_text(cell) == text
            else:
                assert as_csv_text(cell) in (text, text.removeprefix("'"), text.removesuffix(".0"))


async def test_names_that_look_like_formulas_stay_names(shop: Path) -> None:
    async with running(shop) as daybook:
        found = sheet((await file(daybook, f"{ANALYTICS}/customers/top", format="xlsx")).content)

    header, *lines = found.iter_rows()
    names = [cell.value for cell in header]
    cells = {line[0].value: line for line in lines}
    name, email = (cells["quiet"][names.index(f"customer_{word}")] for word in ("name", "email"))
    assert (name.value, name.data_type) == ("=1+1", "s")
    assert (email.value, email.data_type, email.hyperlink) == ("@example.com", "s", None)


async def test_the_same_rows_are_the_same_workbook(shop: Path) -> None:
    async with running(shop) as daybook:
        one, two = [await file(daybook, "/api/v1/contracts", format="xlsx") for _ in range(2)]
        known = {"If-None-Match": one.headers["etag"]}
        again = await daybook.http.get("/api/v1/contracts", params={**ASKED, "format": "xlsx"}, headers=known)

    assert one.content == two.content
    assert again.status_code == 304


async def test_without_its_package_a_workbook_names_the_extra(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xlsxwriter", None)
    answer = await daybook.ask("/api/v1/contracts", format="xlsx")
    as_csv = await daybook.ask("/api/v1/contracts", format="csv")

    assert answer.status_code == 400
    assert answer.json()["detail"] == (
        'format: xlsx needs a package on the server: pip install "daybook[excel]"'
    )
    assert as_csv.status_code == 200


class Line(Struct):
    """A row with what a cell may be."""

    name: Annotated[str, about("a text")]
    paid_cents: Annotated[int | None, or_null(cents("paid"), "at times")]
    day: Annotated[Day | None, about("a day")]
    rate: float
    known: bool


class Lines(Struct):
    lines: list[Line]


def workbook(*lines: Line) -> Any:
    return sheet(to_file("xlsx", Lines, "lines", json.encode(Lines(list(lines))), "usd", decimals=False))


def test_what_excel_cannot_hold_exactly_is_text() -> None:
    exact, large = 999_999_999_999_999, 1_234_567_890_123_456
    found = workbook(*(Line("x", value, None, 0.5, True) for value in (exact, large, -large, None)))
    cells = [[cell.value for cell in row[1:3]] for row in found.iter_rows(min_row=2)]
    assert cells == [
        [exact, 9_999_999_999_999.99],
        [str(large), "12345678901234.56"],
        [str(-large), "-12345678901234.56"],
        [None, None],
    ]


def test_a_text_that_is_too_long_for_a_cell_is_seen_to_be_cut() -> None:
    whole, cut = (workbook(Line("x" * length, 1, None, 0.5, True))["A2"].value for length in (32_767, 32_768))
    assert whole == "x" * 32_767
    assert cut == "x" * 32_766 + "…"


def test_cells_have_the_types_of_their_fields() -> None:
    found = workbook(Line("2025-11-13", 105, "2025-11-13", 0.25, False))
    assert [cell.value for cell in found[1]] == ["name", "paid_cents", "paid", "day", "rate", "known"]
    assert [cell.value for cell in found[2]] == [
        *("2025-11-13", 105, 1.05, datetime(2025, 11, 13), 0.25, False)  # noqa: DTZ001 - as the library gives it
    ]


def test_more_rows_than_a_sheet_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.reads.files._MOST_ROWS", 1)
    line = Line("x", 1, None, 0.5, True)
    assert workbook(line).max_row == 2
    with pytest.raises(Exception, match="format: a sheet takes 1 rows, and there are more; csv takes all"):
        workbook(line, line)
