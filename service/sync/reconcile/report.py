"""What a reconciliation found: how much was missed, and where the processor and the books differ."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from msgspec import Struct, json

from projections.bills import Contract, IssuedInvoice, mrr_on
from service.ledger.store import Ledger, LedgerReader

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST = 1_000  # differing things that are listed; more are only counted

T = TypeVar("T")
Facts = dict[str, Any]

log = structlog.get_logger()


class Difference(Struct, frozen=True, kw_only=True):
    """One field in which a processor and the books differ. None: it, or the whole thing, is not there."""

    kind: str
    id: str
    account: str
    field: str
    stated: Any
    books: Any


class Summary(Struct, frozen=True, kw_only=True):
    """What of the last report is watched. `missed` counts events by type, `differing` things."""

    began_at: str
    finished_at: str
    missed: dict[str, int]
    differing: int


class Report(Summary, frozen=True, kw_only=True):
    """What one run found. `differences` are those of the first 1,000 things that differ."""

    processor: str
    dry_run: bool
    since: str | None
    listed: int
    compared: dict[str, int]
    differences: tuple[Difference, ...]

    @property
    def is_clean(self) -> bool:
        """Whether there is nothing to be done: no difference, and nothing missed that was not appended."""
        return not self.differing and not (self.dry_run and self.missed)

    def document(self) -> dict[str, Any]:
        """The report as it is shown: what the processor says stands under its name."""
        found = [
            {
                "kind": each.kind,
                "id": each.id,
                "account": each.account,
                "field": each.field,
                self.processor: each.stated,
                "books": each.books,
            }
            for each in self.differences
        ]
        shown: dict[str, Any] = json.decode(json.encode(self))
        return shown | {"differences": found}


async def conclude(ledger: Ledger, report: Report, now: datetime) -> None:
    """Keep the report in place of the last, but for a dry run's; log what was found, by ids alone."""
    if not report.dry_run:
        await ledger.save_cursor(f"reconciled|{report.processor}", json.encode(report), now)
    for each in report.differences:
        log.warning(
            "books_differ",
            processor=report.processor,
            account=each.account,
            kind=each.kind,
            id=each.id,
            field=each.field,
        )
    log.info(
        "reconciled",
        processor=report.processor,
        listed=report.listed,
        missed=sum(report.missed.values()),
        differing=report.differing,
    )


async def kept_as(reader: LedgerReader, name: str, shape: type[T]) -> T | None:
    """What is kept under a name; None if nothing is."""
    body = await reader.read_cursor(name)
    return None if body is None else json.decode(body, type=shape)


async def last_summary(reader: LedgerReader, processor: str) -> Summary | None:
    """What the last whole run against a processor found; None if there was none."""
    return await kept_as(reader, f"reconciled|{processor}", Summary)


def contract_facts(row: Contract, today: str) -> Facts:
    """What is compared of a contract. The bill's amount counts only where there is a bill."""
    return {
        "status": row.status,
        "customer": row.customer_id,
        "currency": row.currency,
        "mrr_cents": mrr_on(row.terms, today),
        "next_bill_cents": row.amount_cents if row.next_bill_date else None,
        "next_bill_date": row.next_bill_date,
        "cancel_date": row.ends_date,
    }


def invoice_facts(row: IssuedInvoice, _today: str) -> Facts:
    """What is compared of an invoice. "failed" is the books' word for an open one."""
    return {
        "status": "open" if row.status == "failed" else row.status,
        "customer": row.customer_id,
        "date": row.date,
        "amount_due_cents": row.amount_cents,
        "amount_remaining_cents": row.open_cents,
    }


def compared(
    kind: str, account: str, key: str, stated: Mapping[str, Any] | None, books: Mapping[str, Any] | None
) -> list[Difference]:
    """Where a thing differs, field by field; by its status alone where one of both does not know it."""
    names: Iterable[str] = stated if stated is not None and books is not None else ("status",)
    stated, books = stated or {}, books or {}
    return [
        Difference(
            kind=kind,
            id=key,
            account=account,
            field=name,
            stated=stated.get(name),
            books=books.get(name),
        )
        for name in names
        if stated.get(name) != books.get(name)
    ]


def shown(report: Report) -> "RenderableType":
    """The report as tables for people."""
    from rich.console import Group  # noqa: PLC0415 - only the command shows it
    from rich.table import Table  # noqa: PLC0415

    how = "would be appended" if report.dry_run else "appended"
    missed = ", ".join(f"{count} {kind}" for kind, count in sorted(report.missed.items())) or "nothing"
    seen = ", ".join(f"{kind}s {count}" for kind, count in report.compared.items())
    said = (
        f"{report.processor}: {report.listed} listed; {how}: {missed}. "
        f"Compared: {seen}; {report.differing} differ."
    )
    table = Table("kind", "id", "account", "field", report.processor, "books")
    for each in report.differences:
        values = ("" if value is None else str(value) for value in (each.stated, each.books))
        table.add_row(each.kind, each.id, each.account, each.field, *values)
    return Group(said, *([table] if report.differences else []))
