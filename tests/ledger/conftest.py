from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from service import bootstrap
from service.bootstrap import prepare
from service.core.delivery import Proof
from service.core.events import Customer, Event
from service.ledger.draft import Incoming
from service.ledger.store import Ledger
from service.settings import Settings, load
from tests.support.stores import prepared_database

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def delivery(
    event_id: str, content: bytes = b"content", processor: str = "stripe", events: int = 1
) -> Incoming:
    """A delivery of one event or several about customers."""
    told = [
        Event(
            processor=processor,
            event_id=event_id if events == 1 else f"{event_id}:{n}",
            occurred_at=NOW,
            data=Customer(customer_id=f"cus_{event_id}", name=f"n{n}"),
        )
        for n in range(events)
    ]
    proof = Proof(processor=processor, method="test", received_at=NOW)
    return Incoming(
        events=told,
        content_digest=content,
        headers=b"{}",
        body=b'{"id":"%b"}' % event_id.encode(),
        proof=proof,
    )


def refused(body: bytes, reason: str = "unreadable") -> Incoming:
    proof = Proof(processor="stripe", method="test", received_at=NOW)
    return Incoming(
        events=(), content_digest=body, headers=b"{}", body=body, proof=proof, reason=reason, detail="why"
    )


OpenLedger = Callable[[], Ledger]


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    """What is logged, as values: nothing is printed."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Of an empty Daybook; what is promised of a store is promised of both."""
    if request.param == "postgresql":
        return load(data_dir=tmp_path, database_url=prepared_database(request.getfixturevalue("postgres")))
    prepare(load(data_dir=tmp_path))
    return load(data_dir=tmp_path)


@pytest.fixture
async def open_ledger(settings: Settings) -> AsyncIterator[OpenLedger]:
    """Opens the one ledger as often as asked, as several processes would."""
    opened: list[Ledger] = []

    def open_again() -> Ledger:
        opened.append(bootstrap.open_ledger(settings))
        return opened[-1]

    yield open_again
    for ledger in opened:
        await ledger.close()


@pytest.fixture
def ledger(open_ledger: OpenLedger) -> Ledger:
    return open_ledger()
