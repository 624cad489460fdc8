"""Random lives, as snapshot events, as thin events and as both: the same books, whatever comes first."""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from handlers import stripe
from projections import BOOKS
from service.books import tables
from service.core.delivery import Proof
from service.intake.translation import read_delivery
from service.sync.thin_events import ThinFetcher
from service.verify import verify_chain
from service.verify.replay import digests
from tests.support.effort import examples
from tests.support.modes import live
from tests.support.senders import stripe_charge, stripe_invoice, stripe_refund, stripe_subscription
from tests.support.stripe_api import Shop, StripeApi, event, serve, thin_event
from tests.support.temporary_books import NOW, TemporaryBooks, new_books
from tests.support.thin_events import fetch, open_fetcher, pending

ACCOUNTS = ("", "acct_1")
WAYS = ("snapshot", "thin", "thin without its snapshot's id", "both")
LATE = "thin, of an event that is kept no longer"

Life = list[tuple[str, dict[str, Any]]]  # what happens: the types of events, with their objects
Told = list[tuple[str, dict[str, Any], str]]  # snapshot events, with their accounts and how they are told


def at(day: int) -> datetime:
    return datetime(2025, 9, day, 12, tzinfo=UTC)


@st.composite
def contracts(draw: Any, key: str) -> Life:
    """A subscription that begins, changes and may end."""
    amounts = draw(st.lists(st.integers(100, 9_000), min_size=1, max_size=3))
    states = [stripe_subscription(key, cents) for cents in amounts]
    kinds = ["customer.subscription.created", *["customer.subscription.updated"] * (len(states) - 1)]
    life = list(zip(kinds, states, strict=True))
    if draw(st.booleans()):
        ended = {**states[-1], "status": "canceled", "ended_at": int(at(20).timestamp())}
        life.append(("customer.subscription.deleted", ended))
    return life


@st.composite
def bills(draw: Any, key: str) -> Life:
    """An invoice with its charge, which may be refunded."""
    cents, who = draw(st.integers(100, 9_000)), f"cus_{key}"
    charge = stripe_charge(key, cents, at(3), customer=who)
    life: Life = [
        ("invoice.paid", stripe_invoice(key, cents, at(3), [], customer=who, charge=charge["id"])),
        ("charge.succeeded", charge),
    ]
    if draw(st.booleans()):
        given_back = {"amount_refunded": cents, "refunded": True}
        life.append(("charge.refunded", charge | given_back))
        life.append(("refund.created", stripe_refund(key, cents, at(5), charge=charge["id"])))
    return life


@st.composite
def told(draw: Any, *ways: str) -> Told:
    """Lives in two accounts; several events may be of one second."""
    events: Told = []
    for key in ("1", "2")[: draw(st.integers(1, 2))]:
        account = draw(st.sampled_from(ACCOUNTS))
        second = int(at(1).timestamp())
        for kind, thing in draw(contracts(key)) + draw(bills(key)):
            second += draw(st.integers(0, 2))
            snapshot = event(len(events) + 1, kind, thing, second, account or None)
            events.append((account, snapshot, draw(st.sampled_from(ways or WAYS))))
    return events


def deliveries(events: Told) -> list[dict[str, Any]]:
    """What Stripe posts of these events."""
    bodies = []
    for number, (account, snapshot, way) in enumerate(events, start=1):
        names_snapshot = way != "thin without its snapshot's id"
        thin = thin_event(number, snapshot, names_snapshot=names_snapshot, context=account or None)
        bodies += {"snapshot": [snapshot], "both": [snapshot, thin]}.get(way, [thin])
    return bodies


def open_shops(api: StripeApi, events: Told) -> None:
    """What Stripe's API has: the objects as the last event left them, and the events that it still keeps."""
    api.shops = {account: Shop() for account in ACCOUNTS}
    for number, (account, snapshot, way) in enumerate(events, start=1):
        shop, thing = api.shops[account], snapshot["data"]["object"]
        shop.objects[thing["id"]] = thing
        if way != LATE:
            shop.events.append({name: value for name, value in snapshot.items() if name != "account"})
            whole = thin_event(number, snapshot, context=account or None)
            shop.thin_events[whole["id"]] = whole


async def deliver(books: TemporaryBooks, fetcher: ThinFetcher, bodies: Sequence[Any], rng: Random) -> None:
    """Deliver in batches of any size; the fetcher and the books may catch up in between."""
    proof = Proof(processor="stripe", method="stripe-signature", received_at=NOW)
    left = [read_delivery(stripe.PROCESSOR, b"{}", json.dumps(body).encode(), proof, live) for body in bodies]
    while left:
        size = rng.randint(1, len(left))
        outcomes = await books.ledger.append(left[:size], NOW)
        assert not any(outcome.conflict or outcome.quarantined for outcome in outcomes)
        left = left[size:]
        if rng.random() < 0.5:
            await fetch(fetcher)
        if rng.random() < 0.5:
            await books.advance()
    await fetch(fetcher)
    await books.advance()
    assert await pending(books.ledger) == 0
    assert await verify_chain(books.ledger)
    async with books.ledger.reading() as reader:
        assert await reader.count_quarantined() == {}


async def whole_digests(books: TemporaryBooks) -> dict[str, str]:
    async with books.store() as store:
        return await digests(store)


async def figures(books: TemporaryBooks) -> str:
    """The digest of all columns of all rows but `trust` and `causes`, also those within other columns."""
    rows = []
    async with books.store() as store, store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        for book in BOOKS:
            for row_type in tables.row_types(book):
                table = tables.ROWS[row_type]
                columns = [c for c in table.c if c.name not in {"id", "book", "trust", "causes"}]
                query = select(*columns).where(table.c.book == positions.books[book.name])
                rows += [repr((table.name, *row)) for row in await connection.execute(query)]
    assert rows
    return sha256(
        "\n".join(sorted(row.replace('"fetched"', '"signed"') for row in rows)).encode()
    ).hexdigest()


@pytest.fixture(scope="module")
def api() -> Iterator[StripeApi]:
    with serve(StripeApi()) as api:
        yield api


async def books_of(
    api: StripeApi, events: Told, rng: Random, *, shuffled: bool
) -> tuple[str, dict[str, str]]:
    """The digests of the books of these events: of their figures, and of all columns."""
    bodies = deliveries(events)
    if shuffled:
        bodies += rng.sample(bodies, rng.randint(0, len(bodies)))
        rng.shuffle(bodies)
    open_shops(api, events)
    async with (
        new_books() as books,
        open_fetcher(books.ledger, lambda: NOW, api) as fetcher,
    ):
        await deliver(books, fetcher, bodies, rng)
        return await figures(books), await whole_digests(books)


@given(events=told(), rng=st.randoms(use_true_random=False))
@examples(5)
async def test_lives_told_by_thin_events_or_a_mix_give_the_figures_of_snapshots(
    api: StripeApi, events: Told, rng: Random
) -> None:
    by_snapshots = [(account, snapshot, "snapshot") for account, snapshot, _ in events]
    by_thin_events = [(account, snapshot, "thin") for account, snapshot, _ in events]

    found = [
        (await books_of(api, each, rng, shuffled=False))[0] for each in (by_snapshots, by_thin_events, events)
    ]

    assert found[1:] == [found[0]] * 2


@given(events=told(*WAYS, LATE), rng=st.randoms(use_true_random=False))
@examples(5)
async def test_the_same_mix_in_any_order_gives_the_same_books(
    api: StripeApi, events: Told, rng: Random
) -> None:
    in_order = await books_of(api, events, rng, shuffled=False)

    assert await books_of(api, events, rng, shuffled=True) == in_order
