"""A history that is set aside is set aside in the copy of a ledger, too, wherever its events stand there."""

from datetime import date
from pathlib import Path

from service.core.events import Unused
from service.ledger.set_aside import read_set_aside
from service.ledger.store import Ledger
from tests.support.events import changed, created, event, item, subscription
from tests.support.temporary_books import NOW, incoming
from tests.transfer.installation import Installation

PLAN = subscription(item(10_000))
MORE = subscription(item(30_000))
SUB_1 = "subscription|stripe||sub_1"
TODAY = date(2025, 11, 13)


async def end_early(ledger: Ledger) -> None:
    """Set the subscription aside from its second event on."""
    assert await ledger.set_aside({SUB_1: 2}, "mrr", "KeyError", NOW) == [SUB_1]


async def set_aside(ledger: Ledger) -> list[tuple[str, int, str, str]]:
    return [(each.subject, each.up_to, each.book, each.error) for each in await ledger.read(read_set_aside)]


def test_an_import_leaves_out_the_same_events(
    daybook: Installation, second: Installation, tmp_path: Path
) -> None:
    # given a ledger in which a history is set aside, and one with an event before all others
    daybook.append(incoming(created(PLAN, "2025-01-10")), incoming(changed(MORE, "2025-02-10")))
    daybook.use(end_early)
    file = tmp_path / "ledger.ndjson"
    daybook.run("export", "ledger", "--output", file)
    second.append(incoming(event(Unused(original_type="other"), "2025-01-01")))

    # when the first one is imported there, twice
    taken = second.import_("ledger", file)
    again = second.import_("ledger", file)

    # then
    assert (taken["recorded"], again["recorded"]) == (3, 0)
    assert daybook.use(set_aside) == [(SUB_1, 1, "mrr", "KeyError")]
    assert second.use(set_aside) == [(SUB_1, 2, "mrr", "KeyError")]
    assert second.contents()["books"] == daybook.contents()["books"]
    second.run("verify")
