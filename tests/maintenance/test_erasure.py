"""A customer is forgotten: no figure moves, the chain holds, and nothing that they said is left anywhere."""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.bootstrap import existing_ledger, prepare
from service.core.errors import NotFound, ParameterError
from service.maintenance.erasure import erase, make_erasure_event
from service.verify import verify_all, verify_chain
from tests.support.postgres import PostgresServer
from tests.support.running import Daybook, running, settings_for
from tests.support.senders import MX, STRIPE, payment, stripe_event
from tests.support.stores import EACH_STORE

STORES = EACH_STORE

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


@pytest.fixture
async def daybook(data_dir: Path) -> AsyncIterator[Daybook]:
    async with running(data_dir) as daybook:
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
        events: list[tuple[str, dict[str, Any]]] = [
            ("customer.created", {"object": "customer", **who}),
            ("customer.updated", {"object": "customer", **who, "address": bill["address"]}),
            ("customer.subscription.created", subscription(key)),
            ("charge.succeeded", charge(key, billing_details=bill)),
            ("refund.created", refund(key, destination_details={"card": bill})),
            ("payment_method.attached", {"id": f"pm_{key}", "customer": key, "billing_details": bill}),
            ("invoice.paid", {"id": f"in_{key}", "customer": key, "customer_email": who["email"]}),
        ]
        for turn, (kind, thing) in enumerate(events):
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
        "cancellation_details": {"reason": "cancellation_requested", "comment": "I leave Example Lane"},
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
    event = await make_erasure_event(state.ledger, customer, None, None, daybook.clock())
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
    """A read's answer without names and their order, and without what says how far the ledger is."""
    if isinstance(document, dict):
        return {
            key: nameless(value)
            for key, value in document.items()
            if key not in ("meta", "customer_name", "customer_email", "predictions")
        }
    if isinstance(document, list):
        found = [nameless(value) for value in document]
        return sorted(found, key=str)
    return "a name" if document in ("Ada Example", "cus_ada") else document


async def figures(daybook: Daybook) -> list[Any]:
    return [nameless(await daybook.get(path)) for path in READS]


async def test_after_an_erasure_no_word_is_left_and_no_figure_moves(
    daybook: Daybook, server: PostgresServer | None
) -> None:
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


async def test_deliveries_of_the_erased_customer_are_gone_and_no_others(daybook: Daybook) -> None:
    await forget(daybook)

    said = {
        cause: (await daybook.ask(f"/api/v1/ledger/causes/stripe:evt_{cause}")).status_code
        for cause in ("0_0", "0_2", "0_3", "0_4", "0_5", "1_0", "1_2", "1_3", "1_4", "1_5")
    }
    assert said == {cause: 410 if cause.startswith("0") else 200 for cause in said}
    async with daybook.state.ledger.reading() as reader:
        bodies = [row["body"] for row in await reader.quarantined_deliveries(0, 10)]
    assert [body is None for body in bodies] == [True, False]


async def test_a_delivery_of_an_erased_customer_that_comes_later_is_never_readable(
    daybook: Daybook, server: PostgresServer | None
) -> None:
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


async def test_an_erasure_killed_after_its_event_is_finished_by_the_next(
    daybook: Daybook, server: PostgresServer | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.maintenance.erasure._advance_books", killed)
    with pytest.raises(KeyboardInterrupt):
        await forget(daybook)
    assert left(daybook, server)
    monkeypatch.undo()

    await forget(daybook)

    assert left(daybook, server) == {}


async def killed(*_: Any) -> None:
    raise KeyboardInterrupt


async def test_a_customer_whom_the_ledger_does_not_know_can_not_be_erased(daybook: Daybook) -> None:
    with pytest.raises(NotFound, match="cus_eve"):
        await make_erasure_event(daybook.state.ledger, "cus_eve", None, None, daybook.clock())


async def test_of_several_customers_of_one_id_one_must_be_named(daybook: Daybook) -> None:
    for account in ("north", "south"):
        await daybook.record(
            "customer.recorded",
            "2025-11-01T00:00:00Z",
            account=account,
            customer_id="c-7",
            name="Eve Example",
        )
    ledger, now = daybook.state.ledger, daybook.clock()

    with pytest.raises(ParameterError, match=r"standard.acme north, standard.acme south"):
        await make_erasure_event(ledger, "c-7", None, None, now)
    assert (await make_erasure_event(ledger, "c-7", "standard.acme", "south", now)).account == "south"


async def test_a_customer_told_of_with_and_without_an_account_is_erased_in_both(daybook: Daybook) -> None:
    # given an event that named no account until another endpoint told it
    own = stripe_event(
        "customer.updated", {"object": "customer", "id": "cus_kim", "name": "Kim Example"}, event_id="evt_kim"
    )
    await daybook.post(STRIPE, own)
    await daybook.post(STRIPE, {**own, "context": "acct_9"})

    await forget(daybook, "cus_kim")

    for position in range(1, await daybook.head() + 1):
        answer = await daybook.ask(f"/api/v1/ledger/events/{position}")
        assert answer.status_code == 410 or "Kim Example" not in answer.text
    assert await verify_chain(daybook.state.ledger) == await daybook.head()


async def test_an_event_that_names_no_customer_goes_with_its_invoice_or_payment(daybook: Daybook) -> None:
    # given what only says whose it is by another thing, or in another way
    amounts = {"status": "open", "currency": "usd", "amount_due": 500, "created_at": "2025-11-01T00:00:00Z"}
    at = "2025-11-01T00:00:00Z"
    await daybook.record("customer.recorded", at, customer_id="ada", name="Ada Example")
    await daybook.record("invoice.recorded", at, invoice_id="in_1", customer_id="ada", **amounts)
    credit = await daybook.record(
        "credit_note.recorded", at, credit_note_id="cn_1", invoice_id="in_1", currency="usd", amount=5
    )
    await forget(daybook, "ada")
    assert (await daybook.ask(f"/api/v1/ledger/causes/{credit}")).status_code == 410

    expanded = {"id": "pm_2", "customer": {"id": "cus_ada", "name": "Ada Example"}}
    event = stripe_event("payment_method.updated", expanded, event_id="evt_expanded")
    assert (await daybook.post(STRIPE, event)).status_code == 200
    await forget(daybook)
    assert (await daybook.ask("/api/v1/ledger/causes/stripe:evt_expanded")).status_code == 410

    payload = {"eventType": "CustomerUpdated", "merchantId": 1, "customerId": 7}
    position = (await daybook.post(MX, payload)).json()["position"]
    await forget(daybook, "7")
    async with daybook.state.ledger.reading() as reader:
        (row,) = await reader.deliveries(position - 1, 1)
    assert row["body"] is None


async def test_a_customer_of_mx_merchant_is_erased_under_the_name_with_all_numbers(daybook: Daybook) -> None:
    # given one customer, known by name, whom a payment and an event of no use tell of
    told_of_others = await daybook.head()
    for key, number in (("501", "77"), ("502", "78")):
        await daybook.post(MX, payment(key, 900, customer="Kim Sample", customerNumber=number))
    unused = {"eventType": "CustomerUpdated", "merchantId": "1000000001", "customerId": 7}
    await daybook.post(MX, {**unused, "customerName": "Kim Sample"})
    await daybook.catch_up()
    (kim,) = (
        row
        for row in (await daybook.get("/api/payment/analytics/customers/top"))["customers"]
        if row["customer_name"] == "Kim Sample"
    )

    await forget(daybook, kim["customer_id"])

    async with daybook.state.ledger.reading() as reader:
        rows = await reader.deliveries(told_of_others, 100)
    assert [row["body"] for row in rows[:3]] == [None] * 3


async def test_a_dispute_of_an_erased_customer_that_comes_later_is_never_readable(daybook: Daybook) -> None:
    await forget(daybook)

    for customer, known in (("cus_ada", True), ("cus_ada", False), ("cus_bob", True)):
        key = customer if known else "new"
        dispute = {
            **refund(key),
            "id": f"dp_{key}",
            "status": "lost",
            "evidence": {"customer_name": "A. Name"},
        }
        event = stripe_event("charge.dispute.closed", dispute, event_id=f"evt_dispute_{key}")
        assert (await daybook.post(STRIPE, event)).status_code == 200
    late = {**charge("new"), "customer": "cus_ada"}
    assert (await daybook.post(STRIPE, stripe_event("charge.succeeded", late))).status_code == 200

    said = {
        key: (await daybook.ask(f"/api/v1/ledger/causes/stripe:evt_dispute_{key}")).status_code
        for key in ("cus_ada", "new", "cus_bob")
    }
    assert said == {"cus_ada": 410, "new": 410, "cus_bob": 200}


async def test_in_quarantine_only_deliveries_about_the_erased_customer_go(daybook: Daybook) -> None:
    # given customers whose names are words, or are written in other ways
    for key, name in (("cus_in", "in"), ("cus_zoe", "Zoë O'Sample")):
        payload = stripe_event(
            "customer.created", {"object": "customer", "id": key, "name": name}, event_id=f"evt_{key}"
        )
        assert (await daybook.post(STRIPE, payload)).status_code == 200
    object_ = rb'"object":{"customer_name":"Mrs Zo\u00eb O\u0027Sample, in London"}'
    bodies = [
        b'{"id":"evt_a","type":"invoice.paid","created":1763028000,"data":{' + object_ + b"}}",
        b"customer=cus_zoe&why=none",
        b"name=Zo%C3%AB+O%27Sample",
        b'{"id":"evt_b","type":"invoice.paid","created":1763028000,"data":{"object":{"city":"Inverness"}}}',
    ]
    waiting = [row["id"] for row in await quarantined(daybook)]
    for body in bodies:
        await daybook.post(STRIPE, body)

    async def kept() -> list[bool]:
        return [row["body"] is not None for row in await quarantined(daybook) if row["id"] not in waiting]

    await forget(daybook, "cus_in")
    assert await kept() == [True, True, True, True]
    await forget(daybook, "cus_zoe")
    assert await kept() == [False, False, False, True]


async def quarantined(daybook: Daybook) -> list[dict[str, Any]]:
    async with daybook.state.ledger.reading() as reader:
        return await reader.quarantined_deliveries(0, 100)


async def test_tables_that_are_not_ours_stay(daybook: Daybook, server: PostgresServer | None) -> None:
    if server is None:
        pytest.skip("a file is all ours")
    database = str(daybook.state.settings.database_url).rpartition("/")[2]
    columns = "processor text, account text, customer_id text, name text"
    server.sql(f"CREATE TABLE public.customers ({columns})", database)
    server.sql("INSERT INTO public.customers VALUES ('stripe', '', 'cus_ada', 'Another')", database)

    await forget(daybook)

    assert server.sql("SELECT name FROM public.customers", database) == "Another"


async def test_books_that_were_deleted_keep_nobody_from_being_erased(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    prepare(settings)
    async with running(tmp_path) as daybook:
        await tell(daybook)
    for name in os.listdir(tmp_path):
        if name.startswith("books.db"):
            os.remove(tmp_path / name)

    async with existing_ledger(settings) as ledger:
        event = await make_erasure_event(ledger, "cus_ada", None, None, daybook.clock())
        erased = await erase(settings, ledger, event, daybook.clock)

    await verify_all(settings)  # the books are there again
    assert erased.customer_id == "cus_ada"
