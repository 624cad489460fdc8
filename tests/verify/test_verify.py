"""All checks together, on both databases, and what the command says."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from msgspec import json
from typer.testing import CliRunner

from service.bootstrap import books_schema, open_ledger
from service.cli import app
from service.settings import Settings, load
from service.verify import Fault, Sample, verify_all, verify_chain
from tests.support.deliveries import refused
from tests.support.postgres import PostgresServer
from tests.support.small_ledger import EVENTS, changed_value
from tests.support.temporary_books import NOW

runner = CliRunner()


def tamper(settings: Settings, file: str, statement: str) -> None:
    with closing(sqlite3.connect(settings.data_dir / file)) as connection:
        assert connection.execute(statement).rowcount
        connection.commit()


@pytest.mark.parametrize(
    ("file", "statement", "said"),
    [
        ("ledger.db", "UPDATE events SET trust = 'signee' WHERE position = 4", "events"),
        ("ledger.db", "UPDATE deliveries SET body = zeroblob(9) WHERE position = 4", "deliveries"),
        ("ledger.db", "UPDATE keys SET sealed = zeroblob(60) WHERE owner LIKE '%cus_2'", "keys"),
        ("ledger.db", "UPDATE keys SET sealed = NULL WHERE owner LIKE '%cus_2'", "keys"),
        ("ledger.db", "DELETE FROM keys WHERE owner LIKE '%cus_2'", "keys"),
        ("books.db", "UPDATE mrr_steps SET mrr_cents = mrr_cents + 1", "mrr_steps"),
        ("books.db", "DELETE FROM cash_days", "cash_days"),
        ("books.db", "UPDATE books SET rules = rules || ' ' WHERE name = 'bills'", "books"),
        ("books.db", "UPDATE checkpoints SET position = 99", "checkpoints"),
        ("books.db", "UPDATE checkpoints SET position = position - 1", "invoices"),
    ],
)
async def test_a_fault_is_found_and_where(settings: Settings, file: str, statement: str, said: str) -> None:
    tamper(settings, file, statement)

    with pytest.raises(Fault) as found:
        await verify_all(settings)
    assert found.value.where.table == said


async def test_a_damaged_index_of_a_file_is_found(settings: Settings) -> None:
    """Reads look rows up by it, and a comparison of the rows would not see it."""
    with closing(sqlite3.connect(settings.data_dir / "books.db")) as connection:
        page, size = connection.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema "
            "WHERE name = 'mrr_movements_by_currency_date'"
        ).fetchone()
    content = bytearray((settings.data_dir / "books.db").read_bytes())
    at = content.index(b"usd2025-10-05", (page - 1) * size, page * size)
    content[at] ^= 1
    (settings.data_dir / "books.db").write_bytes(content)

    with pytest.raises(Fault, match=r"books\.db is damaged: .*mrr_movements_by_currency_date"):
        await verify_all(settings)


async def test_a_byte_of_what_is_sealed_in_quarantine_is_found(settings: Settings) -> None:
    ledger = open_ledger(settings)
    await ledger.append([refused(b"one"), refused(b"two")], NOW)
    assert await verify_chain(ledger) == len(EVENTS)
    await ledger.close()
    with closing(sqlite3.connect(settings.data_dir / "ledger.db")) as connection:
        (body,) = connection.execute("SELECT body FROM quarantine WHERE id = 2").fetchone()
        connection.execute(
            "UPDATE quarantine SET body = ? WHERE id = 2", [body[:-1] + changed_value(body[-1:])]
        )
        connection.commit()

    with pytest.raises(Fault, match="quarantine"):
        await verify_all(settings)


# The command


def run(settings: Settings, *arguments: str) -> tuple[int, str]:
    found = runner.invoke(app, ["verify", *arguments], env={"DAYBOOK_DATA_DIR": str(settings.data_dir)})
    return found.exit_code, found.stdout


def test_the_command_says_what_held(settings: Settings, tmp_path: Path) -> None:
    code, said = run(settings, "--anchor", str(tmp_path / "anchors"))

    assert code == 0
    assert said.splitlines()[:2] == [
        "anchors: 0 checked, all in the ledger; its end added",
        f"chain: {len(EVENTS)} events, unbroken",
    ]
    assert said.splitlines()[-2:] == ["totals: equal to their rows", "lag: 0 events"]


@pytest.mark.parametrize(
    ("file", "change", "fault"),
    [
        ("ledger.db", "deliveries SET body = 'text' WHERE position = 5", "deliveries.*: position 5 .body."),
        (
            "ledger.db",
            "events SET data = CAST(x'ff' AS TEXT) WHERE position = 5",
            "events.*: position 5 .data.",
        ),
        ("books.db", "bills SET date = CAST(x'ff' AS TEXT)", "bills.*: key .* .date."),
    ],
)
def test_a_value_that_no_column_may_hold_is_found(
    settings: Settings, file: str, change: str, fault: str
) -> None:
    tamper(settings, file, f"UPDATE {change}")

    code, said = run(settings)

    assert code == 1
    assert re.search(fault, said)


def test_a_sample_can_be_taken_again_by_its_seed(settings: Settings) -> None:
    code, said = run(settings, "--sample", "3", "--json")
    first = json.decode(said)
    assert (code, first["holds"]) == (0, True)

    _, said = run(settings, "--sample", "3", "--seed", str(first["seed"]), "--json")

    assert json.decode(said) == first
    assert run(settings, "--seed", "1")[0] == 2  # of no sample


def test_the_command_names_the_first_fault(settings: Settings) -> None:
    tamper(settings, "books.db", "UPDATE customers SET deleted = TRUE")

    code, said = run(settings)
    assert code == 1
    assert said.strip() == (
        "fault: book customers differs from its replay: customers, key customer|stripe||cus_1 (deleted)"
    )
    code, said = run(settings, "--json")
    assert code == 1
    assert json.decode(said)["where"] == {
        "table": "customers",
        "key": "customer|stripe||cus_1",
        "columns": ["deleted"],
    }


def test_wrong_arguments_are_no_fault(settings: Settings, tmp_path: Path) -> None:
    assert run(load(data_dir=tmp_path / "none"))[0] == 2
    assert run(settings, "--all", "--sample", "3")[0] == 2


# PostgreSQL, with partitions at several positions


@pytest.fixture
def server(postgres: PostgresServer, template: str) -> Settings:
    return load(database_url=postgres.new_database(template))


async def test_partitions_at_several_positions_are_compared_each_at_its_own(server: Settings) -> None:
    replayed = await verify_all(server)
    sampled = await verify_all(server, sample=Sample(100, 1))

    assert replayed.events == sampled.events == len(EVENTS)
    assert replayed.lag_events == sampled.lag_events > 0
    assert sampled.compared > 20


@pytest.mark.parametrize(
    ("schema", "statement", "table"),
    [
        ("ledger", "UPDATE events SET before = '{}' WHERE position = 3", "events"),
        ("ledger", "UPDATE events SET content_digest = 'x' WHERE position = 3", "events"),
        ("ledger", "UPDATE deliveries SET body = body || 'x'::bytea WHERE position = 3", "deliveries"),
        ("ledger", "DELETE FROM deliveries WHERE position = 3", "deliveries"),
        ("ledger", "UPDATE event_ids SET account = 'x' WHERE position = 3", "event_ids"),
        ("ledger", "INSERT INTO subjects VALUES ('x', 3)", "subjects"),
        ("ledger", "UPDATE turn SET id = 2", "turn"),
        ("ledger", "UPDATE turn SET position = position + 1", "turn"),
        ("ledger", "UPDATE turn SET digest = 'x'", "turn"),
        ("books", "UPDATE mrr_movements SET kind = 'churn'", "mrr_movements"),
        ("books", "UPDATE orders SET paid_first_try = NOT paid_first_try", "orders"),
        ("books", "DELETE FROM bills", "bills"),
        ("books", "UPDATE order_days SET orders = orders + 1", "order_days"),
        ("books", "UPDATE failure_days SET partition = 77", "failure_days"),
    ],
)
async def test_a_change_on_postgresql_is_found(
    server: Settings, postgres: PostgresServer, schema: str, statement: str, table: str
) -> None:
    named = "daybook" if schema == "ledger" else books_schema(server)
    postgres.sql(f"SET search_path = {named}; {statement}", server.database_url.rsplit("/", 1)[1])

    with pytest.raises(Fault) as found:
        await verify_all(server)

    assert found.value.where.table == table
