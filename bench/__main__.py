"""`make bench`: ingest, the engine, reads, customers; PostgreSQL with many processes, and a model of more.

`python -m bench customers` measures only what is named.
"""

import asyncio
import os
import platform
import sqlite3
import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from bench import backfill, customers, engine, ingest, kept, reads, rebuild, report, starvation, thin

Tables = Iterable[tuple[str, Sequence[dict[str, str]]]]

console = Console()


def main() -> None:
    load = " ".join(f"{average:.1f}" for average in os.getloadavg())
    console.print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, "
        f"{os.cpu_count()} cores, load {load}\n"
    )
    for name in sys.argv[1:] or PARTS:
        for title, rows in PARTS[name]():
            show(title, rows)


def _on_sqlite() -> Tables:
    for title, measure in (
        ("Durable ingest over HTTP", ingest.measure),
        ("The engine", engine.measure),
        ("Reads", reads.measure),
    ):
        yield title, asyncio.run(measure())


PARTS = {
    "sqlite": _on_sqlite,
    "backfill": backfill.measure_tables,
    "customers": customers.measure_tables,
    "kept": kept.measure_tables,
    "rebuild": rebuild.measure_tables,
    "starvation": starvation.measure_tables,
    "thin": thin.measure_tables,
    "processes": report.measure_tables,
}


def show(title: str, rows: Sequence[dict[str, str]]) -> None:
    table = Table(title=title, title_justify="left")
    for name in rows[0]:
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


if __name__ == "__main__":
    main()
