"""Bodies nested as deep as the parser goes, or deeper: kept and answered, never an error of the service."""

import pytest

from tests.support.running import Daybook
from tests.support.senders import MX, STANDARD, STRIPE, Sender

DEPTHS = [10, *range(860, 1_010), 1_100, 5_000, 100_000]


def nested(depth: int, opening: str, closing: str) -> bytes:
    body = f"{opening * depth}1{closing * depth}"
    event = f'"id": "evt_{depth}", "type": "ping", "created": 1763028000, "data": {{"object": {body}}}'
    return f"{{{event}}}".encode()


@pytest.mark.parametrize("sender", [STRIPE, STANDARD, MX], ids=["stripe", "standard", "mxmerchant"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
async def test_a_deeply_nested_body_is_kept_or_refused(
    daybook: Daybook, sender: Sender, opening: str, closing: str
) -> None:
    answers = [await daybook.post(sender, nested(depth, opening, closing)) for depth in DEPTHS]
    assert {answer.status_code for answer in answers} <= {200, 400}
    quarantined = await daybook.get("/api/v1/quarantine", limit=500)
    kept = await daybook.head() + len(quarantined["quarantine"])
    assert kept == len(DEPTHS)
