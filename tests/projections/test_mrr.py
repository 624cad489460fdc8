"""What a subscription counts in monthly recurring revenue, rule by rule. Source: contract 3."""

from decimal import Decimal
from fractions import Fraction
from itertools import permutations

import pytest

from projections.book import Policy, Rules
from projections.contract_life import ContractLife
from projections.mrr import MRR, Movement
from service.core.events import DELETED, NO_CURRENCY, UNKNOWN_CUSTOMER, AppliedDiscount, Discount, Tier
from tests.support.events import at, but, changed, created, event, item, subscription
from tests.support.folded_books import active, contract, movements, mrr, rows_of

WEEKS_EXACT = Rules(weeks_per_month=Fraction(52, 12))
NEW_YORK = Rules(reporting_tz="America/New_York")
TIERS = (
    Tier(up_to=10, unit_amount=Decimal(500), flat_amount=Decimal(100)),
    Tier(up_to=20, unit_amount=Decimal(400)),
    Tier(unit_amount=Decimal(300), flat_amount=Decimal(2000)),
)


def mrr_of(*items, rules=None, **fields) -> int:
    return mrr([created(subscription(*items, **fields), "2025-01-10")], "2025-01-10", rules or Rules())


# Factors and rounding


@pytest.mark.parametrize(
    ("cents", "interval", "every", "monthly"),
    [
        (24_900, "week", 4, 26_954),
        (53_500, "week", 1, 231_655),
        (16_200, "week", 10, 7_015),
        (239_100, "month", 3, 79_700),
        (24_900, "week", 1, 107_817),
    ],
)
def test_the_reference_figures_hold(cents, interval, every, monthly):
    assert mrr_of(item(cents, interval, every)) == monthly


@pytest.mark.parametrize(
    ("interval", "every", "monthly"),
    [("day", 1, 36_500), ("day", 30, 1_217), ("month", 1, 1_200), ("year", 1, 100), ("year", 2, 50)],
)
def test_each_interval_has_its_factor(interval, every, monthly):
    assert mrr_of(item(1_200, interval, every)) == monthly


def test_weeks_per_month_may_be_a_fraction_and_stay_exact():
    assert mrr_of(item(30_000, "week"), rules=WEEKS_EXACT) == 130_000


@pytest.mark.parametrize(
    ("cents", "every", "monthly"),
    [("0.5", 1, 1), ("1.5", 1, 2), ("2.5", 1, 3), ("0.4999999", 1, 0), (5, 2, 3), (1, 3, 0)],
)
def test_half_a_cent_goes_away_from_zero(cents, every, monthly):
    assert mrr_of(item(cents, "month", every)) == monthly


def test_a_subscription_is_rounded_once_over_all_its_items():
    assert mrr_of(item("0.4"), item("0.4"), item("0.4")) == 1


def test_weekly_plans_are_summed_and_never_averaged():
    assert mrr_of(item(10_000, "week"), item(20_000, "week")) == 129_900


def test_a_yearly_item_beside_a_monthly_one_counts_by_its_own_interval():
    assert mrr_of(item(1_000), item(12_000, "year")) == 2_000


def test_yen_have_no_minor_unit_and_are_not_scaled():
    events = [created(subscription(item(1_200, "month"), currency="jpy"), "2025-01-10")]
    assert mrr(events, currency="jpy") == 1_200


def test_dinars_of_a_thousand_fils_are_rounded_to_a_fils():
    events = [created(subscription(item(10_000, "month", 3), currency="kwd"), "2025-01-10")]
    assert mrr(events, currency="kwd") == 3_333


# Items


def test_quantity_multiplies():
    assert mrr_of(item(1_000, quantity=7)) == 7_000


def test_a_quantity_of_zero_counts_nothing():
    assert mrr_of(item(1_000, quantity=0)) == 0


def test_a_fraction_of_a_cent_is_multiplied_before_it_is_rounded():
    assert mrr_of(item("0.05", quantity=1_000)) == 50


@pytest.mark.parametrize(
    ("quantity", "cents"),
    [(0, 100), (1, 600), (10, 5_100), (11, 5_500), (20, 9_100), (21, 11_400), (30, 14_100)],
)
def test_graduated_tiers_price_each_unit_by_the_tier_it_falls_in(quantity, cents):
    assert mrr_of(item(None, quantity=quantity, tiers=TIERS, tiers_mode="graduated")) == cents


@pytest.mark.parametrize(
    ("quantity", "cents"), [(1, 600), (10, 5_100), (11, 4_400), (20, 8_000), (21, 8_300)]
)
def test_volume_tiers_price_all_units_by_the_tier_that_holds_them(quantity, cents):
    assert mrr_of(item(None, quantity=quantity, tiers=TIERS, tiers_mode="volume")) == cents


@pytest.mark.parametrize(("way", "cents"), [("up", 3_000), ("down", 2_000)])
def test_packages_of_units_are_sold_whole(way, cents):
    assert mrr_of(item(1_000, quantity=11, divide_by=5, divide_round=way)) == cents


def test_metered_items_are_not_counted():
    assert mrr_of(item(1_000), item(9_000, metered=True)) == 1_000


def test_one_off_items_are_not_counted():
    assert mrr_of(item(1_000), item(9_000, "once")) == 1_000


def test_a_once_contract_counts_nothing_and_is_no_active_contract():
    events = [created(subscription(item(9_000, "once")), "2025-01-10")]
    assert (mrr(events), active(events)) == (0, 0)


def test_an_item_without_a_readable_price_counts_nothing_and_shows():
    events = [created(subscription(item(1_000), item(None)), "2025-01-10")]
    assert mrr(events) == 1_000
    assert contract(events).unpriced


def test_an_unreadable_discount_shows():
    assert contract([created(subscription(discounts=(Discount(),)), "2025-01-10")]).unpriced


def test_a_metered_price_need_not_be_readable():
    assert not contract([created(subscription(item(), item(None, metered=True)), "2025-01-10")]).unpriced


def test_a_canceled_contract_is_not_called_unpriced():
    canceled = subscription(item(None), status="canceled")
    assert not contract([event(canceled, "2025-01-10")]).unpriced


# Statuses


@pytest.mark.parametrize("status", ["active", "past_due", "Active", "PAST_DUE"])
def test_these_statuses_count(status):
    assert mrr_of(status=status) == 24_900


@pytest.mark.parametrize(
    "status",
    ["trialing", "incomplete", "incomplete_expired", "unpaid", "canceled", "paused", "inactive", "whatever"],
)
def test_these_statuses_count_nothing(status):
    assert mrr_of(status=status) == 0


def test_a_paused_collection_counts_nothing():
    assert mrr_of(collection_paused=True) == 0


def test_a_declined_payment_still_counts():
    assert mrr_of(declined=True) == 24_900


def test_a_cancellation_at_the_periods_end_counts_until_it_has_ended():
    plan = subscription()
    ends = at("2025-03-10")
    events = [
        created(plan, "2025-01-10"),
        changed(but(plan, cancel_at=ends), "2025-02-01"),
        event(but(plan, status="canceled", ended_at=ends), "2025-03-10", rank=DELETED),
    ]
    for told in (events[:2], events):
        assert movements(told) == [("2025-01-10", "new", 24_900), ("2025-03-10", "churn", -24_900)]


def test_an_end_that_was_past_when_it_was_stated_ends_nothing():
    plan = subscription(cancel_at=at("2025-01-01"))
    assert movements([created(plan, "2025-01-10")]) == [("2025-01-10", "new", 24_900)]


def test_a_contract_whose_end_is_put_off_or_taken_back_goes_on():
    plan = subscription(cancel_at=at("2025-03-10"))
    for later, last in (
        (but(plan, cancel_at=None), ("2025-01-10", "new", 24_900)),
        (but(plan, cancel_at=at("2025-05-02")), ("2025-05-02", "churn", -24_900)),
    ):
        assert movements([created(plan, "2025-01-10"), changed(later, "2025-03-01")])[-1] == last


def test_what_cannot_come_back_did_not_end_where_it_is_alive_later():
    plan = subscription(cancel_at=at("2025-03-10"))
    events = [created(plan, "2025-01-10"), changed(plan, "2025-03-20")]
    assert movements(events) == [("2025-01-10", "new", 24_900)]


def test_an_end_that_is_stated_holds_whatever_else_is_read_of_the_contract():
    plan = subscription(cancel_at=at("2025-03-10"))
    off = AppliedDiscount(subscription_id="sub_1", discount=Discount(percent_off=Decimal(50)))
    events = [created(plan, "2025-01-10"), event(off, "2025-04-01")]
    assert movements(events)[-1] == ("2025-03-10", "churn", -24_900)


def test_an_end_that_is_yet_to_come_when_it_is_stated_comes_on_its_day():
    plan = subscription()
    for status in ("canceled", "active"):
        over = but(plan, status=status, ended_at=at("2025-04-30"))
        events = [created(plan, "2025-01-10"), changed(over, "2025-04-02")]
        assert movements(events)[-1] == ("2025-04-30", "churn", -24_900)


BILLERS = ("standard.ourbiller", "mxmerchant")


@pytest.mark.parametrize("processor", BILLERS)
def test_contracts_of_other_billers_come_back_under_their_id(processor):
    plan = subscription()
    events = [
        created(plan, "2025-01-10", processor=processor),
        event(but(plan, status="canceled"), "2025-03-10", rank=DELETED, processor=processor),
        changed(plan, "2025-06-01", processor=processor),
        changed(but(plan, status="Completed"), "2025-07-01", processor=processor),
    ]
    expected = [
        ("2025-01-10", "new", 24_900),
        ("2025-03-10", "churn", -24_900),
        ("2025-06-01", "reactivation", 24_900),
        ("2025-07-01", "churn", -24_900),
    ]
    for order in permutations(events):
        assert movements(order) == expected


def test_a_contract_that_ended_in_silence_comes_back_with_its_next_active_state():
    plan = subscription(cancel_at=at("2025-03-10"))
    events = [
        created(plan, "2025-01-10", processor=BILLERS[0]),
        changed(but(plan, cancel_at=None), "2025-05-01", processor=BILLERS[0]),
    ]
    assert [kind for _, kind, _ in movements(events)] == ["new", "churn", "reactivation"]


def test_a_deleted_contract_has_ended_though_its_items_are_unreadable():
    plan = subscription(item(None), item(1_000))
    events = [created(plan, "2025-01-10"), event(but(plan, items=()), "2025-02-10", rank=DELETED)]
    assert movements(events) == [("2025-01-10", "new", 1_000), ("2025-02-10", "churn", -1_000)]


def test_of_a_contract_of_which_only_its_end_can_be_read_customer_and_currency_stay():
    end = subscription(status="canceled", customer_id=UNKNOWN_CUSTOMER, currency=NO_CURRENCY)
    events = [created(subscription(), "2025-01-10"), event(but(end, items=()), "2025-02-10")]
    last = ContractLife(events, Rules()).states()[-1]
    assert (last.ended, last.data.customer_id, last.data.currency) == (True, "cus_1", "usd")
    assert [kind for _, kind, _ in movements(events)] == ["new", "churn"]


def test_of_many_renewals_only_changes_and_the_last_state_are_kept():
    days = [f"2025-{month:02}-10" for month in range(1, 13)]
    plans = [
        subscription(item(1_000 if n < 6 else 1_500), next_bill_at=at(day)) for n, day in enumerate(days)
    ]
    history = [created(plans[0], days[0]), *map(event, plans[1:], days[1:])]
    states = ContractLife(history, Rules()).states()
    assert [state.day.isoformat() for state in states] == [days[0], days[6], days[-1]]
    assert states[-1].data == plans[-1]


@pytest.mark.parametrize(
    ("status", "unknown"),
    [
        ("active", False),
        ("PAST_DUE", False),
        ("Inactive", False),
        ("cancelled", False),
        ("non_renewing", True),
        ("Live", True),
    ],
)
def test_a_status_that_is_no_known_word_is_marked(status, unknown):
    (state,) = ContractLife([created(subscription(status=status), "2025-01-10")], Rules()).states()
    assert (state.unknown_status, state.data.status) == (unknown, status.lower())


def test_a_word_that_a_policy_counts_is_known():
    rules = Rules(policy=Policy(statuses=("non_renewing",)))
    plan = created(subscription(status="Non_Renewing"), "2025-01-10")
    (state,) = ContractLife([plan], rules).states()
    assert (state.unknown_status, mrr([plan], rules=rules)) == (False, 24_900)


def test_late_active_does_not_revive():
    plan = subscription()
    events = [
        created(plan, "2025-01-10"),
        event(but(plan, status="canceled"), "2025-03-10", rank=DELETED),
        changed(plan, "2025-03-11"),
    ]
    assert mrr(events) == 0


def test_active_in_the_second_of_the_cancellation_does_not_revive():
    plan = subscription()
    for names in permutations(("a", "b")):
        events = [
            created(plan, "2025-01-10"),
            event(but(plan, status="canceled"), "2025-03-10", names[0], rank=DELETED),
            event(plan, "2025-03-10", names[1]),
        ]
        assert mrr(events) == 0


def test_an_expired_incomplete_subscription_stays_so():
    plan = subscription(status="incomplete")
    events = [
        created(plan, "2025-01-10"),
        changed(but(plan, status="incomplete_expired"), "2025-01-11"),
        changed(but(plan, status="active"), "2025-01-12"),
    ]
    assert mrr(events) == 0


def test_ended_at_beats_the_time_of_the_event_that_tells_it():
    plan = subscription()
    ended = but(plan, status="canceled", ended_at=at("2025-02-20 12:00"))
    events = [
        created(plan, "2025-01-10"),
        changed(but(plan, declined=True), "2025-02-25"),
        event(ended, "2025-03-10", rank=DELETED),
    ]
    assert movements(events) == [("2025-01-10", "new", 24_900), ("2025-02-20", "churn", -24_900)]


def test_a_contract_counts_from_its_start_where_that_is_before_it_was_observed():
    plan = subscription(counts_from=at("2024-11-05"))
    assert movements([event(plan, "2025-01-10")]) == [("2024-11-05", "new", 24_900)]


def test_a_contract_observed_before_its_start_counts_from_the_observation():
    plan = subscription(counts_from=at("2025-06-05"))
    assert movements([event(plan, "2025-01-10")]) == [("2025-01-10", "new", 24_900)]


def test_a_change_counts_from_its_observation():
    plan = subscription(counts_from=at("2024-11-05"))
    dearer = but(plan, items=(item(30_000),))
    assert movements([event(plan, "2025-01-10"), event(dearer, "2025-02-10")]) == [
        ("2024-11-05", "new", 24_900),
        ("2025-02-10", "expansion", 5_100),
    ]


def test_a_contract_first_seen_as_ended_never_counted():
    gone = subscription(status="inactive", counts_from=at("2024-11-05"))
    assert movements([event(gone, "2025-01-10")]) == []


# Discounts


@pytest.mark.parametrize(
    ("discount", "cents"),
    [
        (Discount(percent_off=Decimal(20)), 19_920),
        (Discount(percent_off=Decimal("33.3")), 16_608),
        (Discount(percent_off=Decimal(100)), 0),
        (Discount(amount_off=5_000), 19_900),
        (Discount(amount_off=99_999), 0),
        (Discount(percent_off=Decimal(20), duration="once"), 24_900),
        (Discount(amount_off=5_000, duration="once"), 24_900),
        (Discount(), 24_900),
    ],
)
def test_lasting_discounts_are_deducted(discount, cents):
    assert mrr_of(discounts=(discount,)) == cents


def test_an_amount_off_each_bill_of_four_weeks_is_made_monthly_with_it():
    assert mrr_of(item(24_900, "week", 4), discounts=(Discount(amount_off=4_900),)) == 21_650


def test_an_items_own_discount_is_deducted_from_it_alone():
    half = Discount(percent_off=Decimal(50))
    assert mrr_of(item(10_000, discounts=(half,)), item(1_000)) == 6_000


def test_an_items_discount_never_takes_from_another_item():
    assert mrr_of(item(100, discounts=(Discount(amount_off=900),)), item(1_000)) == 1_000


def test_a_repeating_discount_counts_until_the_day_of_its_end_without_an_event():
    off = Discount(percent_off=Decimal(50), duration="repeating", ends_at=at("2025-04-10 09:00"))
    events = [created(subscription(discounts=(off,)), "2025-01-10")]
    assert movements(events) == [("2025-01-10", "new", 12_450), ("2025-04-10", "expansion", 12_450)]


def test_a_discount_that_ended_before_the_cancellation_is_churned_whole():
    off = Discount(percent_off=Decimal(50), duration="repeating", ends_at=at("2025-04-10"))
    plan = subscription(discounts=(off,))
    events = [created(plan, "2025-01-10"), event(but(plan, status="canceled"), "2025-05-01", rank=DELETED)]
    assert movements(events)[-1] == ("2025-05-01", "churn", -24_900)


def test_a_discount_whose_end_a_cancellation_comes_before_never_expands():
    off = Discount(percent_off=Decimal(50), duration="repeating", ends_at=at("2025-04-10"))
    plan = subscription(discounts=(off,))
    events = [created(plan, "2025-01-10"), event(but(plan, status="canceled"), "2025-03-01", rank=DELETED)]
    assert movements(events) == [("2025-01-10", "new", 12_450), ("2025-03-01", "churn", -12_450)]


# Movements


def test_a_life_moves_through_every_kind():
    plan = subscription()
    events = [
        created(plan, "2025-01-10"),
        changed(but(plan, items=(item(30_000),)), "2025-02-01"),
        changed(but(plan, items=(item(10_000),)), "2025-03-01"),
        changed(but(plan, status="unpaid"), "2025-04-01"),
        changed(but(plan, status="active"), "2025-05-01"),
    ]
    assert movements(events) == [
        ("2025-01-10", "new", 24_900),
        ("2025-02-01", "expansion", 5_100),
        ("2025-03-01", "contraction", -20_000),
        ("2025-04-01", "churn", -10_000),
        ("2025-05-01", "reactivation", 24_900),
    ]


def test_another_subscription_after_the_first_has_ended_is_a_reactivation():
    plan = subscription()
    events = [
        created(plan, "2025-01-10"),
        event(but(plan, status="canceled"), "2025-03-01", rank=DELETED),
        created(but(plan, subscription_id="sub_2"), "2025-06-01"),
    ]
    assert movements(events)[-1] == ("2025-06-01", "reactivation", 24_900)


def test_a_second_subscription_is_an_expansion_and_its_end_a_contraction():
    second = subscription(item(1_000), subscription_id="sub_2")
    events = [
        created(subscription(), "2025-01-10"),
        created(second, "2025-02-01"),
        event(but(second, status="canceled"), "2025-03-01", rank=DELETED),
    ]
    assert movements(events)[1:] == [
        ("2025-02-01", "expansion", 1_000),
        ("2025-03-01", "contraction", -1_000),
    ]


def test_a_replaced_subscription_moves_only_by_the_difference():
    plan = subscription()
    events = [
        created(plan, "2025-01-10"),
        event(but(plan, status="canceled"), "2025-02-01 10:00", rank=DELETED),
        created(subscription(item(30_000), subscription_id="sub_2"), "2025-02-01 15:00"),
    ]
    assert movements(events)[1:] == [("2025-02-01", "expansion", 5_100)]


def test_what_is_up_and_down_again_within_a_day_is_no_movement():
    plan = subscription()
    events = [
        created(plan, "2025-01-10"),
        changed(but(plan, items=(item(30_000),)), "2025-02-01 10:00"),
        changed(plan, "2025-02-01 20:00"),
    ]
    assert movements(events) == [("2025-01-10", "new", 24_900)]


def test_a_subscription_that_never_counted_makes_the_next_one_new():
    trial = subscription(status="trialing")
    events = [
        created(trial, "2025-01-10"),
        event(but(trial, status="canceled"), "2025-01-20", rank=DELETED),
        created(subscription(subscription_id="sub_2"), "2025-03-01"),
    ]
    assert movements(events) == [("2025-03-01", "new", 24_900)]


def test_currencies_are_never_added_together():
    events = [
        created(subscription(), "2025-01-10"),
        created(subscription(subscription_id="sub_2", currency="eur"), "2025-02-10"),
    ]
    assert (mrr(events), mrr(events, currency="eur")) == (24_900, 24_900)
    assert [kind for _, kind, _ in movements(events)] == ["new", "new"]


def test_the_same_ids_in_another_account_are_another_customer():
    plan = subscription()
    events = [created(plan, "2025-01-10"), created(plan, "2025-02-10", account="acct_b")]
    assert [kind for _, kind, _ in movements(events)] == ["new", "new"]


# Days


def test_a_moment_near_midnight_lands_on_the_reporting_zones_day():
    events = [created(subscription(), "2025-02-01 03:00")]
    assert movements(events) == [("2025-02-01", "new", 24_900)]
    assert movements(events, NEW_YORK) == [("2025-01-31", "new", 24_900)]


def test_a_discounts_end_lands_on_the_reporting_zones_day():
    off = Discount(percent_off=Decimal(50), duration="repeating", ends_at=at("2025-04-10 02:00"))
    events = [created(subscription(discounts=(off,)), "2025-01-10 12:00")]
    assert movements(events, NEW_YORK)[-1] == ("2025-04-09", "expansion", 12_450)


# Several changes in one second


def test_changes_of_one_second_follow_what_was_there_before_whatever_their_ids():
    first = subscription(item(10_000))
    second, third = but(first, items=(item(20_000),)), but(first, items=(item(30_000),))
    fourth = but(third, declined=True)
    for names in permutations("abcd"):
        events = [
            created(first, "2025-01-10 10:00", event_id=names[0]),
            changed(second, "2025-01-10 10:00", first, event_id=names[1]),
            changed(third, "2025-01-10 10:00", second, event_id=names[2]),
            changed(fourth, "2025-01-10 10:00", third, event_id=names[3]),
        ]
        for order in permutations(events):
            assert movements(order) == [("2025-01-10", "new", 30_000)]


def test_there_and_back_within_a_second_ends_where_it_began():
    plan, dearer = subscription(), subscription(item(30_000))
    for names in permutations("abc"):
        events = [
            created(plan, "2025-01-09"),
            changed(dearer, "2025-01-10", plan, event_id=names[0]),
            changed(plan, "2025-01-10", dearer, event_id=names[1]),
            changed(but(plan, status="past_due"), "2025-01-10", plan, event_id=names[2]),
        ]
        for order in permutations(events):
            assert movements(order) == [("2025-01-09", "new", 24_900)]


def trusts(*trust: str) -> list[str]:
    """The trust of the one movement of a day on which contracts start, each told so."""
    events = [
        created(subscription(subscription_id=f"sub_{number}"), "2025-01-10", trust=level)
        for number, level in enumerate(trust)
    ]
    return [row.trust for row in rows_of(MRR, events) if isinstance(row, Movement)]


def test_a_movement_is_trusted_as_far_as_the_weakest_of_its_steps():
    assert trusts("signed") == ["signed"]
    assert trusts("signed", "fetched") == ["fetched"]
    assert trusts("signed", "unsigned", "fetched") == ["unsigned"]


def test_a_contract_that_moves_to_another_customer_leaves_nothing_behind():
    plan = subscription()
    events = [
        created(plan, "2025-01-10"),
        changed(but(plan, customer_id="cus_2"), "2025-02-10"),
        event(but(plan, customer_id="cus_2", status="canceled"), "2025-03-10", rank=DELETED),
    ]
    assert movements(events) == [
        ("2025-01-10", "new", 24_900),
        ("2025-02-10", "churn", -24_900),
        ("2025-02-10", "new", 24_900),
        ("2025-03-10", "churn", -24_900),
    ]


def test_a_contract_that_changes_its_currency_leaves_nothing_behind():
    plan = subscription()
    events = [created(plan, "2025-01-10"), changed(but(plan, currency="eur"), "2025-02-10")]
    assert (mrr(events), mrr(events, currency="eur")) == (0, 24_900)


def test_a_tie_that_only_ids_settle_is_flagged_and_a_chained_one_is_not():
    plan, dearer, dearest = subscription(), subscription(item(30_000)), subscription(item(40_000))
    first = created(plan, "2025-01-09")
    chained = [first, changed(dearer, "2025-01-10", plan), changed(dearest, "2025-01-10", dearer)]
    undecided = [first, changed(dearer, "2025-01-10"), changed(dearest, "2025-01-10")]
    for order in permutations(chained):
        assert not contract(order).tied
    for order in permutations(undecided):
        assert contract(order).tied


def test_what_is_told_of_the_time_after_ended_at_counts_for_nothing():
    plan = subscription()
    over = but(plan, status="canceled", ended_at=at("2025-02-01"))
    events = [
        created(plan, "2025-01-10"),
        changed(subscription(item(30_000)), "2025-02-05"),
        event(over, "2025-02-10", rank=DELETED),
    ]
    for order in permutations(events):
        assert movements(order) == [("2025-01-10", "new", 24_900), ("2025-02-01", "churn", -24_900)]
