"""Contracts from files: they say how things stand, so that the same is said once, whatever the file."""

import os
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import json

from tests.transfer.installation import Installation, posted

OCTOBER, NOVEMBER = (int(datetime(2025, month, 5, tzinfo=UTC).timestamp()) for month in (10, 11))
HEADER = "customer_id,next_bill_date,amount_cents,interval,every"


def contract(key: int, amount: str = "249", **more: Any) -> dict[str, Any]:
    return {
        "id": key,
        "merchantId": 1000000001,
        "customerName": "Ada Example",
        "interval": "Weekly",
        "every": "4 Weeks",
        "amount": amount,
        "status": "Active",
        "startDate": "2025-09-01T00:00:00Z",
        "nextBillDate": "2025-11-20T00:00:00Z",
        "grandTotalAmount": "1.00",
        **more,
    }


def payment(key: str, **more: Any) -> dict[str, Any]:
    payload = {"eventType": "PaymentSuccess", "merchantId": "1000000001", "id": key, "totalAmount": "11.11"}
    return {**payload, "transactionDate": "Nov 3 2025 6:21PM", "customer": "Ada Example", **more}


class Files:
    """Files of a test, each written at a moment of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def __call__(self, content: Any, at: int = NOVEMBER) -> Path:
        self._count += 1
        path = self._directory / f"file-{self._count}"
        path.write_bytes(content.encode() if isinstance(content, str) else json.encode(content))
        os.utime(path, (at, at))
        return path


@pytest.fixture
def file(tmp_path: Path) -> Files:
    return Files(tmp_path)


def counts(taken: dict[str, Any]) -> tuple[int, int]:
    return taken["recorded"], taken["duplicates"]


# MX Merchant


def test_contracts_stand_as_they_did_when_the_file_was_written(daybook: Installation, file: Files) -> None:
    daybook.import_("mxmerchant", file({"records": [contract(1), contract(2)]}))

    observed = {row["occurred_at_us"] // 1_000_000 for row in daybook.rows()}
    assert observed == {NOVEMBER}
    assert {row["trust"] for row in daybook.rows()} == {"unsigned"}


@pytest.mark.parametrize("at", [OCTOBER, NOVEMBER, NOVEMBER + 86_400])
def test_a_copy_of_a_file_changes_nothing_whenever_it_was_made(
    daybook: Installation, file: Files, at: int
) -> None:
    records = [contract(1), contract(2), payment("7")]
    daybook.import_("mxmerchant", file(records))
    before = daybook.contents()

    taken = daybook.import_("mxmerchant", file({"records": records}, at))

    assert (counts(taken), taken["notes"]) == ((0, 3), [])
    assert daybook.contents() == before


def test_only_what_changed_is_recorded(daybook: Installation, file: Files) -> None:
    daybook.import_("mxmerchant", file([contract(1), contract(2)], OCTOBER))

    taken = daybook.import_("mxmerchant", file([contract(1, grandTotalAmount="2.00"), contract(2, "300")]))

    assert counts(taken) == (1, 1)


def test_an_old_file_does_not_bring_back_what_was_before(daybook: Installation, file: Files) -> None:
    """Neither as it was, nor as a copy that looks newer; and that is said."""
    daybook.import_("mxmerchant", old := file([contract(1)], OCTOBER))
    daybook.import_("mxmerchant", file([contract(1, "300")], OCTOBER + 1))
    before = daybook.contents()

    assert daybook.import_("mxmerchant", old)["notes"] == []
    taken = daybook.import_("mxmerchant", file([contract(1)], NOVEMBER))

    assert counts(taken) == (0, 1)
    assert "--observed-at" in taken["notes"][0]["detail"]
    assert daybook.contents() == before


def test_an_earlier_state_that_is_observed_again_is_recorded_once(daybook: Installation, file: Files) -> None:
    daybook.import_("mxmerchant", old := file([contract(1)], OCTOBER))
    daybook.import_("mxmerchant", file([contract(1, "300")], OCTOBER + 1))

    stated = ("--observed-at", "2025-11-06T12:00:00Z")
    assert counts(daybook.import_("mxmerchant", old, *stated)) == (1, 0)
    before = daybook.contents()
    assert counts(daybook.import_("mxmerchant", old, *stated)) == (0, 1)
    assert daybook.contents() == before


def test_what_a_relay_told_before_is_a_duplicate(daybook: Installation, file: Files) -> None:
    payload = {"records": [contract(1)]}
    at = datetime.fromtimestamp(OCTOBER, UTC)
    daybook.append(
        posted("mxmerchant", payload, method="standard-webhooks", signed_at=at, message_id="msg_1")
    )

    assert counts(daybook.import_("mxmerchant", file(payload))) == (0, 1)


def test_notifications_are_told_once(daybook: Installation, file: Files) -> None:
    """Two kinds of one payment are two, and one that has no effect may have no id."""
    payload = [payment("1"), payment("1", eventType="PaymentFail"), {"eventType": "BatchClosed"}]

    assert counts(daybook.import_("mxmerchant", file(payload))) == (3, 0)
    assert counts(daybook.import_("mxmerchant", file(payload, OCTOBER))) == (0, 3)


def test_a_contract_that_is_stated_in_two_ways_is_not_taken_twice(daybook: Installation, file: Files) -> None:
    taken = daybook.import_("mxmerchant", file([contract(1), contract(1, "300")]), code=1)

    assert counts(taken) == (1, 0)
    assert taken["notes"] == [{"line": 1, "detail": "the contract 1 is stated twice, in two ways"}]


def test_a_record_that_cannot_be_read_is_in_quarantine_once(daybook: Installation, file: Files) -> None:
    records = [contract(1), contract(2, every="Now and then")]

    assert daybook.import_("mxmerchant", file(records), code=1)["quarantined"] == 1
    daybook.import_("mxmerchant", file(records), code=1)
    assert sum(daybook.contents()["quarantine"].values()) == 1


@pytest.mark.parametrize("moment", ["yesterday", "2999-01-01", "0001-01-01T00:00:00+14:00"])
def test_no_moment_and_one_to_come_are_refused(daybook: Installation, file: Files, moment: str) -> None:
    assert "--observed-at" in daybook.run("import", "mxmerchant", file([]), "--observed-at", moment, code=2)


# CSV


def test_a_row_is_a_subscription_with_a_next_bill(daybook: Installation, file: Files) -> None:
    columns = f"{HEADER},subscription_id,customer_name,currency,status,start_date"
    daybook.import_(
        "csv", file(f"{columns}\ncus_1,2025-11-20,5000,month,3,sub_1,Ada Example,eur,past_due,2025-01-31")
    )

    contract, customer = daybook.rows()
    assert json.decode(contract["data"]) == {
        "subscription_id": "sub_1",
        "customer_id": "cus_1",
        "status": "past_due",
        "currency": "eur",
        "items": [{"interval": "month", "every": 3, "unit_amount": "5000"}],
        "next_bill_on": "2025-11-20",
        "counts_from_on": "2025-01-31",
    }
    assert json.decode(customer["data"]) == {"customer_id": "cus_1", "name": "Ada Example"}
    assert contract["processor"] == "standard.csv"


def test_no_name_can_be_guessed_from_an_id(daybook: Installation, file: Files) -> None:
    daybook.import_("csv", file(f"{HEADER},customer_name\ncus_1,2025-11-20,5000,month,3,Ada Example"))

    data = {"customer_id": "cus_1", "name": "Ada Example"}
    guess = sha256(json.encode({"type": "customer.recorded", "account": "", "data": data})).hexdigest()
    assert not any(guess[:16] in row["event_id"] for row in daybook.rows())


@pytest.mark.parametrize("at", [OCTOBER, NOVEMBER, NOVEMBER + 86_400])
def test_a_table_that_is_repeated_or_copied_changes_nothing(
    daybook: Installation, file: Files, at: int
) -> None:
    """In another order of rows, too, and with a byte order mark and other ends of lines."""
    daybook.import_("csv", file(f"{HEADER}\ncus_1,2025-11-20,5000,month,1\ncus_2,2025-11-21,100,week,4\n"))
    before = daybook.contents()

    again = f"\ufeff{HEADER}\r\n\r\ncus_2,2025-11-21,100,week,4\r\ncus_1,2025-11-20,5000,month,1"
    assert counts(daybook.import_("csv", file(again, at))) == (0, 2)
    assert daybook.contents() == before


def test_a_row_of_another_month_is_the_same_contract(daybook: Installation, file: Files) -> None:
    daybook.import_("csv", file(f"{HEADER}\ncus_1,2025-10-20,5000,month,1", OCTOBER))
    daybook.import_("csv", file(f"{HEADER}\ncus_1,2025-11-20,6000,month,1"))

    assert {json.decode(row["data"])["subscription_id"] for row in daybook.rows()} == {"cus_1:month:1"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (",2025-11-20,5000,month,1", "column customer_id: it should be an id of 1 to 255 characters"),
        ("cus_1,20.11.2025,5000,month,1", "column next_bill_date: it should be a date such as 2025-11-30"),
        ("cus_1,2025-02-30,5000,month,1", "column next_bill_date: it should be a date such as 2025-11-30"),
        ("cus_1,2025-11-20,50.00,month,1", "column amount_cents: it should be a whole number of minor units"),
        (
            "cus_1,2025-11-20,5000,fortnight,1",
            "column interval: it should be one of day, week, month, year, once",
        ),
        ("cus_1,2025-11-20,5000,month,0", "column every: it should be a whole number from 1 to 1100"),
        ("cus_1,2025-11-20,5000,month", "it should have 5 cells, as the first line has"),
        (
            "cus_0,2025-11-28,100,month,1",
            "column subscription_id: another than that of line 2, which is cus_0:month:1",
        ),
    ],
)
def test_a_cell_is_told_by_line_and_column(daybook: Installation, file: Files, row: str, said: str) -> None:
    table = f"{HEADER}\ncus_0,2025-11-20,5000,month,1\n{row}\ncus_9,2025-11-20,5000,month,1"

    taken = daybook.import_("csv", file(table), code=1)

    assert (counts(taken), taken["unreadable_lines"]) == ((2, 0), 1)
    assert taken["notes"] == [{"line": 3, "detail": said}]


def test_a_name_that_no_biller_can_have_is_refused(daybook: Installation, file: Files) -> None:
    assert "--biller" in daybook.run("import", "csv", file(HEADER), "--biller", "A b", code=2)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("customer_id,next_bill_date,amount_cents,interval", "there is no column every"),
        (f"{HEADER},colour", "'colour' is no column"),
        (f"{HEADER},every", "a column is named twice"),
        ("", "there is no column customer_id"),
    ],
)
def test_a_table_without_its_columns_is_refused(
    daybook: Installation, file: Files, header: str, said: str
) -> None:
    assert said in daybook.run("import", "csv", file(f"{header}\ncus_1,2025-11-20,5000,month,1"), code=2)
    assert not daybook.rows()
