"""The measurements run, their tables and floors follow from them, and the page shows the recorded run."""

from itertools import count

import pytest
from msgspec import json
from msgspec.structs import replace

from bench import __main__ as bench
from bench import page
from bench.rows import QUICK, Figure, Result, Row, measure, spread

TINY = replace(QUICK, rounds=1, events=300, fresh=40, history=150, webhooks=128, reads=40, appended=20)


def result(key: str, *, own: float, baseline: float, unit: str = "events/s") -> Result:
    figure = Figure(unit=unit, values=[own], baseline=[baseline])
    return Result(key=key, name=key, against="another", figures=[figure], load=(0.1, 0.2))


def check(part, directory):
    """Each figure of the part's rows is measured, and each row of the quick measurements has a floor."""
    for row in bench.PARTS[part](TINY, directory):
        measured = measure(row, rounds=1)

        assert [figure.unit for figure in measured.figures] == list(row.units)
        assert all(value > 0 for figure in measured.figures for value in figure.values)
        assert part not in bench.QUICK_PARTS or row.key in page.read_floors()


@pytest.mark.parametrize("part", ["engine", "peers"])
def test_a_part_measures_its_rows(part, tmp_path):
    check(part, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["rebuild", "ingest", "reads", "look-back", "running"])
def test_a_part_with_processes_measures_its_rows(part, tmp_path):
    check(part, tmp_path)


def test_baseline_and_row_are_measured_in_turns():
    turns = count()
    row = Row(
        key="a row",
        name="A row",
        units=("events/s",),
        measure=lambda: [next(turns)],
        baseline=lambda: [next(turns)],
    )

    (figure,) = measure(row, rounds=3).figures

    assert (figure.baseline, figure.values) == ([0, 2, 4], [1, 3, 5])


@pytest.mark.parametrize(("unit", "ratio"), [("events/s", 0.25), ("ms", 4.0)])
def test_a_ratio_says_how_many_times_as_fast(unit, ratio):
    assert result("a row", own=10, baseline=40, unit=unit).ratio == ratio


def test_a_spread_is_the_median_between_the_lowest_and_the_highest():
    assert spread([3_000, 1_000, 2_000]) == "2,000 (1,000–3,000)"
    assert spread([0.0056]) == "0.0056"


def test_a_row_falls_only_under_half_of_its_floor():
    results = [result("slower", own=6, baseline=10), result("fallen", own=4, baseline=10)]

    (line,) = page.fallen(results, {"slower": 1.0, "fallen": 1.0})

    assert line.startswith("fallen")


def test_the_page_and_its_pictures_show_the_recorded_run():
    run, text = page.read(), page.PAGE.read_text("utf-8")

    assert page.fill(text, run) == text
    for name, picture in page.pictures(run).items():
        assert (page.PICTURES / name).read_text("utf-8") == picture
        assert f"performance/{name}" in text


def test_the_page_has_a_table_for_every_part():
    text = page.PAGE.read_text("utf-8")

    assert [part for part in bench.PARTS if f"<!-- measured: {part} -->" not in text] == []


def test_a_run_is_read_back_as_it_was_recorded():
    run = page.Run.now({"engine": [result("behind", own=1, baseline=2)]})

    assert json.decode(json.encode(run), type=page.Run) == run
