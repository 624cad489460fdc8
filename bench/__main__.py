"""`make bench`: ingest, the engine, a long history, reads."""

import asyncio
import platform
import sqlite3

from rich.console import Console
from rich.table import Table

from bench import engine, ingest, reads

console = Console()


def main() -> None:
    console.print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}\n"
    )
    for title, measure in (
        ("Durable ingest over HTTP", ingest.measure),
        ("The engine", engine.measure),
        ("Reads", reads.measure),
    ):
        table = Table(title=title, title_justify="left")
        rows = asyncio.run(measure())
        for name in rows[0]:
            table.add_column(name, justify="left" if name == "what" else "right")
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        console.print(table)


if __name__ == "__main__":
    main()
