"""One event rendered by several endpoints or a fetch: the books read one rendering, whatever came first."""

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.json import encode
from msgspec.structs import replace

from handlers import stripe
from handlers.stripe import payloads, translations
from handlers.stripe.translations import ObjectTranslation
from projections import BOOKS
from service.books.digest import digest
from service.core.delivery import Proof
from service.core.events import CustomerErased, Data, Event, Rendering, Subscription, Superseded
from service.intake.retranslate import Retranslator
from service.intake.translation import read_delivery
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import load
from service.verify import verify_chain
from tests.support.effort import examples
from tests.support.modes import live
from tests.support.running import NOW, Daybook
from tests.support.senders import STRIPE, stripe_charge, stripe_event, stripe_subscription
from tests.support.stores import EACH_STORE
from tests.support.temporary_books import TemporaryBooks, incoming, new_books

STORES = EACH_STORE
SETTINGS = load(stripe_webhook_secrets=STRIPE.secret)
VERSIONS = ("2022-11-15", "2024-06-20", "2025-03-31.basil", None)
TRUSTS = {"signed": "stripe-signature", "fetched": "fetch", "unsigned": "import"}


class Rendered(Struct, frozen=True):
    """One rendering of the event: its version, how it came, and how it names its account."""

    version: str | None
    trust: str
    named: tuple[tuple[str, str], ...] = ()
    cents: int = 4000  # in which renderings of other versions may differ


def payload(rendered: Rendered, event_id: str = "evt_9") -> dict[str, Any]:
    contract = stripe_subscription("9", rendered.cents + len(rendered.version or ""))
    versioned = {"api_version": rendered.version, "livemode": True, **dict(rendered.named)}
    return stripe_event("customer.subscription.created", contract, event_id=event_id, **versioned)


def delivery(rendered: Rendered, event_id: str = "evt_9") -> Incoming:
    proof = Proof(processor="stripe", method=TRUSTS[rendered.trust], received_at=NOW, trust=rendered.trust)
    body = encode(payload(rendered, event_id))
    headers = {name.lower(): value for name, value in STRIPE.sign(body, NOW, "", STRIPE.secret).items()}
    return read_delivery(stripe.PROCESSOR, encode(headers), body, proof, live)


def erasure(customer_id: str) -> Event:
    data = CustomerErased(customer_id=customer_id)
    return Event(processor="stripe", event_id=f"{customer_id}·erased", occurred_at=NOW, data=data)


NAMED = st.sampled_from(
    [
        (),
        (("account", "acct_south"),),
        (("account", None), ("context", "acct_north")),
        (("context", "org_1/acct_west"),),
    ]
)
TELLINGS = st.lists(
    st.builds(Rendered, st.sampled_from(VERSIONS), st.sampled_from(sorted(TRUSTS)), NAMED),
    min_size=1,
    max_size=6,
)


async def stored(ledger: Ledger) -> list[Event]:
    async with ledger.reading() as reader:
        return [row.event for row in await reader.recorded_events(await ids(ledger))]


async def ids(ledger: Ledger) -> set[str]:
    async with ledger.reading() as reader:
        return {row["event_id"] for row in await reader.stored_rows(0, 10_000)}


async def counting(ledger: Ledger) -> list[tuple[Any, ...]]:
    """The events that count, without the numbers of their revisions."""
    events = await stored(ledger)
    gone = {(e.account, e.data.event_id) for e in events if isinstance(e.data, Superseded)}
    return sorted(
        (e.cause, e.account, e.trust, str(e.data))
        for e in events
        if not isinstance(e.data, Superseded | Rendering) and (e.account, e.event_id) not in gone
    )


async def digests(books: TemporaryBooks) -> dict[str, str]:
    """The digest of every row and sum of each book."""
    async with books.store() as store, store.reading() as connection:
        positions = await connection.run_sync(store.positions)
        return {book.name: await digest(connection, book, positions.books[book.name]) for book in BOOKS}


async def deliver(books: TemporaryBooks, renderings: Sequence[Rendered], rng: Random) -> None:
    """Deliver in batches of any size; the books may catch up in between."""
    left = [delivery(rendered) for rendered in renderings]
    while left:
        size = rng.randint(1, len(left))
        outcomes = await books.ledger.append(left[:size], NOW)
        assert {(outcome.position, outcome.conflict) for outcome in outcomes} == {(1, False)}
        left = left[size:]
        if rng.random() < 0.5:
            await books.advance()


async def same_in_any_order(renderings: list[Rendered], rng: Random) -> None:
    shuffled = [*renderings, *rng.sample(renderings, rng.randint(0, len(renderings)))]
    rng.shuffle(shuffled)
    async with new_books() as books, new_books() as others:
        for each, order in ((books, renderings), (others, shuffled)):
            await deliver(each, order, rng)
            await each.advance()
            assert await verify_chain(each.ledger)
        assert await counting(books.ledger) == await counting(others.ledger)
        assert len(await counting(books.ledger)) == 1
        assert await digests(books) == await digests(others)


@given(TELLINGS, st.randoms(use_true_random=False))
@examples(40)
async def test_the_order_of_renderings_decides_nothing(renderings: list[Rendered], rng: Random) -> None:
    await same_in_any_order(renderings, rng)


@pytest.mark.usefixtures("each_store")
@given(TELLINGS, st.randoms(use_true_random=False))
@examples(4)
async def test_the_order_of_renderings_decides_nothing_in_either_store(
    renderings: list[Rendered], rng: Random
) -> None:
    await same_in_any_order(renderings, rng)


@given(TELLINGS, st.randoms(use_true_random=False))
@examples(10)
async def test_the_chosen_rendering_is_the_best_of_all_in_the_smallest_account(
    renderings: list[Rendered], rng: Random
) -> None:
    async with new_books() as books:
        await deliver(books, renderings, rng)
        ((_, account, trust, data),) = await counting(books.ledger)

    best = max(
        renderings,
        key=lambda rendered: (
            ("unsigned", "fetched", "signed").index(rendered.trust),
            rendered.version or "",
        ),
    )
    names = {name.rpartition("/")[2] for rendered in renderings for _, name in rendered.named if name}
    assert (account, trust) == (min(names, default=""), best.trust)
    assert data == str(delivery(best).events[0].data)


@given(TELLINGS, st.randoms(use_true_random=False))
@examples(8)
async def test_a_retranslation_finds_renderings_as_they_should_be(
    renderings: list[Rendered], rng: Random
) -> None:
    async with new_books() as books:
        await deliver(books, renderings, rng)
        report = await Retranslator(books.ledger, lambda: NOW, SETTINGS).run(0, lambda _: None)
    assert (report.differs, report.refused, report.deliveries) == (False, 0, 1)


# Over HTTP


async def test_another_rendering_is_a_duplicate_at_the_first_position_and_kept(daybook: Daybook) -> None:
    older, newer = Rendered("2024-06-20", "signed"), Rendered("2025-03-31.basil", "signed")
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    first = (await daybook.post(STRIPE, payload(older))).json()

    second = (await daybook.post(STRIPE, payload(newer))).json()
    head = await daybook.head()
    again = (await daybook.post(STRIPE, payload(newer))).json()

    assert (first["position"], first["duplicate"]) == (2, False)
    assert second == again == {"received": True, "position": 2, "duplicate": True}
    assert await daybook.head() == head
    assert await daybook.quarantine() == {}
    await daybook.catch_up()
    assert (await daybook.get("/api/v1/mrr"))["mrr_cents"] == 100 + 4000 + len("2025-03-31.basil")


@pytest.mark.parametrize(
    ("named", "account"),
    [
        ({"account": "acct_7", "context": None}, "acct_7"),
        ({"context": "org_3/acct_8"}, "acct_8"),
        ({"account": "acct_5", "context": "acct_6"}, "acct_5"),
    ],
)
async def test_an_event_moves_to_the_account_that_a_later_telling_names(
    daybook: Daybook, named: dict[str, Any], account: str
) -> None:
    charge = stripe_charge("1", 4700, NOW, customer="cus_lee")
    event = stripe_event("charge.succeeded", charge, event_id="evt_lee")
    await daybook.post(STRIPE, event)
    await daybook.catch_up()
    month = {"from_": "2025-11", "to": "2025-11"}
    before = await daybook.get("/api/v1/revenue/monthly-totals", account="", **month)

    answer = (await daybook.post(STRIPE, {**event, **named})).json()
    await daybook.catch_up()

    assert answer == {"received": True, "position": 1, "duplicate": True}
    assert before["months"][0]["collected_cents"] == 4700
    for asked, cents in (("", 0), (account, 4700)):
        totals = await daybook.get("/api/v1/revenue/monthly-totals", account=asked, **month)
        assert totals["months"][0]["collected_cents"] == cents
    assert await verify_chain(daybook.state.ledger) == 4


async def test_the_same_version_with_other_content_is_still_a_conflict(daybook: Daybook) -> None:
    await daybook.post(STRIPE, payload(Rendered("2024-06-20", "signed")))
    await daybook.post(STRIPE, payload(Rendered("2022-11-15", "signed")))

    answer = (await daybook.post(STRIPE, payload(Rendered("2022-11-15", "signed", (), 9900)))).json()

    assert answer == {"received": True, "position": 1, "duplicate": False, "conflict": True}
    assert await daybook.quarantine() == {("stripe", "conflict"): 1}


async def test_a_fetch_contradicts_nothing_and_yields_to_what_is_signed(daybook: Daybook) -> None:
    fetched, signed = Rendered("2024-06-20", "fetched", (), 1000), Rendered("2024-06-20", "signed", (), 2000)

    outcomes = await daybook.state.ledger.append([delivery(fetched), delivery(signed)], NOW)

    assert [(o.position, o.conflict) for o in outcomes] == [(1, False), (1, False)]
    ((_, _, trust, data),) = await counting(daybook.state.ledger)
    assert (trust, data) == ("signed", str(delivery(signed).events[0].data))


async def test_a_cause_shows_the_rendering_that_counts_with_its_own_bytes(daybook: Daybook) -> None:
    # given content of the newer version, and the account that only the older one names
    newer, older = (
        Rendered("2025-03-31.basil", "signed"),
        Rendered("2022-11-15", "signed", (("account", "acct_2"),)),
    )
    await daybook.post(STRIPE, payload(newer))
    await daybook.post(STRIPE, payload(older))
    await daybook.catch_up()

    (contract,) = (await daybook.get("/api/v1/contracts"))["contracts"]
    event = await daybook.get("/api/v1/ledger/causes/stripe:evt_9")
    explained = await daybook.get("/api/v1/explain", figure="mrr/mrr_cents")

    assert contract["causes"] == ["stripe:evt_9"]
    assert (event["account"], event["superseded_by"]) == ("acct_2", None)
    assert json.loads(event["raw_body"]) == payload(newer)
    (row,) = explained["events"]
    assert (row["cause"], row["account"], row["delivery"]["verified"]) == ("stripe:evt_9", "acct_2", True)
    assert row["delivery"]["body_bytes"] == len(event["raw_body"])


async def test_a_rendering_that_can_not_be_read_waits_and_the_other_counts(daybook: Daybook) -> None:
    unreadable = {**payload(Rendered("2025-03-31.basil", "signed")), "data": {"object": {"id": "sub_9"}}}

    first = (await daybook.post(STRIPE, unreadable)).json()
    second = (await daybook.post(STRIPE, payload(Rendered("2024-06-20", "signed")))).json()
    third = (await daybook.post(STRIPE, {**unreadable, "api_version": "2026-10-28"})).json()

    assert first["quarantined"] is third["quarantined"] is True
    assert second == {"received": True, "position": 1, "duplicate": False}
    assert await daybook.head() == 1


async def test_a_retry_of_what_an_older_version_recorded_is_a_duplicate(daybook: Daybook) -> None:
    """Its digest was of more: the account, too."""
    rendered = delivery(Rendered("2024-06-20", "signed", (("account", "acct_1"),)))
    older = Incoming(
        events=rendered.events,
        content_digest=b"another",
        headers=b"{}",
        body=rendered.body,
        proof=rendered.proof,
    )
    await daybook.state.ledger.append([older], NOW)

    (again,) = await daybook.state.ledger.append([rendered], NOW)

    assert (again.position, again.duplicate, await daybook.head()) == (1, True, 1)


def twofold(rendered: payloads.Subscription, kind: str) -> Data:
    """A translator that takes every quantity twice."""
    data = translations.subscription(rendered, kind)
    assert isinstance(data, Subscription)
    return replace(data, items=tuple(replace(item, quantity=2 * item.quantity) for item in data.items))


@given(TELLINGS, st.integers(0, 5), st.randoms(use_true_random=False))
@examples(10)
async def test_renderings_before_and_after_a_retranslation_give_the_same_books(
    renderings: list[Rendered], late: int, rng: Random
) -> None:
    async with new_books() as books, new_books() as straight:
        with pytest.MonkeyPatch.context() as older:
            newer = ObjectTranslation(payloads.Subscription, twofold)
            older.setitem(translations.TRANSLATIONS_BY_PREFIX, "customer.subscription.", newer)
            await deliver(books, renderings[: late + 1], rng)
        for changed in (True, False):
            retranslator = Retranslator(books.ledger, lambda: NOW, SETTINGS, apply=True)
            assert (await retranslator.run(0, lambda _: None)).changed == changed
        await deliver(books, renderings, rng)
        await deliver(straight, renderings, rng)
        for each in (books, straight):
            await each.advance()
            assert await verify_chain(each.ledger)

        assert await counting(books.ledger) == await counting(straight.ledger)
        assert await digests(books) == await digests(straight)


async def test_a_retranslation_moves_what_was_recorded_without_its_account(daybook: Daybook) -> None:
    """Older versions read no context, and recorded an event once for each account that they read."""
    rendered = delivery(Rendered("2024-06-20", "signed", (("context", "acct_4"),)))
    named = delivery(Rendered("2024-06-20", "signed", (("account", "acct_4"),)))
    unnamed = replace(rendered.events[0], account="")
    olds = [
        replace(rendered, events=[unnamed], render=None),
        replace(named, events=named.events, content_digest=b"of more", render=None),
    ]
    await daybook.state.ledger.append(olds, NOW)
    assert len(await counting(daybook.state.ledger)) == 2

    for _ in range(2):
        await Retranslator(daybook.state.ledger, lambda: NOW, daybook.state.settings, apply=True).run(
            0, lambda _: None
        )

    ((_, account, *_),) = await counting(daybook.state.ledger)
    assert account == "acct_4"
    assert not (
        await Retranslator(daybook.state.ledger, lambda: NOW, daybook.state.settings).run(0, lambda _: None)
    ).differs


async def test_nothing_more_is_kept_of_somebody_erased(daybook: Daybook) -> None:
    await daybook.post(STRIPE, payload(Rendered("2024-06-20", "signed")))
    await daybook.state.ledger.append([incoming(erasure("cus_9"))], NOW)
    head = await daybook.head()

    answer = (await daybook.post(STRIPE, payload(Rendered("2025-03-31.basil", "signed")))).json()

    assert answer == {"received": True, "position": 1, "duplicate": True}
    assert await daybook.head() == head
