"""Predictions of customers: from what the worker learnt, the same for the same events, null with a reason."""

import random
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.worker.trainer import train
from tests.support.posted_books import filled, pays
from tests.support.running import NOW, Daybook, running
from tests.support.senders import STANDARD, subscription
from tests.support.stores import EACH_STORE, NewDataDir

STORES = EACH_STORE

ANALYTICS = "/api/payment/analytics"
TODAY = NOW.date()
FIGURES = (
    "estimated_ltv_cents",
    "next_purchase_probability",
    "next_purchase_predicted_date",
    "churn_risk_score",
)
LISTS = (
    "customers/top?limit=1000",
    "customers/top?limit=1000&sort=last_purchase&order=asc",
    "customers/top?format=csv",
    "customers/top?limit=1000&today=2025-03-01",
    "customers/at-risk",
    "customers/at-risk?stage=churned&segments=low_value,medium_value",
    "cohorts?from=2022-01&to=2025-12",
    "cohorts?from=2022-01&to=2025-12&today=2025-03-01",
    "distribution",
    "purchase-frequency",
    "purchase-frequency?today=2025-03-01",
    "dashboard",
    "dashboard?today=2025-03-01",
    "predictions/backtest",
)
BUYERS, SUBSCRIBERS = 40, 40
Message = tuple[str, dict[str, Any]]  # its id, its body


def messages() -> list[Message]:
    """Three years of buyers, who order by themselves, and of subscribers, whose contracts bill."""
    chance = random.Random(20251113)
    bodies: list[dict[str, Any]] = []

    def tell(kind: str, day: date, **data: Any) -> None:
        at = f"{day.isoformat()}T{chance.randrange(24):02d}:00:00Z"
        bodies.append({"type": kind, "occurred_at": at, "data": data})

    for number in range(BUYERS):
        day, gap = TODAY - timedelta(days=chance.randrange(60, 700)), chance.choice((25, 40, 80))
        while day <= TODAY:
            paid = {"payment_id": f"pay-{number}-{day}", "amount": chance.randrange(900, 90_000)}
            of = {"customer_id": f"buyer-{number}", "currency": "usd", "status": "succeeded"}
            tell("payment.recorded", day, **paid, **of)
            if chance.random() < 0.1:
                refund = {"refund_id": f"ref-{number}-{day}", "payment_id": paid["payment_id"], "amount": 500}
                back = day + timedelta(days=3)
                tell("refund.recorded", back, **refund, **of, created_at=f"{back}T00:00:00Z")
            if chance.random() < 0.12:
                break
            day += timedelta(days=max(1, round(chance.gauss(gap, gap / 3))))
    for number in range(SUBSCRIBERS):
        began = TODAY - timedelta(days=chance.randrange(5, 900))
        bills = {"next_bill_at": f"{TODAY + timedelta(days=1 + number % 28)}T00:00:00Z"}
        plan = {**subscription(str(number), chance.choice((4900, 24900))), **bills}
        tell("subscription.recorded", began, **plan)
        ended = began + timedelta(days=chance.randrange(40, 700))
        if ended < TODAY:
            tell("subscription.recorded", ended, **{**plan, "status": "canceled"})
        for day in (began, began + timedelta(days=30)):
            if day < TODAY:
                at = {"created_at": f"{day}T00:00:00Z", "paid_at": f"{day}T01:00:00Z"}
                money = {"amount_due": 4900, "amount_paid": 4900, "currency": "usd", "status": "paid"}
                invoice = {"invoice_id": f"inv-{number}-{day}", "customer_id": f"cust-{number}"}
                line = {"amount": 4900, "product_id": "plan", "product_name": "The plan"}
                tell("invoice.recorded", day, **invoice, **money, **at, lines=[line])
    return [(f"msg-{number}", body) for number, body in enumerate(bodies)]


async def deliver(daybook: Daybook, deliveries: Sequence[Message], catch_up_every: int) -> None:
    for number, (message_id, body) in enumerate(deliveries):
        answer = await daybook.post(STANDARD, body, message_id=message_id)
        assert answer.status_code == 200, answer.text
        if number % catch_up_every == catch_up_every - 1:
            await daybook.catch_up()
    await daybook.catch_up()
    await train(daybook.state.store, TODAY)


@pytest.fixture(scope="module")
def in_order(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each message once, in its order, and what was learnt of them."""

    async def fill(daybook: Daybook) -> None:
        await deliver(daybook, messages(), 10_000)

    return filled(new_data_dir(tmp_path_factory.mktemp("in-order") / "data"), fill, NOW)


@pytest.fixture(scope="module")
def shuffled(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same messages in another order, many of them twice, taken in by and by."""

    async def fill(daybook: Daybook) -> None:
        chance = random.Random(1)
        once = messages()
        deliveries = once + chance.sample(once, len(once) // 4)
        chance.shuffle(deliveries)
        await deliver(daybook, deliveries, 200)

    return filled(new_data_dir(tmp_path_factory.mktemp("shuffled") / "data"), fill, NOW)


def every_read() -> list[str]:
    """The lists, and some customers' reads."""
    some = [f"buyer-{n}" for n in range(0, BUYERS, 6)] + [f"cust-{n}" for n in range(0, SUBSCRIBERS, 6)]
    reads = (
        "revenue?detail=orders&breakdown=monthly,quarterly,by_product",
        "revenue?period=last_6_months",
        "forecast?months=24",
        "opportunities",
    )
    return [*LISTS, *(f"customers/{who}/{read}" for who in some for read in reads)]


async def test_any_order_and_number_of_deliveries_gives_the_same_answers(
    in_order: Path, shuffled: Path
) -> None:
    async with running(in_order) as straight, running(shuffled) as other:
        for read in every_read():
            first, second = [await d.http.get(f"{ANALYTICS}/{read}") for d in (straight, other)]
            assert first.status_code == 200, (read, first.text)
            assert first.content == second.content, read
            assert first.headers["etag"] == second.headers["etag"], read


async def predicted(daybook: Daybook, who: str, **query: Any) -> dict[str, Any]:
    predictions: dict[str, Any] = (await daybook.get(f"{ANALYTICS}/customers/{who}/revenue", **query))[
        "predictions"
    ]
    return predictions


async def test_with_enough_history_every_figure_is_told_with_its_basis(in_order: Path) -> None:
    async with running(in_order) as daybook:
        everybody = (await daybook.get(f"{ANALYTICS}/customers/top", limit=1000))["customers"]
        buyers = [row for row in everybody if row["customer_id"].startswith("buyer")]
        quiet = [row for row in buyers if row["days_since_last_purchase"] < 20 and row["total_orders"] > 2]
        assert len(quiet) > 3
        for row in quiet:
            prediction = await predicted(daybook, row["customer_id"])
            assert None not in [prediction[name] for name in FIGURES], prediction["basis"]
            assert prediction["estimated_ltv_cents"] >= row["net_revenue_cents"]
            assert 0 <= prediction["churn_risk_score"] <= 1
            assert prediction["next_purchase_probability"] == pytest.approx(
                1 - prediction["churn_risk_score"]
            )
            assert prediction["next_purchase_predicted_date"] >= TODAY.isoformat()
            assert {prediction["basis"][name]["method"] for name in FIGURES} == {"kaplan-meier"}
            assert all(prediction["basis"][name]["n"] >= 30 for name in FIGURES)


async def test_a_live_contract_is_expected_to_pay_on_its_next_bill_date(in_order: Path) -> None:
    async with running(in_order) as daybook:
        contracts = (await daybook.get("/api/v1/contracts", limit=1000, status="active"))["contracts"]
        assert len(contracts) > 5
        found = 0
        for row in contracts:
            prediction = await predicted(daybook, row["customer_id"])
            assert prediction["next_purchase_predicted_date"] == row["next_bill_date"]
            assert prediction["basis"]["next_purchase_predicted_date"]["method"] == "stated"
            found += (
                prediction["estimated_ltv_cents"] is not None and prediction["churn_risk_score"] is not None
            )
    assert found > 5


def reasons(prediction: dict[str, Any]) -> set[str]:
    """Why there is none of the figures."""
    assert [prediction[name] for name in FIGURES] == [None] * 4
    return {prediction["basis"][name]["reason"] for name in FIGURES}


async def test_a_list_says_of_a_customer_what_their_own_read_says(in_order: Path) -> None:
    async with running(in_order) as daybook:
        listed = [
            row
            for stage in ("at_risk", "churned")
            for row in (await daybook.get(f"{ANALYTICS}/customers/at-risk", stage=stage))["customers"]
        ]
        own = [await daybook.get(f"{ANALYTICS}/customers/{row['customer_id']}/revenue") for row in listed]

    assert [row["churn_risk_score"] for row in listed] == [
        answer["predictions"]["churn_risk_score"] for answer in own
    ]
    assert {row["mrr_cents"] for row in listed} >= {0, 4900}
    assert len({row["churn_risk_score"] for row in listed}) > 3


async def test_of_an_earlier_day_nothing_is_predicted_and_the_reason_is_told(in_order: Path) -> None:
    async with running(in_order) as daybook:
        earlier = await predicted(daybook, "buyer-0", today="2025-11-12")
        euros = await predicted(daybook, "buyer-0", currency="eur")

    (reason,) = reasons(earlier)
    assert reason.startswith("it was learnt on 2025-11-13;")
    (reason,) = reasons(euros)
    assert reason.startswith("nothing is learnt of eur yet")
    assert earlier["learnt"] is euros["learnt"] is None


async def test_of_a_later_day_it_is_predicted_from_what_was_learnt_last(in_order: Path) -> None:
    async with running(in_order) as daybook:
        (row, *_) = (await daybook.get("/api/v1/contracts", status="active"))["contracts"]
        now, later = [
            await predicted(daybook, row["customer_id"], today=day) for day in ("2025-11-13", "2025-11-14")
        ]
        head = await daybook.head()

    assert now["learnt"] == later["learnt"] == {"on": "2025-11-13", "position": head}
    assert later["next_purchase_predicted_date"] == row["next_bill_date"]


async def test_the_backtest_says_how_well_it_would_have_gone(in_order: Path) -> None:
    async with running(in_order) as daybook:
        tested = await daybook.get(f"{ANALYTICS}/predictions/backtest")

    assert tested["day"] == TODAY.isoformat()
    assert tested["cut"] == (TODAY - timedelta(days=tested["hidden_days"])).isoformat()
    assert tested["reason"] is None
    assert tested["churn"]["all"]["n"] > 10


async def test_of_an_account_is_learnt_from_its_own_customers_alone(daybook: Daybook) -> None:
    for number in range(40):
        for days in (200, 150, 100, 10 + number):
            await pays(daybook, f"cus-{number}", str(TODAY - timedelta(days=days)), 900, account="acct_big")
    await pays(daybook, "only", "2025-11-01", 5000, account="acct_small")
    await daybook.catch_up()
    await train(daybook.state.store, TODAY)

    async def spells(account: str | None, who: str) -> Any:
        asked = {"account": account} if account else {}
        basis = (await predicted(daybook, who, **asked))["basis"]["estimated_ltv_cents"]
        tested = await daybook.get(f"{ANALYTICS}/predictions/backtest", **asked)
        alive = tested["churn"]["all"]["n"] + tested["unpredicted"]["n"]
        return basis["n"], alive, basis["reason"]

    assert (await spells("acct_big", "cus-0"))[:2] == (120, 40)
    assert (await spells(None, "only"))[:2] == (41, 40)
    n, alive, reason = await spells("acct_small", "only")
    assert (n, alive) == (None, 0)
    assert "all: 1 spells and 0 events" in reason
    unknown = await daybook.get(f"{ANALYTICS}/predictions/backtest", account="acct_none")
    assert unknown["reason"].startswith("nothing is learnt of usd yet")


async def test_before_anything_is_learnt_every_figure_is_null(daybook: Daybook) -> None:
    await pays(daybook, "cus", "2025-11-01", 5000)
    await daybook.catch_up()

    (reason,) = reasons(await predicted(daybook, "cus"))
    tested = await daybook.get(f"{ANALYTICS}/predictions/backtest")

    assert reason.startswith("nothing is learnt of usd yet")
    assert tested["reason"] == reason
    assert tested["day"] is tested["churn"] is tested["calibration"] is None


async def test_too_little_history_says_how_much_there_was(daybook: Daybook) -> None:
    for day in ("2025-09-01", "2025-10-01"):
        await pays(daybook, "cus", day, 5000)
    await daybook.record("customer.recorded", "2025-09-01T00:00:00Z", customer_id="named", name="Avery")
    await daybook.catch_up()
    await train(daybook.state.store, TODAY)

    prediction, named = await predicted(daybook, "cus"), await predicted(daybook, "named")

    assert all("30 and 10 are needed" in reason for reason in reasons(prediction))
    assert reasons(named) == {"no purchase and no live contract"}


async def test_a_contract_that_pays_less_has_not_ended(daybook: Daybook) -> None:
    for number in ("1", "2", "3"):
        for day, cents in (("2025-01-01", 5000), ("2025-02-01", 3000), ("2025-03-01", 4000)):
            plan = subscription(number, cents, next_bill_at="2025-12-01T00:00:00Z")
            await daybook.record("subscription.recorded", f"{day}T12:00:00Z", **plan)
    await daybook.catch_up()
    await train(daybook.state.store, TODAY)

    prediction = await predicted(daybook, "cust-1")

    assert "all: 3 spells and 0 events" in prediction["basis"]["churn_risk_score"]["reason"]


async def test_it_learns_of_each_currency_and_again_when_the_books_or_the_day_have_changed(
    daybook: Daybook,
) -> None:
    async def learnt(currency: str = "usd") -> Any:
        return (await predicted(daybook, "cus", currency=currency))["learnt"]

    store = daybook.state.store
    await train(store, TODAY)  # of nothing yet
    await pays(daybook, "cus", "2025-09-01", 5000)
    await pays(daybook, "cus", "2025-09-01", 5000, currency="eur", payment_id="other")
    await daybook.catch_up()
    assert await learnt() is None
    await train(store, TODAY)
    assert await learnt() == await learnt("eur") == {"on": "2025-11-13", "position": 2}

    await pays(daybook, "cus", "2025-10-01", 5000)
    await daybook.catch_up()
    # what was learnt of older rows stands until it is learnt anew
    assert await learnt() == {"on": "2025-11-13", "position": 2}
    await train(store, TODAY)
    assert await learnt() == {"on": "2025-11-13", "position": 3}

    await train(store, TODAY + timedelta(days=1))
    (reason,) = reasons(await predicted(daybook, "cus"))
    assert reason.startswith("it was learnt on 2025-11-14;")
