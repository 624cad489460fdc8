"""Compares two policies: the differences come from the books, the reasons from the ledger."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from functools import partial

from msgspec import Struct, json
from sqlalchemy import Connection
from starlette.routing import Route

from projections.mrr import MRR
from service.books.store import partition_of
from service.books.view import View
from service.core.errors import Unavailable
from service.core.events import Event
from service.ledger.history import read_histories
from service.ledger.vault import Vault
from service.reads import compare, inferred_share
from service.web.reads import Found, ReadQuery, build_meta, open_view, read_route
from service.web.state import State


class _BooksPart(Struct, frozen=True, kw_only=True):
    """The part that comes from the books: the differences, and each partition's position."""

    differences: compare.Differences
    sides: tuple[compare.PolicySide, compare.PolicySide]
    positions: dict[int, int]


def compare_routes() -> list[Route]:
    """The one GET route."""
    return [read_route(compare.COMPARE, _find)]


async def _find(query: ReadQuery, state: State) -> Found:
    policies = query.args["policies"].split(",")

    def find(connection: Connection) -> tuple[_BooksPart, int, dict[str, int], float]:
        positions, view = open_view(connection, query.scope, state)
        books_part = _BooksPart(
            differences=compare.find_differences(view, policies, query.args["limit"], query.args["cursor"]),
            sides=compare.policy_sides(view, policies),
            positions=_positions(connection, view, policies, state),
        )
        share = inferred_share.of_mrr(view, {"policy": policies[0]})
        return books_part, positions.position, view.counts(), share

    books_part, position, counts, share = await state.store.read(find)
    comparison = await state.ledger.read(
        partial(_add_reasons, vault=state.ledger.vault, books_part=books_part, day=query.scope.today)
    )
    meta = await build_meta(query.scope.today, state, position, counts, share)
    return Found(document=json.encode(comparison), meta=meta)


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


def _add_reasons(
    connection: Connection, vault: Vault, books_part: _BooksPart, day: date
) -> compare.Comparison:
    """The comparison, from each contract's histories up to their partitions' positions."""
    by_position = defaultdict(list)
    for customer in books_part.differences.customers:
        for contract in customer.contracts:
            for name in contract.histories:
                part = partition_of(name, len(books_part.positions))
                by_position[books_part.positions[part]].append(name)
    histories_by_key: dict[str, list[Event]] = {}
    for position, names in by_position.items():
        histories_by_key |= read_histories(connection, names, position, vault)
    return compare.with_reasons(books_part.differences, histories_by_key, day, *books_part.sides)
