"""What the rulebook recommends, over HTTP: by Daybook's own rules, and by an operator's file, old or new."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.posted_books import filled, pays
from tests.support.running import NOW, Clock, Daybook, running
from tests.support.stores import NewDataDir

ANALYTICS = "/api/payment/analytics"
PAID = {"whale": 1_000_000, "high": 100_000, "medium": 99_999, "least": 10_000, "low": 9_999}
OF_BEFORE = """
[[opportunities]]
rule = "say-hello"
kind = "offer"
text = "Say hello to {customer}"
when = { segments = ["whale"] }
"""
OF_NOW = """
[treatment]
whale = "Lunch"

[[opportunities]]
rule = "seats"
kind = "upsell"
text = "More seats"
type = "seats"
potential_revenue = "19.99"
probability = 0.5
"""


@pytest.fixture(scope="module")
def shop(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Customers of each value, who all bought today; and one who has bought six times."""

    async def post(daybook: Daybook) -> None:
        for who, cents in PAID.items():
            await pays(daybook, who, "2025-11-13", cents)
        for day in range(8, 14):
            await pays(daybook, "often", f"2025-11-{day:02d}", 5_000)

    return filled(new_data_dir(tmp_path_factory.mktemp("shop") / "data"), post, NOW)


async def recommended(daybook: Daybook, who: str, **query: Any) -> dict[str, Any]:
    return await daybook.get(f"{ANALYTICS}/customers/{who}/opportunities", **query)


@pytest.mark.parametrize(
    ("who", "offer_type", "discount"),
    [
        ("whale", "exclusive_early_access", 20),
        ("high", "exclusive_early_access", 20),
        ("medium", "loyalty_discount", 15),
        ("least", "loyalty_discount", 15),
        ("low", "first_offer", 10),
    ],
)
async def test_each_value_has_its_offer(shop: Path, who: str, offer_type: str, discount: int) -> None:
    async with running(shop) as daybook:
        offers = [row for row in (await recommended(daybook, who))["opportunities"] if row["offer_type"]]

    (offer,) = offers
    assert (offer["kind"], offer["offer_type"], offer["discount_percentage"]) == (
        "offer",
        offer_type,
        discount,
    )
    assert offer["message"]
    assert offer["rule"]


async def test_an_upgrade_is_offered_from_the_sixth_order_on(shop: Path) -> None:
    async with running(shop) as daybook:
        six = await recommended(daybook, "often")
        five = await recommended(daybook, "often", today="2025-11-12")

    upsells = [[row for row in answer["opportunities"] if row["type"]] for answer in (five, six)]
    assert upsells[0] == []
    (upsell,) = upsells[1]
    assert upsell["rule"] == "premium-upgrade-for-medium-value"
    assert (upsell["type"], upsell["potential_revenue_cents"], upsell["probability"]) == (
        "premium_upgrade",
        50_000,
        0.65,
    )


async def test_a_customer_has_a_treatment_and_a_focus_wherever_their_classes_are(shop: Path) -> None:
    async with running(shop) as daybook:
        offered = await recommended(daybook, "low")
        revenue = await daybook.get(f"{ANALYTICS}/customers/low/revenue")
        segments = (await daybook.get(f"{ANALYTICS}/distribution"))["segments"]

    assert offered["treatment"] == revenue["treatment"] == segments[-1]["treatment"]
    assert offered["focus"] == revenue["focus"] == "Onboarding: lead them to a second order"
    assert [action["rule"] for action in offered["actions"]] == ["welcome-low-value-new"]
    assert revenue["predictions"]["recommended_actions"] == [
        "Welcome them: a guide to what they bought, and a reason for a second order (welcome-low-value-new)"
    ]


async def test_a_file_of_before_offers_what_it_did(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(OF_BEFORE)
    async with running(shop, Clock(NOW), rulebook=tmp_path / "rules.toml") as daybook:
        whale, low = [await recommended(daybook, who) for who in ("whale", "low")]

    (offer,) = whale["opportunities"]
    assert (offer["rule"], offer["text"]) == ("say-hello", "Say hello to whale")
    assert {offer[name] for name in ("offer_type", "discount_percentage", "message", "type")} == {None}
    assert low["opportunities"] == low["actions"] == []
    assert whale["treatment"]


async def test_a_file_says_what_an_upsell_brings_in_units_of_the_currency(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text(OF_NOW)
    async with running(shop, Clock(NOW), rulebook=tmp_path / "rules.toml") as daybook:
        whale = await recommended(daybook, "whale")

    (upsell,) = whale["opportunities"]
    assert (upsell["potential_revenue_cents"], upsell["probability"]) == (1_999, 0.5)
    assert whale["treatment"] == "Lunch"
