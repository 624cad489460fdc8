"""Group commit: requests share a transaction, and each is answered for itself."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from msgspec.structs import replace
from sqlalchemy.exc import OperationalError

from service.bootstrap import prepare
from service.core.errors import Unavailable
from service.ledger import master_key
from service.ledger.store import Ledger
from service.ledger.writer import Writer
from service.settings import load
from service.storage.database import SqliteDatabase, ledger_path
from tests.support.deliveries import NOW, delivery
from tests.support.stores import EACH_STORE

STORES = EACH_STORE


async def test_requests_that_gather_share_a_commit(ledger: Ledger) -> None:
    commits: list[int] = []
    writer = Writer(ledger, lambda: NOW, commits.append)

    outcomes = await asyncio.gather(*(writer.append(delivery(str(n))) for n in range(100)))

    assert sorted(outcome.position for outcome in outcomes) == list(range(1, 101))
    assert len(commits) <= 3
    assert commits[-1] == 100
    await writer.close()


async def test_closing_writes_what_waits(ledger: Ledger) -> None:
    writer = Writer(ledger, lambda: NOW, lambda _: None)
    waiting = [asyncio.create_task(writer.append(delivery(str(n)))) for n in range(10)]
    await asyncio.sleep(0)

    await writer.close()

    assert {(await task).position for task in waiting} == set(range(1, 11))


async def test_a_request_that_went_away_is_kept_all_the_same(ledger: Ledger) -> None:
    writer = Writer(ledger, lambda: NOW, lambda _: None)
    gone = asyncio.create_task(writer.append(delivery("gone")))
    await asyncio.sleep(0)
    gone.cancel()

    assert (await writer.append(delivery("here"))).position == 2
    await writer.close()


class Broken(Ledger):
    """A ledger whose disk is full until it is mended."""

    broken = True

    async def append(self, batch, now: datetime):
        if self.broken:
            raise OperationalError("INSERT", None, OSError("disk is full"))
        return await super().append(batch, now)


async def test_when_the_ledger_cannot_commit_all_are_told_and_it_goes_on_later(tmp_path: Path) -> None:
    prepare(load(data_dir=tmp_path))
    ledger = Broken(SqliteDatabase(ledger_path(tmp_path)), master_key.open_vault(load()))
    writer = Writer(ledger, lambda: datetime.now(UTC), lambda _: None)

    answers = await asyncio.gather(
        *(writer.append(delivery(str(n))) for n in range(3)), return_exceptions=True
    )
    assert all(isinstance(answer, Unavailable) for answer in answers)

    ledger.broken = False
    assert (await writer.append(delivery("0"))).position == 1
    await writer.close()
    await ledger.close()


async def test_a_delivery_that_cannot_be_written_does_not_keep_out_the_others(ledger: Ledger) -> None:
    writer = Writer(ledger, lambda: NOW, lambda _: None)
    unwritable = replace(delivery("bad"), headers=object())

    answers = await asyncio.gather(
        *(writer.append(each) for each in (delivery("a"), unwritable, delivery("b"))), return_exceptions=True
    )

    assert isinstance(answers[1], Unavailable)
    assert [answers[0].position, answers[2].position] == [1, 2]
    await writer.close()


async def test_too_many_waiting_are_refused_rather_than_kept_in_memory(ledger: Ledger, monkeypatch) -> None:
    monkeypatch.setattr("service.ledger.writer._MAX_WAITING", 5)
    writer = Writer(ledger, lambda: NOW, lambda _: None)

    answers = await asyncio.gather(
        *(writer.append(delivery(str(n))) for n in range(8)), return_exceptions=True
    )

    assert sum(isinstance(answer, Unavailable) for answer in answers) == 3
    await writer.close()
