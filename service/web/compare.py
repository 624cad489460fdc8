"""Two policies side by side: what differs is read from the books, and why from the ledger."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from functools import partial
from typing import Any

from msgspec import Struct, json
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from projections.mrr import MRR
from service.books.store import partition_of
from service.books.view import DEFAULT_POLICY, View
from service.core.errors import Unavailable
from service.core.events import Event
from service.ledger.history import read_histories
from service.ledger.vault import Vault
from service.reads import compare
from service.reads.parameters import Parameter, cursor, integer, to_cursor
from service.reads.read import Read
from service.reads.schemas import columns
from service.web.reads import (
    Asked,
    check_key,
    meta_of,
    parse,
    tagged,
    to_csv,
    view_of,
    when_reached,
    with_meta,
)
from service.web.state import State


def _two(text: str) -> str:
    """Two names with a comma between them; raises ValueError."""
    first, second = text.split(",")
    if first == second or not text.isprintable():
        raise ValueError(text)
    return text


def _differences(view: View, args: dict[str, Any]) -> dict[str, Any]:
    page = compare.differences(view, args["policies"].split(","), args["limit"], args["cursor"])
    return {**page, "next_cursor": to_cursor(page["next_cursor"])}


COMPARE = Read(
    path="/api/v1/mrr/compare",
    summary="What two policies count differently in MRR, customer by customer, and why",
    answer=_differences,
    shape="Comparison",
    rows="customers",
    parameters=(
        Parameter(
            name="policies",
            parse=_two,
            default=lambda _: f"{DEFAULT_POLICY},stripe",
            schema={"type": "string"},
            description="two policies of the rulebook, or `default`, with a comma between them",
        ),
        integer("limit", lambda _: 100, 1, 1000, "customers a page"),
        cursor(),
    ),
)


class _Found(Struct, frozen=True, kw_only=True):
    """What the books say: the document but for its reasons, and how far each partition of them is."""

    document: dict[str, Any]
    sides: tuple[compare.Side, compare.Side]
    positions: dict[int, int]


def compare_routes() -> list[Route]:
    """The one GET route."""
    return [Route(COMPARE.path, _respond, methods=["GET"])]


async def _respond(request: Request) -> Response:
    check_key(request)
    state: State = request.state.daybook
    asked = parse(COMPARE, request, state)
    return await when_reached(state, asked.at_least, asked.timeout_ms, partial(_answer, request, asked))


async def _answer(request: Request, asked: Asked) -> Response:
    state: State = request.state.daybook
    policies = asked.args["policies"].split(",")

    def find(connection: Connection) -> tuple[_Found, int, int]:
        positions, view = view_of(connection, asked.scope, state)
        found = _Found(
            document=COMPARE.answer(view, asked.args),
            sides=compare.sides(view, policies),
            positions=_positions(connection, view, policies, state),
        )
        return found, positions.position, view.unpriced_contracts()

    found, position, unpriced = await state.store.read(find)
    document = await state.ledger.read(
        partial(_explained, vault=state.ledger.vault, found=found, day=asked.scope.today)
    )
    following = {"cursor": document["next_cursor"]} if document["next_cursor"] else None
    if asked.csv:
        listed = to_csv(columns(COMPARE.shape, COMPARE.rows), document[COMPARE.rows])
        return tagged(request, listed, "text/csv; charset=utf-8", following)
    body = with_meta(json.encode(document), await meta_of(asked.scope.today, state, position, unpriced))
    return tagged(request, body, "application/json", following)


def _positions(connection: Connection, view: View, policies: Sequence[str], state: State) -> dict[int, int]:
    """The position of each partition of the two books.

    Raises Unavailable while they are not the same, as when a policy is new: no reason would explain that.
    """
    books = {policy: view.with_policy(policy).books[MRR.name] for policy in policies}
    positions = state.store.checkpoints(connection, books)
    first, second = (
        {part: position for (name, part), position in positions.items() if name == policy}
        for policy in policies
    )
    if first != second:
        raise Unavailable("the books of these policies do not hold the same events yet")
    return first


def _explained(connection: Connection, vault: Vault, found: _Found, day: date) -> dict[str, Any]:
    """The document with its reasons, from each contract's history as far as its partition of the books is."""
    by_position = defaultdict(list)
    for customer in found.document[COMPARE.rows]:
        for contract in customer["contracts"]:
            name = contract["history"]
            by_position[found.positions[partition_of(name, len(found.positions))]].append(name)
    told: dict[str, list[Event]] = {}
    for position, names in by_position.items():
        told |= read_histories(connection, names, position, vault)
    return compare.explained(found.document, told, day, *found.sides)
