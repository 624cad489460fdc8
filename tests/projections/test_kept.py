"""A fold that is kept and goes on with later events gives the rows of folding the whole history anew."""

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.book import Row, Rules
from projections.contracts import CONTRACT_STATES, ContractFold
from projections.fold import ordered
from projections.kept import MOST_KEPT, KeptFolds, LaterEvents
from service.core.events import (
    AppliedDiscount,
    Discount,
    Event,
    Phase,
    Schedule,
    Superseded,
    Unused,
    subjects,
)
from service.core.order import canonical
from tests.support.effort import examples
from tests.support.events import at, changed, created, event, invoice, item, subscription
from tests.support.random_scenarios import scenarios

RULES = Rules()
PLAN = subscription(item(1_000, price_id="price_1"))
OTHER = subscription(item(None, price_id="price_1"), item(500, price_id="price_2"))
PLANNED = Schedule(
    schedule_id="sched_1",
    subscription_id="sub_1",
    status="active",
    phases=(Phase(starts_at=at("2026-01-10"), items=(item(None, price_id="price_2"),)),),
)
START = [created(PLAN, "2025-01-10"), changed(PLAN, "2025-03-10")]
TAXED = {"subscription_id": "sub_1", "taxed_amount": 1_190, "inclusive_tax": 190}


def read_piecewise(
    kept: KeptFolds, name: str, pieces: Sequence[Sequence[Event]], rules: Rules
) -> Iterator[list[Row]]:
    """The rows of a history after each piece of it, by folds that go on wherever they can."""
    seen: list[Event] = []
    for place, piece in enumerate(pieces):
        kept.leave(place)
        seen += piece
        events = LaterEvents(canonical(piece)) if kept.go_on(name, piece) else ordered({name: seen})[name]
        yield kept.make_rows(CONTRACT_STATES, rules, name, events)
        kept.arrive(place + 1)


@given(st.data(), scenarios(), st.sampled_from((0, 3, MOST_KEPT)))
@examples(60)
def test_whatever_comes_in_whatever_pieces(data, scenario, most):
    rules, kept = Rules(reporting_tz=scenario.zone), KeptFolds(most)
    in_time = data.draw(st.booleans(), label="in the order of time")
    events = sorted(scenario.events, key=lambda e: e.occurred_at) if in_time else scenario.events
    for name in sorted({n for e in events for n in subjects(e) if n.startswith("subscription|")}):
        history = [e for e in events if name in subjects(e)]
        cuts = sorted(data.draw(st.sets(st.integers(1, len(history))), label="cuts"))
        pieces = [history[a:b] for a, b in zip([0, *cuts], [*cuts, len(history)], strict=True)]
        for end, rows in zip([*cuts, len(history)], read_piecewise(kept, name, pieces, rules), strict=True):
            assert rows == ContractFold(canonical(history[:end]), rules).rows()


@pytest.mark.parametrize(
    ("history", "later"),
    [
        pytest.param(START, [changed(OTHER, "2025-03-11")], id="a later statement"),
        pytest.param(
            START, [changed(OTHER, "2025-05-11"), changed(PLAN, "2025-05-10")], id="several, in any order"
        ),
        pytest.param(START, [event(invoice(subscription_id="sub_1"), "2025-01-01")], id="an untaxed invoice"),
        pytest.param(
            [*START, event(PLANNED, "2025-03-11")], [changed(PLAN, "2025-03-12")], id="the prices of before"
        ),
    ],
)
def test_a_fold_goes_on_with(history, later):
    fold = ContractFold(history, RULES)
    assert fold.goes_on(later)
    fold.read_on(canonical(later))
    assert fold.rows() == ContractFold(canonical([*history, *later]), RULES).rows()


@pytest.mark.parametrize(
    ("history", "later"),
    [
        pytest.param(START, [changed(OTHER, "2025-03-10")], id="a statement of the last moment"),
        pytest.param(START, [changed(OTHER, "2025-02-10")], id="an earlier statement"),
        pytest.param(
            START, [changed(OTHER, "2025-04-10"), changed(PLAN, "2025-04-10")], id="two of one moment"
        ),
        pytest.param(
            START,
            [
                event(
                    AppliedDiscount(subscription_id="sub_1", discount=Discount(discount_id="di_1")),
                    "2025-04-01",
                )
            ],
            id="a discount",
        ),
        pytest.param(START, [event(PLANNED, "2025-04-01")], id="a schedule"),
        pytest.param(START, [event(invoice(**TAXED), "2025-04-01")], id="a taxed invoice"),
        pytest.param(
            [*START, event(PLANNED, "2025-03-11")],
            [changed(OTHER, "2025-04-01")],
            id="the price of a schedule's phase",
        ),
        pytest.param(
            START,
            [event(Superseded(event_id=START[0].event_id, by=None), "2025-04-01")],
            id="an event that supersedes one",
        ),
        pytest.param(
            START, [event(Unused(original_type="x", ignored="x"), "2025-04-01")], id="anything else"
        ),
    ],
)
def test_a_fold_does_not_go_on_with(history, later):
    assert not ContractFold(history, RULES).goes_on(later)


def test_folds_at_another_place_are_forgotten_and_so_are_the_oldest():
    kept, later = KeptFolds(most=3), [changed(OTHER, "2025-03-11")]

    def read(*names: str) -> None:
        for name in names:
            kept.make_rows(CONTRACT_STATES, RULES, name, ordered({name: START})[name])

    read("subscription|a", "subscription|b")  # of two states each
    kept.arrive(1)
    assert [kept.go_on(f"subscription|{name}", later) for name in "ab"] == [False, True]
    kept.leave(2)
    assert not kept.go_on("subscription|b", later)
    read("subscription|b")
    kept.arrive(3)
    kept.leave(3)
    assert kept.go_on("subscription|b", later)
    kept.leave(3)  # from where it did not arrive anywhere
    assert not kept.go_on("subscription|b", later)


def test_a_history_with_superseded_events_is_not_kept():
    """One may come after the event that supersedes it."""
    superseded = event(Superseded(event_id="evt_late", by=None), "2025-03-11")
    late = changed(OTHER, "2025-03-12", event_id="evt_late")
    *_, rows = read_piecewise(KeptFolds(), "subscription|a", [[*START, superseded], [late]], RULES)
    assert rows == ContractFold(START, RULES).rows()
