"""What two policies count differently: customer by customer, contract by contract, rule by rule."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace
from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, literal, or_, select, union_all

from projections.book import Rules
from projections.contracts import ContractState, MrrTerm, contract_states, mrr_terms
from projections.customers import CustomerName
from projections.mrr import TRUST_LEVELS, Step
from projections.pricing import all_discounts
from service.books.tables import ROWS
from service.books.view import View, format_fraction
from service.core.errors import ParameterError
from service.core.events import Event
from service.core.moments import day_of
from service.core.order import canonical
from service.reads.mrr import mrr

Dated = TypeVar("Dated", ContractState, MrrTerm)

_steps = ROWS[Step]
_names = ROWS[CustomerName]


class Side(Struct, frozen=True, kw_only=True):
    """One of the two policies: its name, and the rules as they are under it."""

    policy: str
    rules: Rules


def sides(view: View, policies: Sequence[str]) -> tuple[Side, Side]:
    """The two policies with their rules. Raises ParameterError if one is not kept."""
    first, second = (Side(policy=name, rules=view.with_policy(name, "policies").rules()) for name in policies)
    return first, second


def differences(view: View, policies: Sequence[str], limit: int | None, after: str | None) -> dict[str, Any]:
    """MRR under both policies at the end of `today`, and a page of customers whose contracts differ.

    Largest difference first. Each contract names its `history`, from which `explained` takes the reasons.
    `next_cursor` is None on the last page; without a `limit` the page holds all that are left.
    """
    first, second = (view.with_policy(policy, "policies") for policy in policies)
    rows = view.all(_page(first, second, None if limit is None else limit + 1, _size_and_feeds(after)))
    listed = [list(contracts) for _, contracts in groupby(rows, key=lambda row: row.parent_key)]
    page = listed[:limit]
    totals = [mrr(first), mrr(second)]
    names = ("policy", "weeks_per_month", "mrr_cents", "active_contracts", "customers")
    return {
        "currency": view.scope.currency,
        "date": view.scope.today.isoformat(),
        "policies": [{name: total[name] for name in names} for total in totals],
        "difference_cents": totals[1]["mrr_cents"] - totals[0]["mrr_cents"],
        "customers": [_customer(contracts) for contracts in page],
        "next_cursor": f"{page[-1][0].size}|{page[-1][0].parent_key}" if len(listed) > len(page) else None,
    }


def explained(
    document: dict[str, Any], histories: Mapping[str, Sequence[Event]], day: date, first: Side, second: Side
) -> dict[str, Any]:
    """The document of `differences` with each contract's reasons, from its history as the ledger tells it."""

    def contract(row: dict[str, Any]) -> dict[str, Any]:
        told = canonical(histories[row["history"]])
        return {name: row[name] for name in row if name != "history"} | bridge(told, day, first, second)

    def customer(row: dict[str, Any]) -> dict[str, Any]:
        contracts = [contract(each) for each in row["contracts"]]
        return {
            **row,
            "contracts": contracts,
            "trust": min((each["trust"] for each in contracts), key=TRUST_LEVELS.index),
            "causes": sorted({cause for each in contracts for cause in each["causes"]}),
        }

    return {**document, "customers": [customer(row) for row in document["customers"]]}


def bridge(history: Sequence[Event], day: date, first: Side, second: Side) -> dict[str, Any]:
    """What leads from a contract's MRR at the end of `day` under one policy to that under the other.

    `history` is in canonical order, and tells of the contract by that day under one of them at least.

    The rules are exchanged one at a time, in the order of `_BRIDGE`, and the contract is folded again
    after each: what that changes is the rule's amount. So the amounts add up to the difference, to the
    cent; where two rules would each leave a contract out, the one before takes the whole of it.
    """
    # The state is the same under both, but that one may count from before it was told.
    state = next(filter(None, (_on(day, contract_states(history, side.rules)) for side in (first, second))))
    rules = first.rules
    before = start = _on(day, mrr_terms(contract_states(history, rules), rules))
    reasons = []
    for rule, (exchange, say) in _BRIDGE.items():
        exchanged = exchange(rules, second.rules)
        after = before
        if exchanged != rules:
            after = _on(day, mrr_terms(contract_states(history, exchanged), exchanged))
        if amount := _cents(after) - _cents(before):
            words = (f"{side.policy} {say(state, side.rules)}" for side in (first, second))
            reasons.append({"rule": rule, "amount_cents": amount, "text": "; ".join(words)})
        rules, before = exchanged, after
    told = [term for term in (start, before) if term]
    return {
        "status": state.data.status,
        "reasons": reasons,
        "trust": min((term.event.trust for term in told), key=TRUST_LEVELS.index),
        "causes": sorted({term.event.cause for term in told}),
    }


def _on(day: date, found: Sequence[Dated]) -> Dated | None:
    """What holds at the end of a day, of what holds each from its own day on."""
    return next((each for each in reversed(found) if each.day <= day), None)


def _cents(term: MrrTerm | None) -> int:
    return term.mrr_cents if term else 0


def _field(name: str) -> Callable[[Rules, Rules], Rules]:
    """Rules with one field of their policy as it is in others."""
    return lambda rules, others: replace(
        rules, policy=replace(rules.policy, **{name: getattr(others.policy, name)})
    )


def _weeks(rules: Rules, others: Rules) -> Rules:
    return replace(rules, weeks_per_month=others.weeks_per_month)


def _say_status(state: ContractState, rules: Rules) -> str:
    status = state.data.status
    return f"counts {status}" if status in rules.policy.statuses else f"leaves out {status}"


def _say_paused(_state: ContractState, rules: Rules) -> str:
    return f"{'counts' if rules.policy.paused else 'leaves out'} what has its collection paused"


def _say_discounts(state: ContractState, rules: Rules) -> str:
    durations = sorted({d.duration for d in all_discounts(state.data)} - {*rules.policy.ignored_discounts})
    return f"deducts {' and '.join(durations) or 'no'} discounts"


def _say_churn(state: ContractState, rules: Rules) -> str:
    if rules.policy.churn == "when_set_to_cancel" or not state.data.cancel_at:
        return "stops counting once an end is set"
    return f"counts until the end, set for {day_of(state.data.cancel_at, rules.zone)}"


def _say_weeks(_state: ContractState, rules: Rules) -> str:
    return f"takes {format_fraction(rules.weeks_per_month)} weeks a month"


# By rule: how to exchange it, and what each policy does by it. In the order in which they are exchanged.
_BRIDGE: dict[str, tuple[Callable[[Rules, Rules], Rules], Callable[[ContractState, Rules], str]]] = {
    "statuses": (_field("statuses"), _say_status),
    "paused": (_field("paused"), _say_paused),
    "discounts": (_field("ignored_discounts"), _say_discounts),
    "churn": (_field("churn"), _say_churn),
    "weeks_per_month": (_weeks, _say_weeks),
}


def _customer(contracts: list[Any]) -> dict[str, Any]:
    """A customer's row, without what the histories tell."""
    of = contracts[0]
    return {
        "customer_id": of.customer_id,
        "customer_name": of.customer_name,
        **_amounts(of.customer_first, of.customer_second),
        "contracts": [
            {"contract_id": row.contract_id, **_amounts(row.first, row.second), "history": row.key}
            for row in contracts
        ],
        "processor": of.parent_key.partition("|")[0],
        "account": of.account,
    }


def _amounts(first: int, second: int) -> dict[str, int]:
    return {"first_mrr_cents": first, "second_mrr_cents": second, "difference_cents": second - first}


def _page(first: View, second: View, limit: int | None, after: tuple[int, str] | None) -> Select[Any]:
    """The contracts that differ, of the customers of a page: largest difference of a customer first."""
    contracts = _contracts(first, second).cte("contracts")
    names = (contracts.c.parent_key, contracts.c.account, contracts.c.customer_id)
    sums = _whole(contracts.c.first), _whole(contracts.c.second)
    customers = (
        select(
            *names,
            sums[0].label("customer_first"),
            sums[1].label("customer_second"),
            func.abs(sums[1] - sums[0]).label("size"),
        )
        .group_by(*names)
        .having(func.sum(func.abs(contracts.c.second - contracts.c.first)) > 0)
        .subquery()
    )
    size, parent_key = customers.c.size, customers.c.parent_key
    some = select(customers).order_by(size.desc(), parent_key).limit(limit)
    if after:
        some = some.where(or_(size < after[0], (size == after[0]) & (parent_key > after[1])))
    page = some.subquery()
    customer = func.substr(page.c.parent_key, 1, func.length(page.c.parent_key) - len("|usd"))
    named = (_names.c.book == first.books["customers"]) & (_names.c.key == literal("customer|") + customer)
    return (
        select(page, contracts.c.key, contracts.c.contract_id, contracts.c.first, contracts.c.second)
        .add_columns(_names.c.name.label("customer_name"))
        .select_from(
            page.join(contracts, contracts.c.parent_key == page.c.parent_key).outerjoin(_names, named)
        )
        .where(contracts.c.first != contracts.c.second)
        .order_by(page.c.size.desc(), page.c.parent_key, contracts.c.key)
    )


def _contracts(first: View, second: View) -> Select[Any]:
    """Every contract that has counted, with its MRR at the end of `today` under each policy."""
    names = [_steps.c[name] for name in ("key", "parent_key", "account", "customer_id", "contract_id")]
    nothing = literal(0)
    moved = union_all(
        *(
            select(*names, one.label("first"), other.label("second")).where(
                *view.filters(_steps, "mrr"), _steps.c.date <= view.scope.today.isoformat()
            )
            for view, one, other in (
                (first, _steps.c.mrr_cents, nothing),
                (second, nothing, _steps.c.mrr_cents),
            )
        )
    ).subquery()
    by = [moved.c[column.name] for column in names]
    return select(*by, _whole(moved.c.first).label("first"), _whole(moved.c.second).label("second")).group_by(
        *by
    )


def _whole(column: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum as a whole number, as PostgreSQL's are not."""
    return cast(func.sum(column), BigInteger)


def _size_and_feeds(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    size, _, parent_key = cursor.partition("|")
    if not (size.isascii() and size.isdigit() and len(size) < 19):
        raise ParameterError("cursor: the `next_cursor` of the page before")
    return int(size), parent_key
