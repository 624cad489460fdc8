"""The metrics of a few customers, by hand."""

from collections import Counter
from datetime import date
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.mrr import MOVEMENT_KINDS
from service.reads.metrics import Cohort, Period, measure
from tests.support.running import Daybook
from tests.support.senders import subscription
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

RATES = (
    "customer_churn_rate gross_mrr_churn_rate net_mrr_churn_rate net_revenue_retention quick_ratio "
    "failed_payment_rate recovery_rate"
).split()
ADDED = (
    *(f"{kind}_cents" for kind in MOVEMENT_KINDS),
    *"new_customers reactivated_customers churned_customers payments failed_payments".split(),
    "recovered_payments",
)
YEAR = {"from_": "2025-01", "to": "2025-12"}


async def tell(daybook: Daybook) -> None:
    """Half a year of three customers: all that moves, and payments that fail."""
    for day, key, cents in (
        ("2025-01-10", "1", 10_000),
        ("2025-01-20", "2", 30_000),
        ("2025-02-10", "1", 15_000),
        ("2025-03-05", "2", 24_000),
        ("2025-03-20", "3", 5_000),
        ("2025-04-10", "1", None),
        ("2025-06-10", "1", 9_000),
    ):
        data = subscription(key, cents or 0) | {"status": "active" if cents else "unpaid"}
        await daybook.record("subscription.recorded", f"{day}T12:00:00Z", **data)
    for name, day, status, failed in (
        ("in-1", "2025-02-01", "paid", False),
        ("in-2", "2025-02-20", "paid", False),
        ("in-3", "2025-03-03", "open", True),
        ("in-3", "2025-04-02", "paid", False),
        ("in-4", "2025-03-09", "open", True),
        ("in-5", "2025-03-10", "paid", False),
    ):
        paid = {"amount_paid": 500, "paid_at": f"{day}T12:00:00Z"} if status == "paid" else {}
        await daybook.record(
            "invoice.recorded",
            f"{day}T12:00:00Z",
            invoice_id=name,
            customer_id="cust-1",
            currency="usd",
            amount_due=500,
            created_at="2025-02-01T12:00:00Z",
            status=status,
            payment_failed=failed,
            **paid,
        )
    await daybook.catch_up()


async def periods(daybook: Daybook, by: str, **query: Any) -> dict[str, dict[str, Any]]:
    answer = await daybook.get("/api/v1/metrics", by=by, **{**YEAR, **query})
    assert answer["by"] == by
    return {period["period"]: period for period in answer["periods"]}


def shows(period: dict[str, Any], **expected: Any) -> bool:
    assert {name: period[name] for name in expected} == expected
    return True


async def test_months_by_hand(daybook: Daybook) -> None:
    await tell(daybook)

    months = await periods(daybook, "month")

    assert list(months) == [f"2025-{month:02d}" for month in range(1, 13)]
    assert shows(
        months["2025-01"],
        opening_cents=0,
        new_cents=40_000,
        closing_cents=40_000,
        opening_customers=0,
        closing_customers=2,
        arr_cents=480_000,
        arpa_cents=20_000,
        ltv_cents=None,
        payments=0,
        **dict.fromkeys(RATES),
    )
    assert shows(
        months["2025-02"],
        expansion_cents=5_000,
        closing_cents=45_000,
        arr_cents=540_000,
        arpa_cents=22_500,
        customer_churn_rate=0.0,
        gross_mrr_churn_rate=0.0,
        net_mrr_churn_rate=-0.125,
        net_revenue_retention=1.125,
        quick_ratio=None,
        ltv_cents=None,
        payments=2,
        failed_payment_rate=0.0,
        recovery_rate=None,
    )
    assert shows(
        months["2025-03"],
        closing_cents=44_000,
        arpa_cents=14_667,  # 44000 / 3
        gross_mrr_churn_rate=0.133333,  # 6000 / 45000
        net_mrr_churn_rate=0.133333,
        net_revenue_retention=0.866667,
        quick_ratio=0.833333,  # 5000 / 6000
        payments=3,
        failed_payments=2,
        recovered_payments=1,
        failed_payment_rate=0.666667,
        recovery_rate=0.5,
    )
    assert shows(
        months["2025-04"],
        opening_customers=3,
        churned_customers=1,
        closing_customers=2,
        customer_churn_rate=0.333333,
        gross_mrr_churn_rate=0.340909,  # 15000 / 44000
        net_revenue_retention=0.659091,
        quick_ratio=0.0,
        arpa_cents=14_500,
        ltv_cents=43_500,  # 14500 × 3
        payments=0,  # what is paid after a failure counts on the day of that
        failed_payment_rate=None,
    )


async def test_whoever_leaves_and_comes_back_within_a_quarter_has_not_left(daybook: Daybook) -> None:
    await tell(daybook)

    quarter = (await periods(daybook, "quarter"))["2025-Q2"]

    assert shows(
        quarter,
        opening_cents=44_000,
        reactivation_cents=9_000,
        churn_cents=-15_000,
        closing_cents=38_000,
        closing_customers=3,
        arr_cents=456_000,
        arpa_cents=12_667,
        customer_churn_rate=0.0,
        gross_mrr_churn_rate=0.136364,
        net_mrr_churn_rate=0.136364,
        net_revenue_retention=0.863636,
        quick_ratio=0.6,
        ltv_cents=None,  # 38000 / 3 × 3 months × 3 quarters
    )
    assert (quarter["from"], quarter["to"], quarter["complete"]) == ("2025-04-01", "2025-06-30", True)


@pytest.mark.parametrize("by", ["quarter", "year"])
async def test_a_longer_period_is_its_months_folded(daybook: Daybook, by: str) -> None:
    await tell(daybook)
    months = await periods(daybook, "month")

    for period in (await periods(daybook, by)).values():
        of = [month for month in months.values() if period["from"] <= month["from"] <= period["to"]]
        assert {name: period[name] for name in ADDED} == {
            name: sum(month[name] for month in of) for name in ADDED
        }
        for end, month in (("opening", of[0]), ("closing", of[-1])):
            for of_what in ("cents", "customers"):
                assert period[f"{end}_{of_what}"] == month[f"{end}_{of_what}"]


async def test_every_period_opens_where_the_one_before_closed(daybook: Daybook) -> None:
    await tell(daybook)

    for by in ("month", "quarter", "year"):
        listed = list((await periods(daybook, by, from_="2024-01", to="2026-12")).values())
        for before, period in pairwise(listed):
            assert period["opening_cents"] == before["closing_cents"]
            assert period["opening_customers"] == before["closing_customers"]


async def test_periods_are_whole_and_say_whether_they_are_over(daybook: Daybook) -> None:
    await tell(daybook)

    quarters = await periods(daybook, "quarter", from_="2025-02-14", to="2025-11")
    years = await periods(daybook, "year", from_="2024-12", to="2025-01")

    assert [(period["from"], period["to"], period["complete"]) for period in quarters.values()] == [
        ("2025-01-01", "2025-03-31", True),
        ("2025-04-01", "2025-06-30", True),
        ("2025-07-01", "2025-09-30", True),
        ("2025-10-01", "2025-12-31", False),
    ]
    assert {name: period["complete"] for name, period in years.items()} == {"2024": True, "2025": False}
    assert years["2025"]["closing_cents"] == 38_000
    assert (await periods(daybook, "month", today="2025-11-30"))["2025-11"]["complete"] is True


async def test_other_currencies_and_accounts_are_left_out(daybook: Daybook) -> None:
    await tell(daybook)

    for asked in ({"currency": "eur"}, {"account": "acct_b"}):
        months = await periods(daybook, "month", **asked)
        assert all(
            not any(
                value for name, value in period.items() if name not in ("period", "from", "to", "complete")
            )
            for period in months.values()
        )


async def test_a_range_that_is_backwards_is_400(daybook: Daybook) -> None:
    answer = await daybook.ask("/api/v1/metrics", from_="2025-03", to="2025-01")

    assert answer.status_code == 400


amounts = st.integers(0, 10**9)


@given(amounts, st.integers(0, 1000), st.lists(amounts, min_size=5, max_size=5), st.integers(0, 1000))
def test_what_is_kept_and_what_is_lost_make_the_whole(
    opening: int, customers: int, moved: list[int], left: int
) -> None:
    new, reactivation, expansion, contraction, churn = moved
    cents = (new, reactivation, expansion, -contraction, -churn)
    happened = Counter({f"{kind}_cents": amount for kind, amount in zip(MOVEMENT_KINDS, cents, strict=True)})
    happened["churn_customers"] = left
    cohort = Cohort(
        customers=customers + left,
        opening_cents=opening,
        closing_cents=expansion,
        lost_cents=contraction,
        left=left,
    )

    period = Period(
        name="2025-11", begins=date(2025, 11, 1), ends=date(2025, 11, 30), months=1, complete=True
    )
    figures = measure(period, opening, customers + left, happened, cohort)

    change = sum(getattr(figures, f"{kind}_cents") for kind in MOVEMENT_KINDS)
    assert figures.closing_cents - opening == change
    if opening:
        assert figures.net_mrr_churn_rate is not None
        assert figures.net_revenue_retention == pytest.approx(1 - figures.net_mrr_churn_rate, abs=2e-6)
    assert (figures.quick_ratio is None) == (contraction + churn == 0)
    assert (figures.ltv_cents is None) == (not left or not customers)


@pytest.mark.parametrize("guests", [1, 3])
async def test_whoever_comes_and_goes_within_a_period_changes_no_retention(
    daybook: Daybook, guests: int
) -> None:
    await daybook.record("subscription.recorded", "2024-11-02T12:00:00Z", **subscription("0", 1_000))
    for key in range(1, guests + 1):
        data = subscription(str(key), 10_000)
        await daybook.record("subscription.recorded", "2025-02-02T12:00:00Z", **data)
        await daybook.record("subscription.recorded", "2025-11-20T12:00:00Z", **data | {"status": "canceled"})
    await daybook.catch_up()

    year = (await periods(daybook, "year"))["2025"]

    assert shows(year, net_revenue_retention=1.0, customer_churn_rate=0.0, churned_customers=guests)


async def test_nobody_who_was_there_gives_no_lifetime_value(daybook: Daybook) -> None:
    data = subscription("1", 1_000)
    await daybook.record("subscription.recorded", "2025-01-02T12:00:00Z", **data)
    await daybook.record("subscription.recorded", "2025-01-20T12:00:00Z", **data | {"status": "canceled"})
    await daybook.record("subscription.recorded", "2025-01-05T12:00:00Z", **subscription("2", 1_000))
    await daybook.catch_up()

    assert shows((await periods(daybook, "month"))["2025-01"], customer_churn_rate=None, ltv_cents=None)
