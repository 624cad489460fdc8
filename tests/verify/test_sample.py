"""A sample is of histories chosen at random, and finds what is wrong with them, through every stage."""

import sqlite3
from contextlib import closing

import pytest
from sqlalchemy import Table

from projections import BOOKS
from projections.book import Book
from service.bootstrap import open_books, open_ledger
from service.settings import Settings
from service.verify import Fault, Sample, verify_all, verify_chain, verify_sample
from tests.verify.test_columns import KEYS, change, of_book, tables_of

NAMES = [f"invoice|stripe||in_{number}" for number in range(1_000)]


def chosen(names: list[str], size: int = 10, seed: int = 1) -> list[str]:
    sample = Sample(size, seed)
    sample.add_names(names)
    return sample.names_of("invoice")


def test_a_sample_is_the_same_for_a_seed_whatever_comes_first_or_twice() -> None:
    assert chosen(NAMES) == chosen([*NAMES[::-1], *NAMES])
    assert len(set(chosen(NAMES))) == 10
    assert chosen(NAMES, seed=2) != chosen(NAMES)
    assert chosen(NAMES[:3]) == chosen(NAMES[:3], size=3)


def test_every_history_is_as_likely_as_any_other() -> None:
    drawn = [name for seed in range(200) for name in chosen(NAMES[:20], size=5, seed=seed)]

    assert all(30 <= drawn.count(name) <= 70 for name in NAMES[:20])


async def of_everything(settings: Settings) -> int:
    ledger, store = open_ledger(settings), open_books(settings)
    sample = Sample(100, 1)
    try:
        await verify_chain(ledger, add_names=sample.add_names)
        return await verify_sample(ledger, store, sample)
    finally:
        await store.close()
        await ledger.close()


@pytest.mark.parametrize(("book", "table"), tables_of(*BOOKS, totals=False))
async def test_a_row_of_any_stage_is_compared(settings: Settings, book: Book, table: Table) -> None:
    path = settings.data_dir / "books.db"
    assert await of_everything(settings) > 20
    row = change(path, table, "causes", of_book(path, book))

    with pytest.raises(Fault) as found:
        await of_everything(settings)

    assert (found.value.where.table, found.value.where.key) == (table.name, row["key"])
    assert found.value.where.columns == ("causes",)
    assert "causes" not in KEYS


async def test_with_a_sample_nothing_is_replayed_and_totals_are_added_up(settings: Settings) -> None:
    found = await verify_all(settings, sample=Sample(2, 7))

    assert (found.books, found.seed) == ({}, 7)
    assert found.compared
    assert any("seed 7" in line for line in found.lines())
    with closing(sqlite3.connect(settings.data_dir / "books.db")) as connection:
        connection.execute("UPDATE cash_days SET refunded_cents = refunded_cents + 1")
        connection.commit()
    with pytest.raises(Fault, match=r"cash_days, group .*, is not the sum of its rows \(refunded_cents\)"):
        await verify_all(settings, sample=Sample(2, 7))
