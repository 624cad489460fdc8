"""Compares two policies: the differences come from the books, the reasons from the ledger."""

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
    ReadQuery,
    answer_when_reached,
    build_meta,
    check_key,
    open_view,
    parse_query,
    tagged_response,
    to_csv,
    with_meta,
)
from service.web.state import State, state_of


def _parse_pair(text: str) -> str:
    """Two names with a comma between them; raises ValueError."""
    first, second = text.split(",")
    if first == second or not text.isprintable():
        raise ValueError(text)
    return text


def _find_differences(view: View, args: dict[str, Any]) -> dict[str, Any]:
    page = compare.find_differences(view, args["policies"].split(","), args["limit"], args["cursor"])
    return {**page, "next_cursor": to_cursor(page["next_cursor"])}


COMPARE = Read(
    path="/api/v1/mrr/compare",
    summary="What two policies count differently in MRR, customer by customer, and why",
    answer=_find_differences,
    shape="Comparison",
    rows="customers",
    parameters=(
        Parameter(
            name="policies",
            parse=_parse_pair,
            default=lambda _: f"{DEFAULT_POLICY},stripe",
            schema={"type": "string"},
            description="two policies of the rulebook, or `default`, with a comma between them",
        ),
        integer("limit", lambda _: 100, 1, 1000, "customers a page"),
        cursor(),
    ),
)


class _BooksPart(Struct, frozen=True, kw_only=True):
    """The part that comes from the books: the document without its reasons, and each partition's position."""

    document: dict[str, Any]
    sides: tuple[compare.PolicySide, compare.PolicySide]
    positions: dict[int, int]


def compare_routes() -> list[Route]:
    """The one GET route."""
    return [Route(COMPARE.path, _respond, methods=["GET"])]


async def _respond(request: Request) -> Response:
    check_key(request)
    state = state_of(request)
    query = parse_query(COMPARE, request, state)
    return await answer_when_reached(
        state, query.at_least, query.timeout_ms, partial(_answer, request, query)
    )


async def _answer(request: Request, query: ReadQuery) -> Response:
    state = state_of(request)
    policies = query.args["policies"].split(",")

    def find(connection: Connection) -> tuple[_BooksPart, int, dict[str, int]]:
        positions, view = open_view(connection, query.scope, state)
        books_part = _BooksPart(
            document=COMPARE.answer(view, query.args),
            sides=compare.policy_sides(view, policies),
            positions=_positions(connection, view, policies, state),
        )
        return books_part, positions.position, view.counts()

    books_part, position, counts = await state.store.read(find)
    document = await state.ledger.read(
        partial(_add_reasons, vault=state.ledger.vault, books_part=books_part, day=query.scope.today)
    )
    next_page = {"cursor": document["next_cursor"]} if document["next_cursor"] else None
    if query.csv:
        body = to_csv(columns(COMPARE.shape, COMPARE.rows), document[COMPARE.rows])
        return tagged_response(request, body, "text/csv; charset=utf-8", next_page)
    body = with_meta(json.encode(document), await build_meta(query.scope.today, state, position, counts))
    return tagged_response(request, body, "application/json", next_page)


def _positions(connection: Connection, view: View, policies: Sequence[str], state: State) -> dict[int, int]:
    """The position of each partition of the two books.

    Raises Unavailable while the two books' positions differ, as when a policy is new: no rule
    would explain the difference then.
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


def _add_reasons(connection: Connection, vault: Vault, books_part: _BooksPart, day: date) -> dict[str, Any]:
    """The document with its reasons, from each contract's histories up to their partitions' positions."""
    by_position = defaultdict(list)
    for customer in books_part.document[COMPARE.rows]:
        for contract in customer["contracts"]:
            for name in contract["histories"]:
                part = partition_of(name, len(books_part.positions))
                by_position[books_part.positions[part]].append(name)
    histories_by_key: dict[str, list[Event]] = {}
    for position, names in by_position.items():
        histories_by_key |= read_histories(connection, names, position, vault)
    return compare.with_reasons(books_part.document, histories_by_key, day, *books_part.sides)
