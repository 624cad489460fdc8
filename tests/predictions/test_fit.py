"""From a history to curves: whose spells count where, and what is too little."""

import random
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import json

from service.predictions.fit import (
    STRATA,
    build_history,
    fit,
    gap_spells,
    states_at,
    survival_table,
    tenure_spells,
)
from service.predictions.model import (
    ALL,
    ENDED,
    ONE_ORDER,
    PERIODS,
    billing_period,
    shortage_reason,
    state_of,
    survival_probability,
)
from tests.predictions.facts import facts_of
from tests.support.effort import examples

LIFELINES: dict[str, Any] = json.decode(  # what the library lifelines computed for the same spells
    (Path(__file__).parents[1] / "fixtures" / "predictions" / "lifelines.json").read_bytes()
)
DAY = date(2026, 1, 1).toordinal()
Rows = list[tuple[int, int, int]]


def contracts(lives: list[tuple[int, bool]]) -> Rows:
    """A customer for each (days, ended): a contract that lived so long, up to `DAY` if it has not ended."""
    rows: Rows = []
    for customer, (days, ended) in enumerate(lives):
        begin = DAY - days - (100 if ended else 0)
        rows.append((customer, begin, 1000))
        if ended:
            rows.append((customer, begin + days, 0))
    return rows


def test_the_curve_is_the_one_computed_by_hand() -> None:
    # of 40, 8 end after 5 days, 4 are followed for 7 days, 7 of the 28 left end after 9, the rest go on
    lives = [(5, True)] * 8 + [(7, False)] * 4 + [(9, True)] * 7 + [(20, False)] * 21
    curve = fit(build_history(40, [], contracts(lives)), DAY).tenure[ALL]
    assert (curve.n, curve.events, curve.start, curve.end) == (40, 15, 0, 20)
    assert curve.days == (5, 9)
    assert curve.survival == pytest.approx((32 / 40, 32 / 40 * 21 / 28))
    assert curve.greenwood == pytest.approx((8 / (40 * 32), 8 / (40 * 32) + 7 / (28 * 21)))


def test_the_curve_and_its_interval_are_those_of_lifelines() -> None:
    recorded = LIFELINES["curve"]
    lives = [(days, bool(ended)) for days, ended in zip(recorded["days"], recorded["ended"], strict=True)]
    curve = fit(build_history(len(lives), [], contracts(lives)), DAY).tenure[ALL]
    for age, value, low, high in recorded["intervals"]:
        ours = survival_probability(curve, 0, age)
        assert (ours.value, ours.low, ours.high) == pytest.approx((value, low, high), abs=1e-6)
    assert age == curve.end


def table_of(spells: list[tuple[int, int, bool]]) -> list[list[int]]:
    """The survival table of (entry, exit, event): a row of age, events and number at risk for each age."""
    entry, exits, event = (np.array(column) for column in zip(*spells, strict=True))
    return np.column_stack(survival_table(entry, exits, event.astype(bool))).tolist()


@pytest.mark.parametrize("recorded", LIFELINES["tables"], ids=lambda recorded: recorded["name"])
def test_a_survival_table_is_the_one_of_lifelines(recorded: dict[str, Any]) -> None:
    assert table_of(recorded["spells"]) == recorded["table"]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.booleans()), min_size=1, max_size=60))
def test_a_survival_table_counts_the_spells_age_by_age(drawn: list[tuple[int, int, bool]]) -> None:
    spells = [(entry, entry + days, event) for entry, days, event in drawn]
    counted = []
    for age in range(102):
        changes = [age in (entry + 1, end) for entry, end, _ in spells]
        at_risk = [entry < age <= end for entry, end, _ in spells]
        events = [event and age == end for _, end, event in spells]
        if any(changes):
            counted.append([age, sum(events), sum(at_risk)])
    assert table_of(spells) == counted


@pytest.mark.parametrize(("spells", "events", "enough"), [(30, 10, True), (29, 10, False), (30, 9, False)])
def test_thirty_spells_and_ten_events_are_needed(spells: int, events: int, enough: bool) -> None:
    lives = [(5, True)] * events + [(20, False)] * (spells - events)
    model = fit(build_history(spells, [], contracts(lives)), DAY)
    assert (ALL in model.tenure) is enough
    assert model.reasons["tenure"].get(ALL) == (None if enough else shortage_reason(ALL, spells, events))


def test_no_history_gives_no_curve_and_reasons() -> None:
    model = fit(build_history(0, [], []), DAY)
    assert model.tenure == model.gap == {}
    assert model.reasons["gap"][ALL] == shortage_reason(ALL, 0, 0)


def test_a_curve_ends_where_fewer_than_ten_are_followed() -> None:
    lives = [(5, True)] * 20 + [(20, False)] * 11 + [(300, False)] * 9
    assert fit(build_history(40, [], contracts(lives)), DAY).tenure[ALL].end == 20


def test_a_curve_ends_where_nobody_is_left() -> None:
    lives = [(5, True)] * 40
    curve = fit(build_history(40, [], contracts(lives)), DAY).tenure[ALL]
    assert (curve.end, curve.survival) == (5, (0.0,))


def test_a_contract_is_of_a_stratum_only_while_it_is_known_to_be() -> None:
    bought = [(0, DAY - 100, 1), (0, DAY - 70, 1), (0, DAY - 40, 1)]
    spells = tenure_spells(build_history(1, bought, [(0, DAY - 100, 10), (0, DAY - 10, 0)]), DAY)
    assert [STRATA[number] for number in spells.stratum] == [ONE_ORDER, "Monthly"]
    assert spells.entry.tolist() == [0, 30]
    assert spells.exit.tolist() == [30, 90]
    assert spells.event.tolist() == [False, True]


@pytest.mark.parametrize(
    ("cents", "name"), [(100, "Monthly"), (300, "Quarterly"), (600, "Bi-Annual"), (1200, "Annual+")]
)
def test_the_first_bill_tells_the_period_of_a_contract(cents: int, name: str) -> None:
    known = build_history(1, [(0, DAY - 50, cents)], [(0, DAY - 50, 100)])
    spells = tenure_spells(known, DAY)
    assert [STRATA[number] for number in spells.stratum] == [name]
    assert (spells.entry.tolist(), spells.exit.tolist()) == ([0], [50])
    assert STRATA[states_at(known, DAY).stratum[0]] == name


def test_before_the_first_bill_no_period_is_known() -> None:
    spells = tenure_spells(build_history(1, [(0, DAY - 45, 1200)], [(0, DAY - 50, 100)]), DAY)
    assert [STRATA[number] for number in spells.stratum] == [ONE_ORDER, "Annual+"]
    assert spells.entry.tolist() == [0, 5]


def test_an_order_before_the_contract_tells_no_period() -> None:
    now = states_at(build_history(1, [(0, DAY - 51, 1200)], [(0, DAY - 50, 100)]), DAY)
    assert (now.period[0], STRATA[now.stratum[0]]) == (-1, ONE_ORDER)


def test_two_contracts_that_bill_on_one_day_have_one_period() -> None:
    bought = [(0, DAY - 50, 200), (0, DAY - 50, 700)]
    assert PERIODS[states_at(build_history(1, bought, [(0, DAY - 50, 300)]), DAY).period[0]] == 3


@given(st.integers(0, 10**7), st.integers(1, 10**5))
def test_a_period_is_the_same_of_one_order_and_of_arrays(cents: int, mrr: int) -> None:
    number = states_at(build_history(1, [(0, DAY, cents)], [(0, DAY, mrr)]), DAY).period[0]
    assert billing_period(cents, mrr) == (None if number < 0 else PERIODS[number])


def test_a_reactivation_begins_a_new_life() -> None:
    moved = [(0, DAY - 100, 10), (0, DAY - 90, 20), (0, DAY - 60, 0), (0, DAY - 50, 10)]
    spells = tenure_spells(build_history(1, [], moved), DAY)
    assert spells.exit.tolist() == [40, 50]
    assert spells.event.tolist() == [True, False]


def test_a_gap_is_of_the_stratum_in_which_it_began() -> None:
    spells = gap_spells(build_history(1, [(0, DAY - 100, 1), (0, DAY - 80, 1), (0, DAY - 80, 1)], []), DAY)
    assert [STRATA[number] for number in spells.stratum] == [ONE_ORDER, "Monthly"]
    assert spells.exit.tolist() == [20, 80]
    assert spells.event.tolist() == [True, False]


def test_bills_of_a_live_contract_are_no_gaps_and_its_end_begins_one() -> None:
    bought = [(0, DAY - 100, 1), (0, DAY - 70, 1), (0, DAY - 20, 1)]
    spells = gap_spells(build_history(1, bought, [(0, DAY - 100, 10), (0, DAY - 40, 0)]), DAY)
    assert [STRATA[number] for number in spells.stratum] == [ENDED, "Quarterly"]
    assert spells.exit.tolist() == [20, 20]
    assert spells.event.tolist() == [True, False]


def test_a_new_contract_ends_a_gap_as_a_purchase_does() -> None:
    spells = gap_spells(build_history(1, [(0, DAY - 100, 1)], [(0, DAY - 90, 10)]), DAY)
    assert (spells.exit.tolist(), spells.event.tolist()) == ([10], [True])


orders = st.lists(
    st.tuples(st.integers(0, 4), st.integers(DAY - 400, DAY), st.integers(1, 9999)), max_size=30
)
moves = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(DAY - 400, DAY)), st.sampled_from([0, 100, 250]), max_size=15
)


@given(orders, moves)
def test_arrays_and_a_single_customer_follow_the_same_rules(
    bought: Rows, moved: dict[tuple[int, int], int]
) -> None:
    known = build_history(5, bought, [(*key, closing) for key, closing in moved.items()])
    now = states_at(known, DAY)
    for customer in range(5):
        one = state_of(facts_of(known, customer, DAY))
        if one is not None:
            assert (one.stratum, one.age) == (STRATA[now.stratum[customer]], now.age[customer])
            assert one.kind == ("tenure" if now.live[customer] else "gap")


@examples(8)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_input_changes_no_byte(shuffler: random.Random) -> None:
    rng = random.Random(5)
    bought = [(c, DAY - rng.randrange(300), rng.randrange(1, 99)) for c in range(60) for _ in range(5)]
    moved = contracts([(rng.randrange(1, 80), rng.random() < 0.5) for _ in range(60)])
    before = json.encode(fit(build_history(60, bought, moved), DAY))
    shuffler.shuffle(bought)
    shuffler.shuffle(moved)
    assert json.encode(fit(build_history(60, bought, moved), DAY)) == before


def test_what_comes_after_the_day_is_not_seen() -> None:
    bought = [(customer, DAY - days, 1) for customer in range(40) for days in (50, 20, -5)]
    moved = [(0, DAY - 9, 5), (0, DAY + 1, 0)]
    seen = [row for row in bought if row[1] <= DAY]
    assert fit(build_history(40, bought, moved), DAY) == fit(build_history(40, seen, moved[:1]), DAY)
