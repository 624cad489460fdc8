"""One Daybook's export is another's ledger: the same books, whatever it holds and wherever it is kept."""

import gzip
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec import json
from msgspec.structs import replace

from handlers.stripe import translations
from handlers.stripe.translations import ObjectTranslation
from service.core.delivery import Proof
from service.core.errors import Unreadable
from service.core.events import REVISION_MARK, Event, Subscription, revision_id, superseding_event
from service.ledger.draft import Incoming
from service.transfer import ledger_format
from service.transfer.ledger_format import ExportLine, chain_digest
from tests.support.paths import FIXTURES
from tests.support.senders import (
    payment,
    recorded,
    stripe_charge,
    stripe_event,
    stripe_subscription,
    subscription,
)
from tests.support.stores import NewDataDir
from tests.transfer.installation import NOW, Installation, lines, posted

STRIPE = [json.decode(path.read_bytes()) for path in sorted(FIXTURES.glob("stripe/*/*.json"))]
CONTRACTS = json.decode((FIXTURES / "mxmerchant/contracts.json").read_bytes())
CUSTOMER = stripe_event("customer.created", {"id": "cus_ada", "object": "customer", "name": "Ada Example"})
EVENT = stripe_event("customer.subscription.created", stripe_subscription("1", 5000), event_id="evt_sub")


def everything() -> list[Incoming]:
    """Of all that a ledger may hold one, and more of what is common."""
    relayed = {"method": "standard-webhooks", "message_id": "msg_1"}
    fetched = posted("mxmerchant", {"records": CONTRACTS["records"][:2]}, method="fetch", trust="fetched")
    return [
        *(posted("stripe", payload) for payload in STRIPE),  # in both families, so that some ids conflict
        posted("stripe", CUSTOMER),
        posted("stripe", EVENT),
        posted("mxmerchant", CONTRACTS, **relayed),
        posted("mxmerchant", payment("1", 100), method="url-token", trust="unsigned", confirmable=True),
        posted("standard.acme", recorded("subscription.recorded", subscription("1", 1234)), **relayed),
        replace(fetched, events=fetched.events[1:]),  # only what had changed
        posted("stripe", b"no json"),
        posted("stripe", {"object": "event"}),
        posted(
            "mxmerchant",
            {"records": [CONTRACTS["records"][0], {"id": 1}]},
            **relayed | {"message_id": "msg_2"},
        ),
        Incoming(
            events=(),
            content_digest=sha256(b'{"id": 1}').digest(),
            headers=b"{}",
            body=b'{"id": 1}',
            proof=Proof(processor="mxmerchant", method="fetch", received_at=NOW, trust="fetched"),
            reason="unreadable",
            detail="it was fetched, and could not be read",
        ),
    ]


def retranslated(event: Event) -> Incoming:
    """What a correction appends: the event's revision, and that it stands in its place."""
    assert isinstance(event.data, Subscription)
    delivery = posted("stripe", EVENT)
    revised = replace(
        event, event_id=revision_id(event.event_id, 2), data=replace(event.data, status="past_due")
    )
    return replace(delivery, events=[superseding_event(event, revised.event_id), revised])


@pytest.fixture(scope="module")
def written(new_data_dir: NewDataDir, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """A Daybook with a bit of everything, a customer who was erased, and an event that was corrected."""
    daybook = Installation(new_data_dir(tmp_path_factory.mktemp("written") / "data"))
    deliveries = everything()
    daybook.append(*deliveries)
    daybook.append(retranslated(next(e for i in deliveries for e in i.events if e.event_id == "evt_sub")))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("service.logs.configure", lambda *_: None)
        daybook.run("erase", "cus_ada", "--yes")
        daybook.run("export", "ledger", "-o", daybook.directory.parent / "ledger.ndjson")
    return daybook


@pytest.fixture
def full(written: Installation, tmp_path: Path) -> Installation:
    """A copy of it."""
    return Installation(Path(shutil.copytree(written.directory, tmp_path / "full")))


@pytest.fixture
def file(written: Installation) -> Path:
    """Its export."""
    return written.directory.parent / "ledger.ndjson"


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether the books are the same and the same is in quarantine; heads differ, by when it was recorded."""
    return bool(
        (one["books"], one["quarantine"], one["head"].position)
        == (other["books"], other["quarantine"], other["head"].position)
    )


def test_export_and_import_give_the_same_books(full: Installation, target: Installation, file: Path) -> None:
    taken = target.import_("ledger", file)

    assert (taken["differences"], taken["unreadable_lines"]) == (0, 0)
    assert same(target.contents(), full.contents())
    kept_as = ("processor", "account", "event_id", "type", "occurred_at_us", "rank", "trust", "delivery")
    assert [[row[name] for name in kept_as] for row in target.rows()] == [
        [row[name] for name in kept_as] for row in full.rows()
    ]


TOLD = [
    posted(
        "stripe", stripe_event("charge.succeeded", stripe_charge("t", 900, NOW, customer="cus_t"), **named)
    )
    for named in (
        {"event_id": "evt_t", "api_version": "2025-06-30.basil"},
        {"event_id": "evt_t", "api_version": "2023-10-16", "context": "acct_z"},
        {"event_id": "evt_t", "api_version": "2024-06-20", "account": "acct_y"},
    )
]


@pytest.mark.parametrize("known", [[], [0], [1], [2, 0], [1, 2]])
def test_renderings_are_imported_whatever_came_before(
    target: Installation, second: Installation, tmp_path: Path, known: list[int]
) -> None:
    target.append(*TOLD)
    target.run("export", "ledger", "-o", file := tmp_path / "told")
    if known:
        second.append(*(TOLD[number] for number in known))

    second.import_("ledger", file)
    before = second.contents()

    assert before["books"] == target.contents()["books"]
    assert second.import_("ledger", file)["recorded"] == 0
    assert second.contents() == before


def test_an_export_of_an_import_says_the_same(target: Installation, file: Path, tmp_path: Path) -> None:
    """But for what it was recorded by: its proofs are those of the first, with when it was received."""
    target.import_("ledger", file)
    target.run("export", "ledger", "-o", again := tmp_path / "again.ndjson")

    assert parts_of(again) == parts_of(file)


def test_an_import_that_is_repeated_changes_nothing(target: Installation, file: Path) -> None:
    target.import_("ledger", file)
    before = target.contents()

    assert target.import_("ledger", file)["recorded"] == 0
    assert target.contents() == before


def test_a_ledger_that_is_imported_where_it_is_from_changes_nothing(full: Installation, file: Path) -> None:
    before = full.contents()

    assert full.import_("ledger", file)["recorded"] == 0
    assert full.contents() == before


def test_a_ledger_that_has_half_of_the_events_gets_the_rest(
    full: Installation, target: Installation, file: Path
) -> None:
    """Every second delivery came to both, by webhook; so positions differ, and figures don't."""
    target.append(*everything()[::2])

    target.import_("ledger", file)

    assert target.contents()["books"] == full.contents()["books"]


def test_an_import_that_was_interrupted_is_finished_by_the_next(
    full: Installation, target: Installation, file: Path
) -> None:
    whole = file.read_bytes()
    cut = b"".join(whole.splitlines(keepends=True)[:30])

    taken = target.import_("ledger", "-", stdin=cut + b'{"digest": "', code=1)
    assert taken["unreadable_lines"] == 1
    target.import_("ledger", "-", stdin=whole)

    assert same(target.contents(), full.contents())


@pytest.mark.parametrize("end", [-1, -2, -5, 1, 0])
def test_a_file_that_was_cut_is_noticed(second: Installation, file: Path, end: int) -> None:
    cut = b"".join(file.read_bytes().splitlines(keepends=True)[:end])

    taken = second.import_("ledger", "-", stdin=cut, code=1)

    assert taken["notes"][-1]["detail"] == "the last line of an export is missing: the file was cut"


def changed(part: bytes) -> bytes:
    at = part.index(b'"body":"') + 20
    return part[:at] + (b"A" if part[at : at + 1] != b"A" else b"B") + part[at + 1 :]


@pytest.mark.parametrize(
    "change",
    [
        lambda written: [*written[:9], changed(written[9]), *written[10:]],
        lambda written: [*written[:9], *written[10:]],
        lambda written: [*written[:9], written[10], written[9], *written[11:]],
        lambda written: [*written[:10], written[9], *written[10:]],
    ],
    ids=["a byte", "a line less", "lines in another order", "a line twice"],
)
def test_nothing_is_taken_from_where_a_file_was_changed(
    full: Installation, change: Any, tmp_path: Path
) -> None:
    full.run("export", "ledger", "-o", file := tmp_path / "l")
    written = file.read_bytes().splitlines(keepends=True)
    other = Installation(tmp_path / "new")

    taken = other.import_("ledger", "-", stdin=b"".join(change(written)), code=1)

    assert taken["unreadable_lines"] == 1
    assert taken["deliveries"] in (8, 9)  # those before it
    assert "nothing after it was taken" in taken["notes"][-1]["detail"]


def test_a_newer_translation_wins_and_is_reported(
    full: Installation, second: Installation, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = translations.TRANSLATIONS_BY_PREFIX["customer.subscription."]
    newer = ObjectTranslation(
        reading.payload, lambda *arguments: replace(reading.translate(*arguments), declined=True)
    )
    monkeypatch.setitem(translations.TRANSLATIONS_BY_PREFIX, "customer.subscription.", newer)

    taken = second.import_("ledger", file)

    translated = [
        row
        for row in full.rows()
        if (row["processor"], row["type"]) == ("stripe", "subscription.recorded")
        and REVISION_MARK not in row["event_id"]
    ]
    assert taken["differences"] == len(translated)
    assert taken["notes"][0]["detail"].endswith("is translated otherwise here: data")


def test_a_translation_that_loses_an_event_does_not_lose_it(
    full: Installation, second: Installation, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = translations.TRANSLATIONS_BY_PREFIX["customer.subscription."]
    older = ObjectTranslation(reading.payload, lambda *_: unreadable())
    monkeypatch.setitem(translations.TRANSLATIONS_BY_PREFIX, "customer.subscription.", older)

    taken = second.import_("ledger", file)

    assert taken["differences"]
    assert "taken as it was" in taken["notes"][0]["detail"]
    assert second.contents()["books"] == full.contents()["books"]


def unreadable() -> Any:
    raise Unreadable("an older version")


def parts_of(file: Path) -> list[dict[str, Any]]:
    """What an export says, but for when it was recorded, and what it came to."""
    parts = [json.decode(json.decode(line, type=ExportLine).part) for line in file.read_bytes().splitlines()]
    for part in parts:
        for event in part.get("events", []) if isinstance(part.get("events"), list) else []:
            del event["recorded_at"]
        part.pop("received_at", None)
        if part["type"] == "end":
            del part["digest"]
        if part.get("reason") == "conflict":
            part["detail"] = ""
    return sorted(parts, key=lambda part: part["body"] if part["type"] == "quarantine" else "")


def forged(file: Path, change: Any) -> bytes:
    """An export by somebody who can make digests."""
    previous, written = bytes(32), []
    for line in file.read_bytes().splitlines():
        part = json.decode(json.decode(line, type=ExportLine).part)
        change(part)
        text = json.encode(part)
        previous = chain_digest(previous, text)
        written.append(json.encode({"digest": previous.hex(), "part": part}) + b"\n")
    return b"".join(written)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("type", "subscription.invented"),
        ("data", {"subscription_id": "sub_1"}),
        ("data", {"customer_id": "cus\0"}),
        ("occurred_at", "9999-12-31T23:59:59Z"),
        ("occurred_at", "yesterday"),
        ("rank", -1),
        ("processor", "no such processor"),
        ("event_id", "x" * 700),
    ],
)
def test_an_event_that_no_ledger_could_hold_is_left_out_and_reported(
    second: Installation, file: Path, name: str, value: Any
) -> None:
    """Of a delivery that nobody can read any more, so that only the event is there to go by."""

    def change(part: dict[str, Any]) -> None:
        if part.get("body", "") is None and part["events"][0]["type"] == "customer.recorded":
            part["events"][0][name] = value

    taken = second.import_("ledger", "-", stdin=forged(file, change), code=1)

    assert taken["unreadable_lines"] == 1
    assert "customer.recorded" not in {row["type"] for row in second.rows() if row["event_id"] == "evt_1"}
    assert any(row["type"] == "customer.erased" for row in second.rows())


@pytest.mark.parametrize(
    ("name", "value"),
    [("events", []), ("proof", {"processor": "\0", "method": "x"}), ("headers", "bm9uZQ==")],
)
def test_a_malformed_delivery_is_left_out_and_reported(
    second: Installation, file: Path, name: str, value: Any
) -> None:
    def change(part: dict[str, Any]) -> None:
        if part["type"] == "delivery" and part["events"][0]["position"] == 5:
            part[name] = part[name] | value if name == "proof" else value

    assert second.import_("ledger", "-", stdin=forged(file, change), code=1)["unreadable_lines"] == 1


def test_an_event_that_one_delivery_holds_twice_is_left_out_and_reported(
    second: Installation, file: Path
) -> None:
    def change(part: dict[str, Any]) -> None:
        if part.get("body", "") is None and part["events"][0]["type"] == "customer.recorded":
            part["events"] *= 2

    assert second.import_("ledger", "-", stdin=forged(file, change), code=1)["unreadable_lines"] == 1


def test_bytes_that_are_no_text_are_left_out_and_reported(second: Installation) -> None:
    written, previous = [], bytes(32)
    for part in (b'{"type":"daybook-ledger","version":1}', b'{"type":"\xff"}'):
        previous = chain_digest(previous, part)
        written.append(b'{"digest":"%b","part":%b}' % (previous.hex().encode(), part))

    taken = second.import_("ledger", "-", stdin=b"\n".join(written), code=1)
    assert taken["unreadable_lines"] == 2  # and cut


def test_a_newer_format_is_refused(second: Installation, file: Path) -> None:
    def change(part: dict[str, Any]) -> None:
        if part["type"] == "daybook-ledger":
            part["version"] = 2

    taken = second.import_("ledger", "-", stdin=forged(file, change), code=1)

    assert "its format is 2" in taken["notes"][0]["detail"]
    assert not taken["deliveries"]


def test_exports_of_one_ledger_are_equal_and_compress(full: Installation, tmp_path: Path) -> None:
    full.run("export", "ledger", "-o", tmp_path / "one")
    full.run("export", "ledger", "-o", tmp_path / "two.gz")

    one = (tmp_path / "one").read_bytes()
    assert gzip.decompress((tmp_path / "two.gz").read_bytes()) == one
    assert full.run("export", "ledger").encode() == one
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["one", "two.gz"]


@pytest.mark.parametrize("page", [1, 2, 7])
def test_deliveries_are_whole_however_much_is_read_at_once(
    full: Installation, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(ledger_format, "_EVENT_PAGE", page)
    monkeypatch.setattr(ledger_format, "_QUARANTINE_PAGE", page)

    full.run("export", "ledger", "-o", paged := tmp_path / "paged")

    assert paged.read_bytes() == file.read_bytes()


def test_what_was_erased_is_in_no_export(file: Path) -> None:
    assert b"Ada Example" in lines([CUSTOMER])
    assert b"Ada Example" not in file.read_bytes()


def test_there_is_nothing_to_export_where_there_is_no_ledger(tmp_path: Path) -> None:
    assert "there is no ledger" in Installation(tmp_path).run("export", "ledger", code=2)
