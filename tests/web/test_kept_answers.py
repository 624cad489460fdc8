"""Kept answers: the same bytes as from a Daybook that keeps none, whatever has happened; each made once."""

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from projections.mrr import Step
from service.books import tables
from service.core.errors import NotFound
from service.maintenance.erasure import erase, make_erasure_event
from service.reads.catalog import READS
from service.rebuild.cutover import rebuild
from service.web import access, kept_answers
from service.worker.trainer import train
from tests.support.effort import times
from tests.support.posted_books import path_of, pays
from tests.support.running import NOW, Clock, Daybook, running
from tests.support.senders import STANDARD, STRIPE, recorded, subscription
from tests.support.stores import EACH_STORE
from tests.support.waiting import eventually
from tests.web.business import post_business

STORES = EACH_STORE

STEPS = times(40)
KEYS = {"figures": "the-key-for-figures", "people": "the-key-for-people-too"}
API_KEYS = f"{KEYS['figures']}:figures,{KEYS['people']}"
TODAY = NOW.date().isoformat()
PATHS = (
    *(path_of(read, "cust-1") for read in READS),
    "/api/v1/revenue/month-detail?format=csv&amounts=decimal",
    "/api/v1/upcoming?format=xlsx",
    "/api/v1/contracts?limit=2",
    "/api/v1/mrr/movements?detail=customers",
    "/api/v1/mrr?policy=stripe",
    f"/api/v1/mrr?today={TODAY}",
    "/api/v1/mrr?position=5",
    f"/api/v1/mrr?known_at={(NOW + timedelta(hours=2)).strftime('%Y-%m-%dT%H:%M:%SZ')}",
    f"/api/v1/mrr?known_at={TODAY}",
    f"/api/v1/restatements?from={TODAY}&to={TODAY}",
    "/api/v1/mrr/compare",
    "/api/v1/explain?figure=mrr/mrr_cents",
    "/api/v1/ledger/head",
    "/api/v1/ledger/events?limit=3",
    "/api/v1/ledger/events/3",
    "/api/v1/quarantine?status=all",
)


class Forgetful:
    """Versions of which no two are equal: nothing is kept."""

    async def current(self) -> Hashable:
        return object()

    async def close(self) -> None:
        """Nothing is open."""


@asynccontextmanager
async def side_by_side(data_dir: Path, **given: Any) -> AsyncIterator[tuple[Daybook, Daybook]]:
    """Two processes' apps on the same stores; the second one keeps no answers."""
    clock = Clock()
    async with running(data_dir, clock, **given) as daybook, running(data_dir, clock, **given) as forgetful:
        await forgetful.state.answers._versions.close()
        forgetful.state.answers._versions = Forgetful()
        yield daybook, forgetful


@pytest.mark.parametrize("seed", range(2))
async def test_a_kept_answer_is_the_one_that_would_be_made_now(data_dir: Path, seed: int) -> None:
    rng = Random(seed)
    async with side_by_side(data_dir, api_keys=API_KEYS) as (daybook, forgetful):
        await post_business(daybook)
        await daybook.catch_up()
        steps = Steps(daybook, rng)
        for number in range(STEPS):
            step = rng.choice(steps.all)
            await step()
            for path, key in rng.sample([(path, key) for path in PATHS for key in KEYS], 12):
                label = f"{path} for {key} after {number} steps, {step.__name__} the last"
                headers = {"X-API-Key": KEYS[key]}
                made = await forgetful.http.get(path, headers=headers)
                for _ in range(2):  # the second one is kept
                    assert_same(await daybook.http.get(path, headers=headers), made, label)


def assert_same(kept: httpx.Response, made: httpx.Response, label: str) -> None:
    """The same status, headers and bytes. A moment of calculation may be earlier, on the same day."""
    assert kept.status_code == made.status_code, label
    if kept.content == made.content:
        assert kept.headers == made.headers, label
        return
    then, now = (answer.json()["meta"].pop("calculation_date") for answer in (kept, made))
    assert then < now, label
    assert (then[:10], len(then)) == (now[:10], len("2025-11-13T10:30:00Z")), label
    then, now = (f'"calculation_date":"{moment}"'.encode() for moment in (then, now))
    assert kept.content.replace(then, now) == made.content, label
    assert kept.headers["ETag"] == made.headers["ETag"], label


class Steps:
    """What may happen to the stores and the clock between two reads."""

    def __init__(self, daybook: Daybook, rng: Random) -> None:
        self._daybook = daybook
        self._rng = rng
        self._numbers = iter(range(10**6))
        self._customers = ["cust-1", "cust-2", "cust-3", "cust-6"]
        self.all = [
            *([self.post_contract, self.post_payment, self.catch_up, self.pass_an_hour] * 2),
            *(self.post_name, self.cancel, self.quarantine, self.dismiss, self.set_aside, self.lift),
            *(self.erase, self.rebuild, self.change_rows, self.train, self.change_day),
        ]

    def _at(self) -> str:
        return self._daybook.clock.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    def _customer(self) -> str:
        return self._rng.choice(self._customers)

    async def catch_up(self) -> None:
        await self._daybook.catch_up()

    async def post_contract(self) -> None:
        key = str(self._rng.randrange(6))
        data = subscription(key, self._rng.randrange(1, 99) * 100, customer_id=self._customer())
        await self._daybook.record("subscription.recorded", self._at(), **data)

    async def post_payment(self) -> None:
        day = self._daybook.clock.now.date().isoformat()
        payment_id = f"pay-{next(self._numbers)}"
        await pays(self._daybook, self._customer(), day, self._rng.randrange(1, 9999), payment_id=payment_id)

    async def post_name(self) -> None:
        customer = self._customer()
        name = f"{customer} the {next(self._numbers)}th"
        await self._daybook.record("customer.recorded", self._at(), customer_id=customer, name=name)

    async def cancel(self) -> None:
        data = subscription("1", 5000, customer_id="cust-1", status="canceled")
        comment = f"Too dear, {next(self._numbers)} times"
        data |= {"cancellation_comment": comment, "cancellation_reason": "cancellation_requested"}
        await self._daybook.record("subscription.recorded", self._at(), **data)

    async def quarantine(self) -> None:
        body = {**STANDARD.unreadable, "number": next(self._numbers)}
        await self._daybook.post(STANDARD, body)

    async def dismiss(self) -> None:
        number = self._rng.randrange(1, 4)
        await self._daybook.state.ledger.dismiss([number], "a test", self._daybook.clock())

    async def set_aside(self) -> None:
        name, head = f"subscription|standard.acme||sub-{self._rng.randrange(6)}", await self._daybook.head()
        await self._daybook.state.ledger.set_aside({name: head}, "mrr", "ValueError", self._daybook.clock())

    async def lift(self) -> None:
        names = [f"subscription|standard.acme||sub-{number}" for number in range(6)]
        await self._daybook.state.ledger.lift(names, self._daybook.clock())

    async def erase(self) -> None:
        state, customer = self._daybook.state, self._customer()
        try:
            event = await make_erasure_event(state.ledger, customer, None, None, self._daybook.clock())
        except NotFound:
            return
        await erase(state.settings, state.ledger, event, self._daybook.clock)

    async def change_rows(self) -> None:
        """As a fault does, and the next rebuild puts right."""
        steps = tables.ROWS[Step]
        await self._daybook.state.store.write(
            lambda connection: connection.execute(update(steps).values(mrr_cents=steps.c.mrr_cents + 1))
        )

    async def rebuild(self) -> None:
        state = self._daybook.state
        make = partial(rebuild, state.settings, state.ledger, state.store, self._daybook.clock)
        assert (await make(processes=1, accept=True)).live

    async def train(self) -> None:
        await train(self._daybook.state.store, self._daybook.clock.now.date())

    async def change_day(self) -> None:
        self._daybook.clock.now += timedelta(days=self._rng.choice([-1, 1, 30]))

    async def pass_an_hour(self) -> None:
        now = self._daybook.clock.now + timedelta(hours=1)
        if now.date() == self._daybook.clock.now.date():
            self._daybook.clock.now = now


async def count_making(daybook: Daybook, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each read of the books."""
    reads: list[Any] = []
    read = daybook.state.store.read

    async def counted(query: Any) -> Any:
        reads.append(query)
        return await read(query)

    monkeypatch.setattr(daybook.state.store, "read", counted)
    return reads


async def test_what_is_asked_again_is_not_made_again(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = await count_making(daybook, monkeypatch)
    path = "/api/v1/revenue/quarterly-forecast"
    first = await daybook.ask(path, quarters=2, currency="eur")
    again = await daybook.ask(path, currency="eur", quarters=2)
    etag = {"If-None-Match": first.headers["etag"]}
    unchanged = await daybook.http.get(f"{path}?quarters=2&currency=eur", headers=etag)

    assert len(reads) == 1
    assert (again.content, again.headers) == (first.content, first.headers)
    assert (unchanged.status_code, unchanged.content) == (304, b"")


async def test_all_who_ask_at_once_share_one_making_whoever_leaves(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = await count_making(daybook, monkeypatch)
    async with daybook.state.maker:
        asking = [asyncio.create_task(daybook.ask("/api/v1/revenue/annual-forecast")) for _ in range(9)]
        await eventually(lambda: bool(daybook.state.answers._under_way), "one of them is being made")
        asking.pop(0).cancel()

    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(reads) == 1


async def test_who_asks_after_a_change_gets_no_answer_that_was_begun_before(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = await count_making(daybook, monkeypatch)
    async with daybook.state.maker:
        asking = [asyncio.create_task(daybook.ask("/api/v1/revenue/annual-forecast"))]
        await eventually(lambda: bool(daybook.state.answers._under_way), "it is being made")
        await daybook.post(STANDARD, recorded("subscription.recorded", subscription("1", 100)))
        asking += [asyncio.create_task(daybook.ask("/api/v1/revenue/annual-forecast")) for _ in range(9)]

    answers = await asyncio.gather(*asking)
    assert {answer.json()["meta"]["lag_events"] for answer in answers} == {1}
    assert len(reads) == 2


async def test_those_who_wait_share_the_next_answer_though_everything_changes_all_the_time(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daybook.state.answers, "_versions", Forgetful())
    reads = await count_making(daybook, monkeypatch)
    asking = (daybook.ask("/api/v1/revenue/annual-forecast") for _ in range(9))

    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    assert len(reads) == 2


async def test_what_was_known_at_a_moment_to_come_is_not_kept(daybook: Daybook) -> None:
    known_at = (NOW + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    before = await daybook.get("/api/v1/mrr", known_at=known_at)
    daybook.clock.now += timedelta(hours=2)
    after = await daybook.get("/api/v1/mrr", known_at=known_at)

    assert [answer["meta"]["data_freshness"] for answer in (before, after)] == ["real_time", "as_known"]


async def test_a_request_is_repeated_at_once_for_who_sent_it_and_for_nobody_else(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(data_dir, api_keys=API_KEYS) as daybook:
        path, key = "/api/v1/contracts", {"X-API-Key": KEYS["figures"]}
        await post_business(daybook)
        await daybook.catch_up()
        first = await daybook.http.get(path, headers=key)
        with monkeypatch.context() as patch:
            patch.setattr(access, "compare_digest", None)  # any other request needs it
            again = await daybook.http.get(path, headers=key)
        others = [
            await daybook.http.get(path, headers=headers)
            for headers in (
                {},
                {"X-API-Key": "a-key-that-is-not-known"},
                {**key, "Sec-Fetch-Site": "cross-site"},
            )
        ]
        known = await daybook.http.get(path, headers={**key, "If-None-Match": first.headers["etag"]})

        assert (again.content, again.headers) == (first.content, first.headers)
        assert [other.status_code for other in others] == [401, 401, 403]
        assert known.status_code == 304
        assert daybook.state.metrics.reads.labels(path, 200)._value.get() == 2


async def test_an_error_is_not_kept(daybook: Daybook, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        async def fail(_query: Any) -> Any:
            raise OSError("away")

        patch.setattr(daybook.state.store, "read", fail)
        assert (await daybook.ask("/api/v1/mrr")).status_code == 503
    assert (await daybook.ask("/api/v1/mrr")).status_code == 200


async def test_the_answers_that_were_not_used_for_longest_make_room(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len((await daybook.ask("/api/v1/upcoming", today="2025-01-01")).content)
    monkeypatch.setattr(kept_answers, "_MAX_BYTES", 8 * size)
    monkeypatch.setattr(kept_answers, "_MAX_ANSWER_BYTES", 4 * size)
    reads = await count_making(daybook, monkeypatch)

    for day in range(2, 30):
        for asked in (f"2025-01-{day:02}", "2025-01-02"):
            await daybook.ask("/api/v1/upcoming", today=asked)
        assert daybook.state.answers._kept._bytes <= 8 * size

    assert len(reads) == 28  # the one that is asked for again and again stays


async def test_what_was_made_for_a_read_that_waited_is_kept(
    daybook: Daybook, monkeypatch: pytest.MonkeyPatch
) -> None:
    await daybook.post(STRIPE, STRIPE.event("1", 100))
    await daybook.catch_up()
    held = await daybook.ask("/api/v1/revenue/annual-forecast", at_least=1)
    reads = await count_making(daybook, monkeypatch)

    again = await daybook.ask("/api/v1/revenue/annual-forecast")

    assert held.json()["meta"]["position"] == 1
    assert again.content == held.content
    assert reads == []
