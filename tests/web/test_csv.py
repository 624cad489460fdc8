"""Lists as CSV: the same rows as in JSON, safe to open in a spreadsheet."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from service.reads.catalog import READS
from service.reads.read import Read
from tests.support.posted_books import LISTS, filled, path_of, pays, post_mx_contracts, post_november
from tests.support.running import Daybook, running
from tests.support.senders import subscription
from tests.support.stores import NewDataDir

LISTED = [read for read in READS if read.rows]
each = pytest.mark.parametrize("read", LISTED, ids=lambda read: read.name)
ASKED = {"today": "2025-11-13"}
BILL = (
    "date customer_id customer_name contract_id invoice_id amount_cents cadence mrr_cents status "
    "next_bill_date open_cents declined interval every schedule processor account trust causes "
    "mrr_inferred"
)
CUSTOMER = (
    "customer_id customer_name customer_email total_revenue_cents total_orders avg_order_value_cents "
    "total_refunds_cents total_disputes_cents net_revenue_cents first_purchase_date last_purchase_date "
    "customer_lifespan_days avg_days_between_purchases days_since_last_purchase customer_segment "
    "activity_status lifecycle_stage processor account causes"
)
TALLY = "billed_cents upcoming_cents overdue_cents total_cents customers bills"
HEADERS = {
    "revenue-current-month": "date customers payments total_cents",
    "revenue-month-detail": BILL,
    "revenue-quarterly-forecast": f"quarter from to {TALLY}",
    "revenue-annual-forecast": f"month {TALLY}",
    "revenue-monthly-totals": (
        "month billed_cents collected_cents refunded_cents disputed_cents net_cents open_cents "
        "uncollectible_cents bills customers"
    ),
    "mrr": "interval every schedule contracts mrr_cents",
    "mrr-movements": (
        "period opening_cents new_cents reactivation_cents expansion_cents contraction_cents churn_cents "
        "closing_cents new_customers reactivated_customers expanded_customers contracted_customers "
        "churned_customers"
    ),
    "metrics": (
        "period from to complete opening_cents new_cents reactivation_cents expansion_cents "
        "contraction_cents churn_cents closing_cents opening_customers new_customers reactivated_customers "
        "churned_customers closing_customers arr_cents arpa_cents customer_churn_rate gross_mrr_churn_rate "
        "net_mrr_churn_rate net_revenue_retention quick_ratio ltv_cents payments failed_payments "
        "recovered_payments failed_payment_rate recovery_rate"
    ),
    "upcoming": (
        "next_bill_date customer_id customer_name contract_id amount_cents interval every billing_schedule "
        "days_until_payment declined processor status invoice_id trust causes"
    ),
    "payment-analytics-customers-top": CUSTOMER,
    "payment-analytics-customers-at-risk": f"{CUSTOMER} mrr_cents ends_date churn_risk_score "
    "reason feedback comment reason_causes",
    "payment-analytics-cohorts": "cohort customers orders revenue_cents avg_revenue_cents retention_rates",
    "payment-analytics-distribution": (
        "segment treatment customers revenue_cents customer_share revenue_share "
        "avg_revenue_per_customer_cents percentage_of_total"
    ),
    "payment-analytics-purchase-frequency": (
        "frequency customers revenue_cents customer_share revenue_share avg_customer_value_cents"
    ),
    "payment-analytics-dashboard": "month revenue_cents orders customers new_customers",
    "payment-analytics-customers-{customer_id}-forecast": (
        "month expected_cents low_cents high_cents contract_cents other_cents"
    ),
    "payment-analytics-customers-{customer_id}-opportunities": (
        "rule kind text offer_type discount_percentage message type potential_revenue_cents probability "
        "because causes"
    ),
    "contracts": (
        "contract_id customer_id customer_name status schedule cadence interval every amount_cents currency "
        "mrr_cents next_bill_date ends_date declined unpriced unknown_status tied processor account "
        "trust causes"
    ),
}
ALWAYS = ("months", "quarters", "periods", "cohorts", "segments", "frequencies", "monthly_trend")


def as_text(value: Any) -> str:
    """A JSON value as its cell."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def is_nested(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(part, dict) for part in value)


@pytest.fixture(scope="module")
def shop(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the demo posts, and some orders."""

    async def post_all(daybook: Daybook) -> None:
        await post_november(daybook)
        await post_mx_contracts(daybook)
        for day in ("2025-01-15", "2025-02-15", "2025-09-15", "2025-10-25"):
            await pays(daybook, "cus", day, 150_000)
        await pays(daybook, "quiet", "2025-08-15", 150_000)

    return filled(new_data_dir(tmp_path_factory.mktemp("shop") / "data"), post_all)


@each
@pytest.mark.parametrize("how", ["format", "accept"])
async def test_every_list_reads_back_as_its_json_rows(shop: Path, read: Read, how: str) -> None:
    path = path_of(read, "cus")
    async with running(shop) as daybook:
        rows = (await daybook.get(path, **ASKED))[read.rows]
        query, headers = ({"format": "csv"}, {}) if how == "format" else ({}, {"Accept": "text/csv"})
        answer = await daybook.http.get(path, params=ASKED | query, headers=headers)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert rows
    nested = {name for row in rows for name, value in row.items() if is_nested(value)}
    assert list(csv.DictReader(io.StringIO(answer.text, newline=""))) == [
        {name: as_text(value) for name, value in row.items() if name not in nested} for row in rows
    ]
    assert answer.text.splitlines()[0].split(",") == HEADERS[read.name].split()


@pytest.mark.parametrize("read", [read for read in READS if not read.rows], ids=lambda read: read.name)
async def test_what_is_no_list_is_never_csv(shop: Path, read: Read) -> None:
    path = path_of(read, "cus")
    async with running(shop) as daybook:
        asked = await daybook.ask(path, format="csv")
        accepted = await daybook.http.get(path, headers={"Accept": "text/csv"})

    assert asked.status_code == 400
    assert asked.json()["detail"].startswith("format:")
    assert accepted.headers["content-type"] == "application/json"


@pytest.mark.parametrize("read", [read for read in LISTED if read in LISTS], ids=lambda read: read.name)
async def test_an_empty_list_is_its_header(daybook: Daybook, read: Read) -> None:
    answer = await daybook.ask(read.path, format="csv", account="nobody", **ASKED)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    header, *lines = answer.text.removesuffix("\r\n").split("\r\n")
    assert header.split(",") == HEADERS[read.name].split()
    assert bool(lines) == (read.rows in ALWAYS)  # time goes on without bills, and classes without customers


async def test_what_a_spreadsheet_would_run_gets_a_quote_before_it(daybook: Daybook) -> None:
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", 'a "b", c', "line\nbreak", "plain"]
    at = "2025-11-13T10:00:00Z"
    for number, name in enumerate(names):
        await daybook.record("subscription.recorded", at, **subscription(str(number), 100))
        await daybook.record("customer.recorded", at, customer_id=f"cust-{number}", name=name)
    await daybook.catch_up()

    answer = await daybook.ask("/api/v1/contracts", format="csv")

    cells = [row["customer_name"] for row in csv.DictReader(io.StringIO(answer.text, newline=""))]
    assert cells == [f"'{name}" if name[0] in "=+-@\t\r" else name for name in sorted(names)]


async def test_negative_figures_stay_numbers(daybook: Daybook) -> None:
    for day, status in (("12", "active"), ("13", "unpaid")):
        thing = {**subscription("1", 100), "status": status}
        await daybook.record("subscription.recorded", f"2025-11-{day}T10:00:00Z", **thing)
    await daybook.catch_up()

    answer = await daybook.ask(
        "/api/v1/mrr/movements", format="csv", by="day", from_="2025-11-13", to="2025-11-13"
    )

    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["churn_cents"] == "-100"


async def test_contracts_as_csv_are_all_of_them_unless_a_limit_is_stated(daybook: Daybook) -> None:
    for number in range(120):
        data = subscription(f"{number:03d}", 100)
        await daybook.record("subscription.recorded", "2025-11-13T10:00:00Z", **data)
    await daybook.catch_up()

    whole = await daybook.ask("/api/v1/contracts", format="csv")
    part = await daybook.ask("/api/v1/contracts", format="csv", limit=100)
    rest = await daybook.http.get(part.links["next"]["url"])

    assert [len(answer.text.splitlines()) - 1 for answer in (whole, part, rest)] == [120, 100, 20]
    assert [("link" in answer.headers) for answer in (whole, part, rest)] == [False, True, False]
    assert whole.text.splitlines()[1:] == part.text.splitlines()[1:] + rest.text.splitlines()[1:]


@pytest.mark.parametrize("path", ["/api/v1/contracts", "/api/v1/ledger/events"])
@pytest.mark.parametrize("form", ["json", "csv"])
async def test_the_links_lead_through_every_page(demo: Path, path: str, form: str) -> None:
    async with running(demo) as daybook:
        whole = await daybook.ask(path, format=form, limit=1000, **ASKED)
        answer = await daybook.ask(path, format=form, limit=30, **ASKED)
        pages = [answer]
        while "next" in answer.links:
            answer = await daybook.http.get(answer.links["next"]["url"])
            assert answer.status_code == 200
            pages.append(answer)

    def rows(answer: Any) -> list[Any]:
        if form == "csv":
            return list(csv.DictReader(io.StringIO(answer.text, newline="")))
        listed: list[Any] = answer.json()[path.rpartition("/")[2]]
        return listed

    assert "link" not in whole.headers
    assert len(pages) == 3
    assert [row for page in pages for row in rows(page)] == rows(whole)


async def test_csv_has_an_etag_of_its_own(demo: Path) -> None:
    async with running(demo) as daybook:
        as_json = await daybook.ask("/api/v1/contracts")
        as_csv = await daybook.ask("/api/v1/contracts", format="csv")
        again = await daybook.http.get(
            "/api/v1/contracts", headers={"Accept": "text/csv", "If-None-Match": as_csv.headers["etag"]}
        )

    assert as_csv.headers["etag"] != as_json.headers["etag"]
    assert again.status_code == 304


async def test_json_is_answered_to_who_says_so_whatever_it_accepts(daybook: Daybook) -> None:
    answer = await daybook.http.get("/api/v1/contracts?format=json", headers={"Accept": "text/csv"})

    assert answer.headers["content-type"] == "application/json"


async def test_the_log_reads_back_from_csv(demo: Path) -> None:
    async with running(demo) as daybook:
        events = (await daybook.get("/api/v1/ledger/events", limit=5))["events"]
        answer = await daybook.http.get("/api/v1/ledger/events?limit=5", headers={"Accept": "text/csv"})

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["cause"] for row in rows] == [event["cause"] for event in events]
    assert rows[0]["data"].startswith('{"subscription_id"')
    assert rows[0]["before"] == ""
