"""After the storm: what must be true of the ledger, the books and the processes' own words."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import httpx
from msgspec import json

from service.core.delivery import Processor, Proof
from service.intake.translation import processor_of
from service.ledger.draft import Incoming
from service.verify import digests
from tests.storm.cluster import Cluster
from tests.storm.senders import Answer
from tests.storm.traffic import Delivery
from tests.support.temporary_books import new_books
from tests.support.waiting import PATIENCE_SECONDS

_PAGE = 1_000
_DIGEST = re.compile(r"^(\w+): equal to a replay, (\w+)$", re.MULTILINE)


def wrong_answers(ledger: Sequence[str], answers: dict[str, list[Answer]]) -> Iterator[str]:
    """Where the ledger is not what was answered: each event once, and where every answer said it is."""
    yield from (f"{cause} is there {n} times" for cause, n in Counter(ledger).items() if n > 1)
    kept = {cause: position for position, cause in enumerate(ledger, start=1)}
    yield from (
        f"{cause} was answered {answers[cause]} and is lost" for cause in answers.keys() - kept.keys()
    )
    yield from (f"{cause} was never answered" for cause in kept.keys() - answers.keys())
    for cause in kept.keys() & answers.keys():
        several = answers[cause]
        if {answer.position for answer in several} != {kept[cause]}:
            yield f"{cause} is at {kept[cause]} and was answered {several}"
        if sum(not answer.duplicate and not answer.conflict for answer in several) > 1:
            yield f"{cause} was new more than once: {several}"


def read_ledger(url: str) -> list[str]:
    """The causes of all events, in order. Raises AssertionError at a gap between positions."""
    causes: list[str] = []
    with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
        while True:
            answer = client.get("/api/v1/ledger/events", params={"after": len(causes), "limit": _PAGE})
            page = answer.raise_for_status().json()
            positions = [event["position"] for event in page["events"]]
            assert positions == list(range(len(causes) + 1, len(causes) + 1 + len(positions)))
            causes += [event["cause"] for event in page["events"]]
            if page["next_after"] is None:
                assert page["head"] == len(causes)
                return causes


def verified(cluster: Cluster) -> dict[str, str]:
    """What `daybook verify` finds: the books' digests. Raises AssertionError if it finds a fault."""
    found = cluster.run("verify")
    assert found.returncode == 0, found.stdout + found.stderr
    return dict(_DIGEST.findall(found.stdout))


async def books_of(deliveries: Iterable[Delivery]) -> dict[str, str]:
    """The digests of the books that one process makes of the same events, each told once and in order."""
    once = {delivery.cause: delivery for delivery in deliveries}
    incoming = [_incoming(delivery) for delivery in once.values()]
    async with new_books() as books:
        for start in range(0, len(incoming), _PAGE):
            await books.ledger.append(incoming[start : start + _PAGE], datetime.now(UTC))
        await books.advance()
        async with books.store() as store:
            return await digests(store)


def _processor(delivery: Delivery) -> Processor:
    processor = processor_of(delivery.processor)
    assert processor is not None
    return processor


def _incoming(delivery: Delivery) -> Incoming:
    proof = Proof(
        processor=delivery.processor,
        method="storm",
        received_at=datetime.now(UTC),
        message_id=delivery.event_id,
    )
    return Incoming(
        events=_processor(delivery).translate(json.decode(delivery.body), proof),
        content_digest=sha256(delivery.body).digest(),
        headers=b"{}",
        body=delivery.body,
        proof=proof,
    )


# How an error says that PostgreSQL went away, or ended a connection whose owner was held still too long:
# what the driver calls operation 2 is the server's last words, which it has not yet read to their end.
_LOST = re.compile(
    r"Connect call failed|[Cc]onnection (was|is) closed|connection_lost|[Cc]onnection reset|Broken pipe"
    r"|terminating connection|(lock|statement) timeout|the database system is"
    r"|^(Timeout|Connection\w*)Error|another operation (\(2\) )?is in progress",
    re.MULTILINE,
)


def odd_words(log: Path) -> Iterator[str]:
    """What a process said that it should never say: no warning, and no error but for a lost connection."""
    for is_ours, lines in groupby(log.read_text().splitlines(), _is_ours):
        if is_ours:
            yield from filter(_is_odd, lines)
        else:  # a traceback, or a warning of Python's own
            first, *others = lines
            yield f"{first} … {others[-1]}" if others else first


def _is_ours(line: str) -> bool:
    return line.startswith(("{", "Daybook listens on ", "daybook: a store can't be used: "))


def _is_odd(line: str) -> bool:
    said = json.decode(line) if line.startswith("{") else {"level": "info"}
    why = "\n".join(said.get(name, "") for name in ("exception", "error", "reason"))
    return said["level"] == "error" and not _LOST.search(why)
