"""What was measured, as tables and pictures of docs/performance.md; and the floors of the ratios.

`python -m bench.page` writes them again from the recorded run.
"""

import os
import platform
import re
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import log10
from pathlib import Path
from statistics import median
from typing import Self

from msgspec import Struct, json
from msgspec.structs import replace

from bench.rows import Result, cells

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "performance"
RECORDED = PICTURES / "run.json"
FLOORS = Path(__file__).with_name("floors.json")

_BLOCK = re.compile(r"(?<=<!-- measured: )([\w-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_GREY, _BLUE, _ORANGE = "#8a8a8a", "#3b82c4", "#d9822b"  # readable on white and on black
_WEBHOOKS, _MIRROR = "webhooks, 32 connections", "webhooks (a mirror)"  # rows of a picture of their own
_LINE = 26  # pixels of a line
_LEFT, _WIDTH, _RIGHT = 200, 440, 80  # of names, of what is drawn, of values


class Run(Struct, frozen=True, kw_only=True):
    """The results by part, and where and when they were measured."""

    machine: str
    day: str
    parts: dict[str, list[Result]]

    @classmethod
    def now(cls, parts: dict[str, list[Result]]) -> Self:
        machine = (
            f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, "
            f"SQLite {sqlite3.sqlite_version}"
        )
        return cls(machine=machine, day=datetime.now(UTC).date().isoformat(), parts=parts)

    def results(self) -> list[Result]:
        return [result for part in self.parts.values() for result in part]


def write(run: Run) -> None:
    """Record a run and write it to the page. Parts that it did not measure stay as they were."""
    if RECORDED.exists():
        run = replace(run, parts=read().parts | run.parts)
    PICTURES.mkdir(exist_ok=True)
    RECORDED.write_bytes(json.format(json.encode(run), indent=1) + b"\n")
    PAGE.write_text(fill(PAGE.read_text("utf-8"), run), "utf-8")
    for name, picture in pictures(run).items():
        (PICTURES / name).write_text(picture, "utf-8")


def read() -> Run:
    return json.decode(RECORDED.read_bytes(), type=Run)


def fill(text: str, run: Run) -> str:
    """The page with the tables of a run."""

    def block(found: re.Match[str]) -> str:
        name = found[1]
        lines = _machine(run) if name == "machine" else _table(run.parts.get(name, []))
        return f"{name}{found[2]}{lines}"

    return _BLOCK.sub(block, text)


def _machine(run: Run) -> str:
    loads = [load for result in run.results() for load in result.load]
    busy = f"Load average during the run: {min(loads):.1f} to {max(loads):.1f}." if loads else ""
    return f"Measured on {run.day}, on {run.machine}. {busy}\n"


def _table(results: Sequence[Result]) -> str:
    """A table of Markdown; a row without a baseline leaves its cells empty."""
    lines = ["| measured | | Daybook | baseline | ratio |", "|---|---|---|---|---|"]
    for result in results:
        for line in cells(result):
            what = (
                f"{line['what']}. Baseline: {result.against}"
                if line["what"] and result.against
                else line["what"]
            )
            lines.append("| " + " | ".join([what, *list(line.values())[1:]]) + " |")
    return "\n".join(lines) + "\n"


# Pictures


def pictures(run: Run) -> dict[str, str]:
    """SVG by the file's name."""
    results = {result.key: result for result in run.results()}
    drawn = {"ratios.svg": _ratios([result for result in results.values() if result.figures[0].ratios])}
    if {_WEBHOOKS, _MIRROR} <= set(results):
        drawn["webhooks.svg"] = _webhooks(results[_WEBHOOKS], results[_MIRROR])
    return drawn


def _ratios(results: Sequence[Result]) -> str:
    """The ratio of each row to its baseline, from the lowest to the highest, on a logarithmic scale."""
    low, high = -3, 1  # powers of ten

    def x(ratio: float) -> float:
        return _LEFT + _WIDTH * (min(max(log10(ratio), low), high) - low) / (high - low)

    body = [
        _line(x(10.0**power), 20, x(10.0**power), 30 + _LINE * len(results), 0.3 if power else 0.9)
        + _text(x(10.0**power), 14, f"{10.0**power:g}×", "middle")
        for power in range(low, high + 1)
    ]
    for number, result in enumerate(results):
        y, ratios = 45 + _LINE * number, result.figures[0].ratios
        middle = median(ratios)
        body += [
            _text(_LEFT - 12, y + 4, result.key, "end"),
            _bar(x(min(ratios)), y - 2, x(max(ratios)) - x(min(ratios)) + 1, 4, _BLUE),
            f'<circle cx="{x(middle):.1f}" cy="{y}" r="5" fill="{_BLUE}"/>',
            _text(_LEFT + _WIDTH + 12, y + 4, f"{middle:.2g}×", "start"),
        ]
    return _svg(60 + _LINE * len(results), "Each row beside its baseline: 1× is as fast", body)


def _webhooks(ingest: Result, mirror: Result) -> str:
    """Webhooks a second of Daybook and of others."""
    bars = {
        "stores nothing": (median(ingest.figures[0].baseline), _GREY),
        "Daybook": (median(ingest.figures[0].values), _BLUE),
        "Daybook, beside the mirror": (median(mirror.figures[0].values), _BLUE),
        "a mirror, one commit each": (median(mirror.figures[0].baseline), _ORANGE),
    }
    most = max(value for value, _ in bars.values())
    body = []
    for number, (name, (value, colour)) in enumerate(bars.items()):
        y = 12 + _LINE * number
        body += [
            _text(_LEFT - 12, y + 14, name, "end"),
            _bar(_LEFT, y, _WIDTH * value / most, _LINE - 8, colour),
            _text(_LEFT + _WIDTH * value / most + 8, y + 14, f"{value:,.0f}/s", "start"),
        ]
    return _svg(20 + _LINE * len(bars), "Webhooks a second, 32 connections", body)


def _svg(height: float, title: str, body: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height:.0f}"'
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    return "\n".join([f'{head} role="img" {font}>', f"<title>{title}</title>", *body, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{_GREY}" text-anchor="{anchor}">{text}</text>'


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" rx="2"/>'


def _line(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{_GREY}" stroke-opacity="{opacity}"/>'


# Floors


def read_floors() -> dict[str, float]:
    return json.decode(FLOORS.read_bytes(), type=dict[str, float])


def write_floors(results: Sequence[Result]) -> None:
    floors = {result.key: round(result.ratio, 4) for result in results if result.ratio}
    FLOORS.write_bytes(json.format(json.encode(floors), indent=2) + b"\n")


def fallen(results: Sequence[Result], floors: Mapping[str, float]) -> list[str]:
    """A line for each ratio under half of its floor."""
    return [
        f"{result.key}: {result.ratio:.3f} of its baseline, which is under half of {floors[result.key]:.3f}"
        for result in results
        if result.ratio and result.ratio < floors.get(result.key, 0.0) / 2
    ]


if __name__ == "__main__":
    write(read())
