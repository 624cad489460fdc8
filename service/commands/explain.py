"""`daybook explain`: what a figure is made of, down to the bytes that were signed."""

import asyncio
from collections.abc import Mapping
from datetime import date
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer
from msgspec import to_builtins
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text
from rich.tree import Tree

from service import bootstrap
from service.books import view as views
from service.clock import utc_now
from service.commands.shell import EXIT_FAULT, Json, command, progress, show
from service.core.errors import ParameterError, Unavailable
from service.intake import provenance
from service.lookback import make_file, positions
from service.reads import parameters, stored_models
from service.reads.explain import figures

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from service.books.store import BookStore
    from service.books.view import Scope
    from service.ledger.store import Ledger
    from service.settings import Settings

Figure = Annotated[
    str, typer.Argument(help="A read and a JSON pointer into its answer: month-detail/summary/total_cents.")
]
_Text = str | None
_WIDTH = 10_000
_OPTIONS = {"customer_id": "--customer", "today": "--on", "known_at": "--known-at", "position": "--position"}
_MARKS = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "dim")}


def explain(  # noqa: PLR0913 - the reads' parameters
    figure: Figure,
    *,
    customer: Annotated[_Text, typer.Option(help="Of this customer, by id.")] = None,
    processor: Annotated[_Text, typer.Option(help="Whose customer, where several have this id.")] = None,
    on: Annotated[_Text, typer.Option(help="At the end of this day, by default today.")] = None,
    year: Annotated[_Text, typer.Option(help="Of month-detail.")] = None,
    month: Annotated[_Text, typer.Option(help="Of month-detail.")] = None,
    from_: Annotated[_Text, typer.Option("--from", help="The first month, or day, of a range.")] = None,
    to: Annotated[_Text, typer.Option(help="The last month, or day, of a range.")] = None,
    by: Annotated[_Text, typer.Option(help="Of movements: month or day.")] = None,
    period: Annotated[_Text, typer.Option(help="Of customer-revenue: ytd, last_12_months, ….")] = None,
    currency: Annotated[_Text, typer.Option(help="By default the reporting currency.")] = None,
    account: Annotated[_Text, typer.Option(help="One processor account; by default all.")] = None,
    policy: Annotated[_Text, typer.Option(help="Of mrr and movements: a policy of the rulebook.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other parameter of the read.")
    ] = None,
    position: Annotated[_Text, typer.Option(help="As known when the ledger ended here.")] = None,
    known_at: Annotated[_Text, typer.Option(help="As known at this moment, or by the end of a day.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Rows to list and check; sums are of all.")] = 100,
    json: Json = False,
) -> None:
    """Take a figure apart: its rows, their events, and the signatures over their bytes, checked anew.

    Exits 0, 1 if bytes are not what was signed and recorded or the rows don't add up to the figure, 2 if
    there is no such figure, 3 if a store can't be read.

    For example:

        daybook explain mrr --customer cus_1 --on 2025-11-13
        daybook explain month-detail/summary/total_cents --year 2025 --month 11
        daybook explain metrics/periods/period=2025-Q4/ltv_cents --param by=quarter
    """
    given = {
        "customer_id": customer,
        "processor": processor,
        "year": year,
        "month": month,
        "from": from_,
        "to": to,
        "by": by,
        "period": period,
        "policy": policy,
    }
    common = {
        "currency": currency,
        "account": account,
        "today": on,
        "position": position,
        "known_at": known_at,
    }
    with command() as settings:
        stated = _others(param or []) | _stated(given)
        found = asyncio.run(_find(settings, figure, limit, stated, _stated(common)))
        show(found, lambda: _Unfolded(_tree(found)), as_json=json)
        if not _holds(found):
            raise typer.Exit(EXIT_FAULT)


class _Unfolded:
    """A tree whose lines are as long as what they say: a terminal folds them, and a pipe gets them whole."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self._tree, options.update(width=_WIDTH))


def _stated(options: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in options.items() if value is not None}


def _others(params: list[str]) -> dict[str, str]:
    """The parameters of `--param`. Raises ParameterError."""
    pairs = [param.partition("=")[::2] for param in params]
    if wrong := next((param for param in params if "=" not in param), None):
        raise ParameterError(f"--param: NAME=VALUE, not {wrong}")
    return dict(pairs)


async def _find(
    settings: "Settings", figure: str, limit: int, given: dict[str, str], common: dict[str, str]
) -> dict[str, Any]:
    """The figure with its rows, their events, and the position of the books."""
    async with bootstrap.existing_ledger(settings) as ledger:
        try:
            document = await _read(settings, ledger, figure, limit, given, common)
        except ParameterError as error:
            name, colon, message = str(error).partition(":")
            raise ParameterError(f"{_OPTIONS.get(name, name)}{colon}{message}") from None
        causes = {(cause, row["account"]) for row in document["rows"] for cause in row["causes"]}
        async with ledger.reading() as reader:
            with progress("events checked", len(causes)) as advance:
                return document | {"events": await provenance.trace(reader, causes, settings, advance)}


async def _read(
    settings: "Settings",
    ledger: "Ledger",
    figure: str,
    limit: int,
    given: dict[str, str],
    common: dict[str, str],
) -> dict[str, Any]:
    """The figure from the books, as they are or as they were known."""
    zone, now = ZoneInfo(settings.reporting_tz), utc_now()
    today = now.astimezone(zone).date()
    known = parameters.parse_all(parameters.LOOK_BACK, common, today)
    figures.check_looks_back(figure, given, known)
    position = await positions.requested_position(known, ledger, zone, now)
    scope = _scope(settings, common, positions.default_today(known["known_at"], today, zone))
    store = await _open_books(settings, ledger, position)
    try:
        return await store.read(partial(_taken_apart, settings, store, scope, figure, given, limit))
    finally:
        await store.close()


async def _open_books(settings: "Settings", ledger: "Ledger", position: int | None) -> "BookStore":
    """The books as they are, or those of the first `position` events, which are made first."""
    if position is None:
        return bootstrap.open_books(settings)
    spec = await positions.wanted_books(ledger, position)
    await make_file.make_file(settings, spec)
    path = make_file.open_lookback_files(settings).find(spec)
    if path is None:
        raise Unavailable("the books as known then were removed again")
    return make_file.open_file(settings, path)


def _scope(settings: "Settings", common: dict[str, str], today: date) -> "Scope":
    asked = parameters.parse_all(parameters.SCOPE, common, today)
    currency = asked["currency"] or settings.reporting_currency
    return views.Scope(currency=currency, account=asked["account"], today=asked["today"])


def _taken_apart(
    settings: "Settings",
    store: "BookStore",
    scope: "Scope",
    figure: str,
    given: dict[str, str],
    limit: int,
    connection: "Connection",
) -> dict[str, Any]:
    at = store.positions(connection)
    if len(at.books) < len(store.books):
        raise Unavailable("the books are not laid out yet")
    view = views.View(
        connection=connection,
        books=at.books,
        scope=scope,
        options=bootstrap.read_options(settings),
        stored_model=lambda kind: stored_models.find(connection, store, kind, scope.currency, scope.account),
    )
    explained, _ = figures.explain(view, figure, given, 0, limit)
    document: dict[str, Any] = to_builtins(explained)
    del document["next_cursor"]
    return document | {"position": at.position_under(given.get("policy", ""))}


def _holds(found: dict[str, Any]) -> bool:
    """Whether the rows add up to the figure, where they should, and no bytes are others than were signed."""
    checks = [found["adds_up"], *(event["delivery"]["verified"] for event in found["events"])]
    return False not in checks


def _tree(found: dict[str, Any]) -> Tree:
    """Figure, rows, events, bytes."""
    tree = Tree(Text(_headline(found), style="bold"))
    events = {(event["cause"], event["account"]): event for event in found["events"]}
    for row in found["rows"]:
        branch = tree.add(Text(_row_line(row)))
        for cause in row["causes"]:
            event = events[cause, row["account"]]
            leaf = branch.add(Text(f"{cause}  {event['type']}, position {event['position']}"))
            leaf.add(_bytes_line(event["delivery"]))
    if left := found["count"] - len(found["rows"]):
        tree.add(Text(f"… and {left:,} rows more (--limit)"))
    return tree


def _headline(found: dict[str, Any]) -> str:
    unit = f" ({found['currency']}, minor units)" if found["figure"].endswith("_cents") else ""
    rows = f"{found['count']:,} row{'' if found['count'] == 1 else 's'}, together {found['sum']:,}"
    if found["formula"]:
        terms = [f"{name} = {_number(value)}" for name, value in found["terms"].items()]
        rows = f"{found['formula']}\n{', '.join((*terms, rows))}"
    if found["estimate"]:
        rows = f"an estimate: {rows}"
    if found["adds_up"] is False:
        rows = f"{rows}: THE FIGURE IS NOT THEIR SUM"
    return f"{found['figure']} = {_number(found['value'])}{unit}, as of position {found['position']}\n{rows}"


def _row_line(row: dict[str, Any]) -> str:
    ids = [row[name] for name in ("kind", "customer_id", "contract_id", "source_id") if row[name]]
    return f"{row['contributes']:+,}  {row['table']}  {row['date']}  {'  '.join(ids)}"


def _bytes_line(delivery: dict[str, Any]) -> Text:
    size = "no bytes" if delivery["body_bytes"] is None else f"{delivery['body_bytes']:,} bytes"
    signed = f", signed {delivery['signed_at']}" if delivery["signed_at"] else ""
    mark, style = _MARKS[delivery["verified"]]
    why = f"  {delivery['why']}" if delivery["why"] else ""
    return Text.assemble((mark, style), f"  {size}, {delivery['method'] or 'no method'}{signed}{why}")


def _number(value: float | str | None) -> str:
    if isinstance(value, str):
        return value
    return "null" if value is None else f"{value:,}"
