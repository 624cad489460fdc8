"""A customer is forgotten: no figure moves, the chain holds, and nothing that they said is left anywhere."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.core.errors import NotFound, ParameterError
from service.erasure import erase, find
from service.stores import prepare
from service.verify import verify_all
from tests.postgres import PostgresServer
from tests.stores import prepared_database
from tests.web.running import Daybook, running, settings_for
from tests.web.senders import STRIPE, stripe_event

ADA = {"id": "cus_ada", "name": "Ada Example", "email": "ada@example.test"}
BOB = {"id": "cus_bob", "name": "Bob Sample", "email": "bob@sample.test"}
WORDS = (b"Ada Example", b"ada@example.test", b"Example Lane")  # of Ada's, and of nobody else's
READS = (
    "/api/v1/revenue/month-detail?year=2025&month=11",
    "/api/v1/mrr",
    "/api/v1/upcoming",
    "/api/v1/revenue/monthly-totals?from=2025-11&to=2025-11",
    "/api/payment/analytics/customers/cus_ada/revenue",
)


@pytest.fixture(params=["sqlite", "postgresql"])
async def daybook(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Daybook]:
    if request.param == "postgresql":
        (tmp_path / "database_url").write_text(prepared_database(request.getfixturevalue("postgres")))
    prepare(settings_for(tmp_path))
    async with running(tmp_path) as daybook:
        await tell(daybook)
        yield daybook


async def tell(daybook: Daybook) -> None:
    """What Stripe tells of two customers; some of it names none, and some can't be read."""
    for number, who in enumerate((ADA, BOB)):
        key = who["id"]
        bill = {
            "name": who["name"],
            "email": who["email"],
            "address": {"line1": f"{who['name'][:3]} Example Lane"},
        }
        told: list[tuple[str, dict[str, Any]]] = [
            ("customer.created", {"object": "customer", **who}),
            ("customer.updated", {"object": "customer", **who, "address": bill["address"]}),
            ("customer.subscription.created", subscription(key)),
            ("charge.succeeded", charge(key, billing_details=bill)),
            ("refund.created", refund(key, destination_details={"card": bill})),
            ("payment_method.attached", {"id": f"pm_{key}", "customer": key, "billing_details": bill}),
            ("invoice.paid", {"id": f"in_{key}", "customer": key, "customer_email": who["email"]}),
        ]
        for turn, (kind, thing) in enumerate(told):
            event = stripe_event(kind, thing, event_id=f"evt_{number}_{turn}")
            assert (await daybook.post(STRIPE, event)).status_code == 200
    assert await daybook.quarantine() == {("stripe", "unreadable"): 2}
    await daybook.catch_up()


def subscription(customer: str) -> dict[str, Any]:
    price = {"id": "price_1", "currency": "usd", "unit_amount": 1000, "recurring": {"interval": "month"}}
    item = {"id": "si_1", "price": price, "quantity": 1, "current_period_end": 1763950000}
    return {
        "id": f"sub_{customer}",
        "customer": customer,
        "status": "active",
        "currency": "usd",
        "items": {"data": [item]},
        "discounts": [],
    }


def charge(customer: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"ch_{customer}",
        "payment_intent": f"pi_{customer}",
        "customer": customer,
        "amount": 2500,
        "amount_refunded": 0,
        "currency": "usd",
        "status": "succeeded",
        "paid": True,
        "captured": True,
        "created": 1763028000,
        **more,
    }


def refund(customer: str, **more: Any) -> dict[str, Any]:
    """It names its payment only."""
    return {
        "id": f"re_{customer}",
        "payment_intent": f"pi_{customer}",
        "charge": f"ch_{customer}",
        "amount": 500,
        "currency": "usd",
        "status": "succeeded",
        "created": 1763028000,
        **more,
    }


async def forget(daybook: Daybook, customer: str = "cus_ada") -> int:
    state = daybook.state
    event = await find(state.ledger, customer, None, None, daybook.clock())
    return (await erase(state.settings, state.ledger, event, daybook.clock)).position


def left(daybook: Daybook, server: PostgresServer | None) -> dict[str, set[bytes]]:
    """Which of Ada's words are where: in each file, or each table."""
    if server is None:
        texts = {str(p): p.read_bytes() for p in daybook.state.settings.data_dir.rglob("*") if p.is_file()}
    else:
        database = str(daybook.state.settings.database_url).rpartition("/")[2]
        listed = (
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'daybook%'"
        )
        texts = {
            table: server.sql(f"SET bytea_output = 'escape'; SELECT * FROM {table}", database).encode()
            for table in server.sql(listed, database).splitlines()
        }
    found = {name: {word for word in WORDS if word in text} for name, text in texts.items()}
    return {name: words for name, words in found.items() if words}


@pytest.fixture
def server(daybook: Daybook, request: pytest.FixtureRequest) -> PostgresServer | None:
    return request.getfixturevalue("postgres") if daybook.state.settings.database_url else None


def nameless(document: Any) -> Any:
    """A read's answer without names, and without what says how far the ledger is."""
    if isinstance(document, dict):
        return {
            key: nameless(value)
            for key, value in document.items()
            if key not in ("meta", "customer_name", "predictions")
        }
    if isinstance(document, list):
        found = [nameless(value) for value in document]
        return sorted(found) if found and isinstance(found[0], str) else found
    return "a name" if document in ("Ada Example", "cus_ada") else document


async def figures(daybook: Daybook) -> list[Any]:
    return [nameless(await daybook.get(path)) for path in READS]


async def test_no_word_is_left_and_no_figure_moves(daybook: Daybook, server: PostgresServer | None) -> None:
    # given that names are read, and nothing personal is in the clear in the ledger
    before = await figures(daybook)
    assert "Ada Example" in (await daybook.ask(READS[0])).text
    assert before[1]["mrr_cents"] == 2_000
    held = {Path(name).name.partition(".db")[0].rpartition(".")[2] for name in left(daybook, server)}
    assert held == ({"books"} if server is None else {"customers"})

    # when she is erased
    position = await forget(daybook)

    # then nothing of her words is anywhere, and every figure is what it was
    assert left(daybook, server) == {}
    assert await figures(daybook) == before
    assert "Bob Sample" in (await daybook.ask(READS[0])).text
    assert await daybook.head() == position


async def test_the_chain_holds_and_a_replay_gives_the_same(daybook: Daybook) -> None:
    await forget(daybook)

    await verify_all(daybook.state.settings)  # raises at the first fault


async def test_her_deliveries_are_gone_and_nobody_elses(daybook: Daybook) -> None:
    await forget(daybook)

    said = {
        cause: (await daybook.ask(f"/api/v1/ledger/causes/stripe:evt_{cause}")).status_code
        for cause in ("0_0", "0_2", "0_3", "0_4", "0_5", "1_0", "1_2", "1_3", "1_4", "1_5")
    }
    assert said == {cause: 410 if cause.startswith("0") else 200 for cause in said}
    async with daybook.state.ledger.reading() as reader:
        bodies = [row["body"] for row in await reader.quarantine(0, 10)]
    assert [body is None for body in bodies] == [True, False]


async def test_what_comes_later_is_never_to_be_read(daybook: Daybook, server: PostgresServer | None) -> None:
    await forget(daybook)

    late = stripe_event("customer.updated", {"object": "customer", **ADA}, event_id="evt_late")
    assert (await daybook.post(STRIPE, late)).status_code == 200
    await daybook.catch_up()

    assert left(daybook, server) == {}
    assert (await daybook.ask("/api/v1/ledger/causes/stripe:evt_late")).status_code == 410
    assert "Ada" not in (await daybook.ask(READS[0])).text


async def test_erasing_again_does_no_harm(daybook: Daybook) -> None:
    first = await forget(daybook)

    assert await forget(daybook) == first
    assert await daybook.head() == first


async def test_one_killed_after_its_event_is_gone_on_with(
    daybook: Daybook, server: PostgresServer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.erasure._take_in", killed)
    with pytest.raises(KeyboardInterrupt):
        await forget(daybook)
    assert left(daybook, server)
    monkeypatch.undo()

    await forget(daybook)

    assert left(daybook, server) == {}


async def killed(*_: Any) -> None:
    raise KeyboardInterrupt


async def test_whom_the_ledger_does_not_know_can_not_be_erased(daybook: Daybook) -> None:
    with pytest.raises(NotFound, match="cus_eve"):
        await find(daybook.state.ledger, "cus_eve", None, None, daybook.clock())


async def test_of_several_of_one_id_one_must_be_named(daybook: Daybook) -> None:
    account = stripe_event(
        "customer.created", {"object": "customer", **ADA}, event_id="evt_other", account="acct_1"
    )
    await daybook.post(STRIPE, account)
    ledger, now = daybook.state.ledger, daybook.clock()

    with pytest.raises(ParameterError, match="stripe, stripe acct_1"):
        await find(ledger, "cus_ada", None, None, now)
    assert (await find(ledger, "cus_ada", "stripe", "acct_1", now)).account == "acct_1"
