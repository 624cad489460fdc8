"""The demo's month and MRR, number by number, down to signed bytes that verify again."""

from pathlib import Path
from typing import Any

import pytest

from service.demo import posts
from tests.support.posted_books import DEMO
from tests.support.running import running
from tests.web.figures import figures_of

ON = "2025-11-30"
STRIPE = {"account": posts.STRIPE_ACCOUNT}
NOVEMBER = {"year": 2025, "month": 11}
# No money has moved yet, and nothing bills in the first week.
NOTHING = [
    "/summary/collected_cents",
    *(f"/weeks/0/{name}" for name in ("customers", "payments", "total_cents")),
]


@pytest.mark.parametrize(
    ("name", "path", "query"),
    [
        ("month-detail", "/api/v1/revenue/month-detail", NOVEMBER | STRIPE),
        ("mrr", "/api/v1/mrr", {}),
    ],
)
async def test_every_number_comes_from_signed_bytes_that_verify(
    demo: Path, name: str, path: str, query: dict[str, Any]
) -> None:
    unmoved = []
    async with running(demo, **DEMO) as daybook:
        document = await daybook.get(path, today=ON, **query)
        for pointer, value in figures_of(document):
            found = await daybook.get("/api/v1/explain", figure=name + pointer, today=ON, **query)

            assert found["value"] == value, pointer
            assert sum(row["contributes"] for row in found["rows"]) == found["sum"], pointer
            assert found["adds_up"] is (None if found["terms"] else True), pointer
            checks = [event["delivery"]["verified"] for event in found["events"]]
            assert all(check is True for check in checks), pointer
            if not checks:
                unmoved.append(pointer)
                assert value == 0

    assert unmoved == (NOTHING if name == "month-detail" else [])


async def test_what_the_demo_does_not_sign_does_not_verify(demo: Path) -> None:
    async with running(demo, stripe_webhook_secrets="whsec_another_of_the_tests") as daybook:
        found = await daybook.get(
            "/api/v1/explain", figure="month-detail/payments/0/amount_cents", today=ON, **NOVEMBER, **STRIPE
        )

    (event,) = found["events"]
    assert event["delivery"]["verified"] is None
    assert event["delivery"]["why"] == "no secret that is configured now made this signature"
