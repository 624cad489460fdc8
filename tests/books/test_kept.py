"""A worker that keeps folds in memory makes the books of one that keeps none, whatever comes between."""

from contextlib import suppress
from datetime import timedelta
from random import Random

import pytest

from service.books.engine import Engine, Overtaken
from service.core.events import CustomerErased, superseding_event
from service.ledger.append import read_head
from service.rebuild import cutover
from service.rebuild.cutover import rebuild
from service.verify.replay import digests, replay
from service.verify.totals import verify_totals
from tests.support.effort import times
from tests.support.events import at, changed, created, event, invoice, item, subscription
from tests.support.temporary_books import NOW, TemporaryBooks, new_books, now

pytestmark = pytest.mark.usefixtures("each_store")

START = at("2025-01-10")
NAMES = [f"subscription|stripe||sub_{n}" for n in range(3)]


class Life:
    """Three contracts that go on and on, and a worker that takes in what they state."""

    def __init__(self, books: TemporaryBooks, store, random: Random) -> None:
        self.books, self.store, self.random = books, store, random
        self.engine = Engine(books.ledger, store, now, batch=random.choice((2, 5_000)))
        self.day, self.events = 0, []

    async def states(self) -> None:
        """Some contracts state something, an hour to three days after the last statement; some are billed."""
        events = []
        for number in self.random.sample(range(3), self.random.randint(1, 3)):
            self.day += self.random.randint(1, 3)
            when = START + timedelta(days=self.day, hours=number)
            plan = subscription(
                item(self.random.randint(1, 3) * 1_000),
                subscription_id=f"sub_{number}",
                customer_id=f"cus_{number}",
            )
            events.append(changed(plan, when) if self.day > 9 else created(plan, when))
            if self.random.random() < 0.3:
                bill = invoice("paid", invoice_id=f"in_{self.day}", subscription_id=f"sub_{number}")
                events.append(event(bill, when))
        self.events += events
        await self.books.append(events)

    async def take_in(self) -> None:
        with suppress(Overtaken):
            await self.engine.catch_up()
        await self.engine.catch_up()

    async def another_worker(self) -> None:
        """Another worker takes in what comes next."""
        await self.states()
        await Engine(self.books.ledger, self.store, now).catch_up()
        await self.states()

    async def failing_write(self) -> None:
        await self.states()
        write, self.store.write = self.store.write, _fail
        with pytest.raises(OSError, match="no disk"):
            await self.engine.catch_up()
        self.store.write = write

    async def set_aside_and_lifted(self) -> None:
        """What a contract states meanwhile is not read until its history is lifted."""
        await self.states()
        await self.take_in()
        name = self.random.choice(NAMES)
        next_one = (await self.books.ledger.read(read_head)).position + 1
        await self.states()
        await self.books.ledger.set_aside({name: next_one}, "mrr", "TooMuchWork", NOW)
        await self.take_in()
        await self.states()
        await self.take_in()
        await self.books.ledger.lift([name], NOW)
        await self.states()

    async def superseded(self) -> None:
        await self.states()
        await self.take_in()
        number = self.random.randrange(len(self.events))
        await self.books.append([superseding_event(self.events.pop(number), None)])

    async def erased(self) -> None:
        await self.states()
        await self.take_in()
        erasure = CustomerErased(customer_id=f"cus_{self.random.randrange(3)}")
        await self.books.append([event(erasure, NOW)])
        await self.states()

    async def rebuilt(self) -> None:
        await self.states()
        await rebuild(self.books.settings, self.books.ledger, self.store, now, processes=1)
        await self.states()


async def _fail(_change) -> None:
    raise OSError("no disk")


TURNS = (
    *(Life.another_worker, Life.failing_write, Life.set_aside_and_lifted, Life.superseded, Life.erased),
    *(Life.rebuilt, Life.states, Life.states, Life.states),
)


@pytest.mark.parametrize("seed", range(times(4)))
async def test_folds_that_are_kept_make_the_books_of_a_replay(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(cutover, "_HOLD_SECONDS", 0)
    random = Random(seed)
    async with new_books() as books, books.store() as store:
        life = Life(books, store, random)
        for number, turn in enumerate(random.sample(TURNS, len(TURNS))):
            await turn(life)
            await life.take_in()
            await life.states()
            await life.take_in()
            directory = tmp_path / str(number)
            directory.mkdir()
            assert await replay(books.ledger, store.rules, directory, store.books) == await digests(store)
        await verify_totals(store)


async def test_how_far_a_history_is_read_is_seen_before_the_event_that_says_so():
    name, plans = NAMES[0], [subscription(item(cents), subscription_id="sub_0") for cents in range(100, 105)]
    first, second, third, fourth, fifth = (changed(p, START + timedelta(days=n)) for n, p in enumerate(plans))
    async with new_books() as books, books.store() as store:
        engine = Engine(books.ledger, store, now, batch=1)

        async def is_at(position: int) -> None:
            await engine.catch_up(until=position)
            async with new_books() as others, others.store() as other:
                await Engine(books.ledger, other, now, kept_states=0).catch_up(until=position)
                assert await digests(store) == await digests(other)

        await books.append([first, second])
        await is_at(2)
        await books.append([third])
        await books.ledger.set_aside({name: 3}, "mrr", "TooMuchWork", NOW)
        await is_at(3)
        await books.append([fourth, fifth])
        await is_at(5)
        await books.ledger.lift([name], NOW)
        await is_at(6)
