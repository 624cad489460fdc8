"""Signed deliveries that were changed at random: each gets an honest answer, and the books still add up.

More of them: `DAYBOOK_MUTATIONS=20000 pytest tests/attacks/test_mutations.py`.
"""

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from service.books.engine import Engine
from service.verify import verify_chain, verify_replay, verify_totals
from tests.handlers.deliveries import FAMILIES, STRIPE
from tests.support.paths import FIXTURES
from tests.support.running import Daybook
from tests.support.senders import MX, MX_TOKEN, STANDARD, Sender, subscription
from tests.support.senders import STRIPE as STRIPE_SENDER

MUTATIONS = int(os.environ.get("DAYBOOK_MUTATIONS", "2000"))
SEED = 16

ODD: list[Callable[[random.Random], Any]] = [
    lambda _: None,
    lambda _: True,
    lambda _: "",
    lambda _: [],
    lambda _: {},
    lambda _: "\x00",
    lambda _: "\ud800",
    lambda _: "＝cmd|' /C calc'!A0",
    lambda _: "<script>alert(1)</script>",
    lambda _: "x" * 700,
    lambda _: float("1e308"),
    lambda _: -0.0,
    lambda _: 0.1 + 0.2,
    lambda chance: chance.choice((-1, 0, 1, 2**31, 2**53 + 1, 2**63, 10**30)),
    lambda chance: chance.choice(("1e400", "NaN", "-5", "١٢", "9" * 400, "0x1F", " 1", "1_000")),
    lambda chance: chance.choice(("month", "decade", "USD", "zzz", "paid", "acct_b", "9999-12-31T23:59:60Z")),
    lambda chance: [[]] * chance.choice((1, 2_000)),
]


def deliveries() -> list[tuple[Sender, Any]]:
    """Every fixture of each processor, and its sender."""
    stripe = [path for family in FAMILIES for path in sorted((STRIPE / family).glob("*.json"))]
    found = [(STRIPE_SENDER, json.loads(path.read_bytes())) for path in stripe]
    for name in ("PaymentSuccess", "PaymentFail", "RefundCreated", "Chargeback"):
        notification = json.loads((FIXTURES / f"mxmerchant/{name}.json").read_bytes())
        found += [(MX, notification), (MX_TOKEN, notification)]
    in_house = {"type": "subscription.recorded", "occurred_at": "2025-11-01T00:00:00Z"}
    return [*found, (STANDARD, {**in_house, "data": subscription("1", 4900)})]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a document: what holds it, and the key or index there."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def mutate(document: Any, chance: random.Random) -> bytes:
    """A document with one to four changes, as bytes, which may be changed, too."""
    document = deepcopy(document)
    for _ in range(chance.randint(1, 4)):
        holder, key = chance.choice(places(document) or [([document], 0)])
        match chance.randrange(4):
            case 0:
                holder[key] = chance.choice(ODD)(chance)
            case 1:
                del holder[key]
            case 2:
                holder[key] = [holder[key]] * chance.choice((2, 40))
            case _ if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = holder[key] * chance.choice((-1, 10, 1_000_000, 10**12))
            case _:
                holder[key] = {"id": holder[key], "object": holder[key]}
    body = bytearray(json.dumps(document).encode())
    if chance.random() < 0.15:
        body[chance.randrange(len(body))] = chance.randrange(256)
    if chance.random() < 0.03:
        del body[chance.randrange(len(body)) :]
    return bytes(body)


@pytest.mark.timeout(3600)
async def test_no_mutation_breaks_anything(daybook: Daybook) -> None:
    chance, samples, answers = random.Random(SEED), deliveries(), Counter[int]()
    secrets = [sender.secret for sender in (STRIPE_SENDER, MX, MX_TOKEN, STANDARD)]
    for number in range(MUTATIONS):
        sender, document = chance.choice(samples)
        if isinstance(document, dict) and "id" in document and chance.random() < 0.8:
            document = {**document, "id": f"evt_{number}"}
        body = mutate(document, chance)

        answer = await daybook.post(sender, body)

        answers[answer.status_code] += 1
        assert answer.status_code in (200, 400, 413), (answer.text, body)
        assert not any(secret in answer.text for secret in secrets)
        assert "Traceback" not in answer.text

    await daybook.catch_up()
    store, ledger = daybook.state.store, daybook.state.ledger
    assert not await Engine(ledger, store, daybook.clock).is_behind()
    await verify_chain(ledger)
    await verify_replay(ledger, store)
    await verify_totals(store)
    for path in ("mrr", "contracts", "revenue/month-detail", "revenue/monthly-totals", "upcoming"):
        found = await daybook.get(f"/api/v1/{path}")
        assert found["meta"]["lag_events"] == 0
        assert found["meta"]["set_aside"] == 0
    assert answers[200] > answers[400] > 0
