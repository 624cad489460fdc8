"""`python -m bench [NAME …]`: rows beside their baselines, of all parts or of those named.

`--write` fills the tables and pictures of docs/performance.md with what was measured. `--quick` measures the
rows that can be small, and fails if a ratio has fallen under half of its floor, the ratio that `--quick
--write` recorded. Studies without a baseline are measured when they are named.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import (
    backfill,
    cluster,
    customers,
    engine,
    freshness,
    ingest,
    live_rebuild,
    lookback,
    page,
    peers,
    reads,
    rebuild,
    report,
    running,
    starvation,
    thin,
)
from bench.rows import FULL, QUICK, Result, Row, Sizes, cells, measure
from service.processes.garbage import collect_rarely

PARTS: dict[str, Callable[[Sizes, Path], Iterator[Row]]] = {
    "engine": engine.rows,
    "rebuild": rebuild.rows,
    "look-back": lookback.rows,
    "ingest": ingest.rows,
    "reads": reads.rows,
    "freshness": freshness.rows,
    "running": running.rows,
    "processes": cluster.rows,
    "peers": peers.rows,
}
QUICK_PARTS = ("engine", "rebuild", "ingest", "reads", "running")
STUDIES = {
    "backfill": backfill.measure_tables,
    "customers": customers.measure_tables,
    "live-rebuild": live_rebuild.measure_tables,
    "model": report.measure_tables,
    "starvation": starvation.measure_tables,
    "thin": thin.measure_tables,
}

console = Console(width=None if sys.stdout.isatty() else 160)


def main() -> None:
    options = _options()
    collect_rarely()  # as every process of Daybook does
    for name in options.names:
        if name in STUDIES:
            for title, lines in STUDIES[name]():
                _show(title, lines)
    parts = [name for name in options.names if name in PARTS]
    parts = parts or ([] if options.names else QUICK_PARTS if options.quick else list(PARTS))
    sizes, quick = (QUICK if options.quick else FULL), []
    for part, results in _measure_parts(parts, sizes):
        _show(part, [line for result in results for line in cells(result)])
        if options.quick:
            quick += results
        elif options.write:
            page.write(page.Run.now({part: results}))
    if options.quick:
        _check(quick, write=options.write)


def _measure_parts(parts: Sequence[str], sizes: Sizes) -> Iterator[tuple[str, list[Result]]]:
    """The results of each part, as they come."""
    with tempfile.TemporaryDirectory() as directory:
        for part in parts:
            yield part, [measure(row, sizes.rounds) for row in PARTS[part](sizes, Path(directory))]


def _check(results: Sequence[Result], *, write: bool) -> None:
    """Record the floors, or fail if a ratio is under half of its floor."""
    if write:
        page.write_floors(results)
    elif fallen := page.fallen(results, page.read_floors()):
        console.print("\n".join(fallen))
        sys.exit(1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*PARTS, *STUDIES]))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.names) - {*PARTS, *STUDIES}:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return options


def _show(title: str, lines: Sequence[Mapping[str, str]]) -> None:
    table = Table(
        title=f"{title}, load {os.getloadavg()[0]:.1f}, {datetime.now(UTC):%H:%M}", title_justify="left"
    )
    for name in lines[0]:
        table.add_column(name, justify="left" if name in {"what", ""} else "right")
    for line in lines:
        table.add_row(*line.values())
    console.print(table)


if __name__ == "__main__":
    main()
