"""Compares MRR under two policies: by customer, by contract, and by rule."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Struct, json
from msgspec.structs import asdict, replace
from sqlalchemy import BigInteger, ColumnElement, Select, cast, func, literal, or_, select, union_all

from projections.book import TRUST_LEVELS, Rules
from projections.contract_life import ContractState
from projections.contracts import ContractStates, MrrTerm, contract_state_rows, effective_states, mrr_terms
from projections.customer_discounts import CustomerDiscounts, customer_discount_rows
from projections.customers import CustomerName
from projections.inferred import InferredStates
from projections.mrr import Step
from projections.pricing import all_discounts
from service.books.tables import ROWS
from service.books.view import DEFAULT_POLICY, View, format_fraction
from service.core.errors import ParameterError
from service.core.events import Event, join_key, split_key
from service.core.moments import day_of
from service.core.order import canonical
from service.reads.answers import (
    Account,
    Causes,
    ContractId,
    Currency,
    CustomerId,
    Day,
    MrrCents,
    NameOfCustomer,
    NextCursor,
    Policy,
    Processor,
    WeakestTrust,
    WeeksPerMonth,
    about,
    cents,
    day,
)
from service.reads.mrr import ActiveContracts, mrr
from service.reads.parameters import Parameter, cursor, integer, to_cursor
from service.reads.read import Read

Dated = TypeVar("Dated", ContractState, MrrTerm)

_steps = ROWS[Step]
_names = ROWS[CustomerName]
_inferred = ROWS[InferredStates]

FirstMrrCents = Annotated[int, cents("MRR at the end of `today` under the first policy")]
SecondMrrCents = Annotated[int, cents("MRR at the end of `today` under the second policy")]
DifferenceCents = Annotated[int, cents("MRR under the second policy less that under the first")]


class PolicyTotal(Struct, frozen=True, kw_only=True):
    """MRR under one of the two policies."""

    policy: Policy
    weeks_per_month: WeeksPerMonth
    mrr_cents: MrrCents
    active_contracts: ActiveContracts
    customers: Annotated[int, about("customers with MRR")]


class Reason(Struct, frozen=True, kw_only=True):
    """What one rule adds to a contract's difference."""

    rule: Annotated[
        Literal["statuses", "paused", "discounts", "churn", "weeks_per_month"],
        about("what the policies treat differently"),
    ]
    amount_cents: Annotated[int, cents("what exchanging this rule adds to the contract's MRR")]
    text: Annotated[str, about("what the first policy does by this rule, and what the second does")]


class ComparedContract(Struct, frozen=True, kw_only=True):
    """A contract whose MRR differs."""

    contract_id: ContractId
    first_mrr_cents: FirstMrrCents
    second_mrr_cents: SecondMrrCents
    difference_cents: DifferenceCents
    status: Annotated[str, about("the processor's own word, in lower case")]
    reasons: Annotated[list[Reason], about("why they differ; the amounts add up to `difference_cents`")]
    trust: WeakestTrust
    causes: Causes


class ComparedCustomer(Struct, frozen=True, kw_only=True):
    """A customer with a contract whose MRR differs."""

    customer_id: CustomerId
    customer_name: NameOfCustomer
    first_mrr_cents: FirstMrrCents
    second_mrr_cents: SecondMrrCents
    difference_cents: DifferenceCents
    contracts: Annotated[list[ComparedContract], about("those of the customer's contracts that differ")]
    processor: Processor
    account: Account
    trust: WeakestTrust
    causes: Causes


class Comparison(Struct, frozen=True, kw_only=True):
    """What two policies count differently in MRR."""

    currency: Currency
    date: Annotated[Day, day("the day at whose end this is the MRR")]
    policies: Annotated[list[PolicyTotal], about("the first policy and the second")]
    difference_cents: DifferenceCents
    customers: Annotated[
        list[ComparedCustomer], about("a page of those with a contract that differs, largest first")
    ]
    next_cursor: NextCursor


def _parse_pair(text: str) -> str:
    """Two names with a comma between them; raises ValueError."""
    first, second = text.split(",")
    if first == second or not text.isprintable():
        raise ValueError(text)
    return text


COMPARE = Read(
    path="/api/v1/mrr/compare",
    summary="What two policies count differently in MRR, customer by customer, and why",
    shape=Comparison,
    rows="customers",
    parameters=(
        Parameter(
            name="policies",
            parse=_parse_pair,
            default=lambda _: f"{DEFAULT_POLICY},stripe",
            schema={"type": "string", "pattern": "^[^,]*,[^,]*$"},
            description="two policies of the rulebook, or `default`, with a comma between them",
        ),
        integer("limit", lambda _: 100, 1, 1000, "customers a page"),
        cursor(),
    ),
)


class PolicySide(Struct, frozen=True, kw_only=True):
    """One of the two policies: its name, and the rules of the books under it."""

    policy: str
    rules: Rules


class ContractDifference(Struct, frozen=True, kw_only=True):
    """A contract whose MRR differs, and the `histories` in the ledger that tell why.

    `inferred` is JSON of its states before them (see `projections.inferred`).
    """

    contract_id: str
    first_mrr_cents: int
    second_mrr_cents: int
    difference_cents: int
    histories: tuple[str, str]
    inferred: str = "[]"


class CustomerDifference(Struct, frozen=True, kw_only=True):
    """A customer with contracts whose MRR differs."""

    customer_id: str
    customer_name: str | None
    first_mrr_cents: int
    second_mrr_cents: int
    difference_cents: int
    contracts: list[ContractDifference]
    processor: str
    account: str


class Differences(Struct, frozen=True, kw_only=True):
    """The part of a comparison that comes from the books, without reasons."""

    currency: str
    date: str
    policies: list[PolicyTotal]
    difference_cents: int
    customers: list[CustomerDifference]
    next_cursor: str | None


class ContractReasons(Struct, frozen=True, kw_only=True):
    """Why a contract's MRR differs."""

    status: str
    reasons: list[Reason]
    trust: str
    causes: list[str]


def policy_sides(view: View, policies: Sequence[str]) -> tuple[PolicySide, PolicySide]:
    """The two policies with their rules. Raises ParameterError if one is not kept."""
    first, second = (
        PolicySide(policy=name, rules=view.with_policy(name, "policies").rules()) for name in policies
    )
    return first, second


def find_differences(
    view: View, policies: Sequence[str], limit: int | None, after: str | None
) -> Differences:
    """MRR under both policies at the end of `today`, and a page of customers whose contracts differ.

    The largest difference comes first. `next_cursor` is None on the last page; without a `limit` the page
    holds all remaining ones.
    """
    first, second = (view.with_policy(policy, "policies") for policy in policies)
    rows = view.all(_page(first, second, None if limit is None else limit + 1, _parse_cursor(after)))
    by_customer = [list(contracts) for _, contracts in groupby(rows, key=lambda row: row.parent_key)]
    page = by_customer[:limit]
    totals = [mrr(first), mrr(second)]
    names = PolicyTotal.__struct_fields__
    return Differences(
        currency=view.scope.currency,
        date=view.scope.today.isoformat(),
        policies=[PolicyTotal(**{name: getattr(total, name) for name in names}) for total in totals],
        difference_cents=totals[1].mrr_cents - totals[0].mrr_cents,
        customers=[_customer_difference(contracts) for contracts in page],
        next_cursor=to_cursor(_make_cursor(page[-1][0])) if len(by_customer) > len(page) else None,
    )


def with_reasons(
    differences: Differences,
    histories: Mapping[str, Sequence[Event]],
    on: date,
    first: PolicySide,
    second: PolicySide,
) -> Comparison:
    """The comparison: the differences with each contract's reasons, from its histories in the ledger."""

    def contract(difference: ContractDifference) -> ComparedContract:
        history, discount_history = (canonical(histories.get(name, ())) for name in difference.histories)
        inferred = json.decode(difference.inferred, type=list[ContractState])
        reasons = explain_contract(history, on, first, second, discount_history, inferred)
        known = asdict(difference)
        del known["histories"], known["inferred"]
        return ComparedContract(**known, **asdict(reasons))

    def customer(difference: CustomerDifference) -> ComparedCustomer:
        contracts = [contract(each) for each in difference.contracts]
        return ComparedCustomer(
            **asdict(difference) | {"contracts": contracts},
            trust=min((each.trust for each in contracts), key=TRUST_LEVELS.index),
            causes=sorted({cause for each in contracts for cause in each.causes}),
        )

    customers = [customer(each) for each in differences.customers]
    return Comparison(**asdict(differences) | {"customers": customers})


def explain_contract(
    history: Sequence[Event],
    on: date,
    first: PolicySide,
    second: PolicySide,
    discount_history: Sequence[Event] = (),
    inferred: Sequence[ContractState] = (),
) -> ContractReasons:
    """The reasons why a contract's MRR at the end of the day `on` differs between the two policies.

    `history` is in canonical order, as that of its customer's discounts is; `inferred` are the states before
    it. The contract must exist by that day under at least one of the policies.

    The first policy's rules are exchanged for the second's one at a time, in the order of `_BRIDGE_STEPS`,
    and the contract is folded again after each exchange. A rule's amount is the change in MRR by it, so the
    amounts add up to the difference. Where each of two rules excludes a contract, the earlier one has
    the whole amount.
    """

    def states_under(rules: Rules) -> list[ContractState]:
        return [*inferred, *_states(history, discount_history, rules)]

    def term_under(rules: Rules) -> MrrTerm | None:
        return _effective_on(on, mrr_terms(states_under(rules), rules))

    # The state is the same under both policies, but under one of them it may count from an earlier day.
    states = (_effective_on(on, states_under(side.rules)) for side in (first, second))
    state = next(filter(None, states))
    rules = first.rules
    term = first_term = term_under(rules)
    reasons = []
    for rule, exchange, describe in _BRIDGE_STEPS:
        exchanged = exchange(rules, second.rules)
        exchanged_term = term if exchanged == rules else term_under(exchanged)
        if amount := _cents(exchanged_term) - _cents(term):
            descriptions = (f"{side.policy} {describe(state, side.rules)}" for side in (first, second))
            reasons.append(Reason(rule=rule, amount_cents=amount, text="; ".join(descriptions)))
        rules, term = exchanged, exchanged_term
    terms_at_ends = [term for term in (first_term, term) if term]
    return ContractReasons(
        status=state.data.status,
        reasons=reasons,
        trust=min((term.state.trust for term in terms_at_ends), key=TRUST_LEVELS.index),
        causes=sorted({cause for term in terms_at_ends for cause in term.state.causes}),
    )


def _states(history: Sequence[Event], discount_history: Sequence[Event], rules: Rules) -> list[ContractState]:
    """The states of a contract, with the discounts of the customer whose history is given, if it has any."""
    folded = [*contract_state_rows(history, rules), *customer_discount_rows(discount_history, rules)]
    rows = [row for row in folded if isinstance(row, ContractStates)]
    discounts = next((row for row in folded if isinstance(row, CustomerDiscounts)), None)
    theirs = next((row for row in rows if discounts and row.customer_id == discounts.customer_id), rows[0])
    return effective_states(theirs, discounts, rules)


def _effective_on(on: date, dated: Sequence[Dated]) -> Dated | None:
    """The item in effect at the end of a day, of items that each take effect on their own day."""
    return next((item for item in reversed(dated) if item.day <= on), None)


def _cents(term: MrrTerm | None) -> int:
    return term.mrr_cents if term else 0


def _exchange_field(name: str) -> Callable[[Rules, Rules], Rules]:
    """A function that takes one field of the policy from other rules."""
    return lambda rules, other_rules: replace(
        rules, policy=replace(rules.policy, **{name: getattr(other_rules.policy, name)})
    )


def _exchange_weeks(rules: Rules, other_rules: Rules) -> Rules:
    return replace(rules, weeks_per_month=other_rules.weeks_per_month)


def _describe_status(state: ContractState, rules: Rules) -> str:
    status = state.data.status
    return f"counts {status}" if status in rules.policy.statuses else f"leaves out {status}"


def _describe_paused(_state: ContractState, rules: Rules) -> str:
    return f"{'counts' if rules.policy.paused else 'leaves out'} what has its collection paused"


def _describe_discounts(state: ContractState, rules: Rules) -> str:
    durations = sorted({d.duration for d in all_discounts(state.data)} - {*rules.policy.ignored_discounts})
    return f"deducts {' and '.join(durations) or 'no'} discounts"


def _describe_churn(state: ContractState, rules: Rules) -> str:
    if rules.policy.churn == "when_set_to_cancel" or not state.data.cancel_at:
        return "stops counting once an end is set"
    return f"counts until the end, set for {day_of(state.data.cancel_at, rules.zone)}"


def _describe_weeks(_state: ContractState, rules: Rules) -> str:
    return f"takes {format_fraction(rules.weeks_per_month)} weeks a month"


_BridgeStep = tuple[
    Literal["statuses", "paused", "discounts", "churn", "weeks_per_month"],
    Callable[[Rules, Rules], Rules],
    Callable[[ContractState, Rules], str],
]

# In the order of exchange: a rule, how to exchange it, and how to describe what a policy does by it.
_BRIDGE_STEPS: tuple[_BridgeStep, ...] = (
    ("statuses", _exchange_field("statuses"), _describe_status),
    ("paused", _exchange_field("paused"), _describe_paused),
    ("discounts", _exchange_field("ignored_discounts"), _describe_discounts),
    ("churn", _exchange_field("churn"), _describe_churn),
    ("weeks_per_month", _exchange_weeks, _describe_weeks),
)


def _customer_difference(contracts: list[Any]) -> CustomerDifference:
    first_row = contracts[0]
    return CustomerDifference(
        customer_id=first_row.customer_id,
        customer_name=first_row.customer_name,
        **_amounts(first_row.customer_first, first_row.customer_second),
        contracts=[
            ContractDifference(
                contract_id=row.contract_id,
                **_amounts(row.first, row.second),
                histories=_histories(row),
                inferred=row.inferred or "[]",
            )
            for row in contracts
        ],
        processor=first_row.parent_key.partition("|")[0],
        account=first_row.account,
    )


def _histories(row: Any) -> tuple[str, str]:
    """The names of the histories of a contract and of its customer's discounts."""
    processor, account, customer_id, _currency = split_key(row.parent_key)
    return (
        join_key("subscription", processor, account, row.contract_id),
        join_key("customer_discount", processor, account, customer_id),
    )


def _amounts(first: int, second: int) -> dict[str, int]:
    return {"first_mrr_cents": first, "second_mrr_cents": second, "difference_cents": second - first}


def _page(first: View, second: View, limit: int | None, after: tuple[int, str] | None) -> Select[Any]:
    """The contracts that differ, for the customers of a page; the largest difference first."""
    contracts = _contracts(first, second).cte("contracts")
    names = (contracts.c.parent_key, contracts.c.account, contracts.c.customer_id)
    sums = _sum(contracts.c.first), _sum(contracts.c.second)
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
    page_query = select(customers).order_by(size.desc(), parent_key).limit(limit)
    if after:
        page_query = page_query.where(or_(size < after[0], (size == after[0]) & (parent_key > after[1])))
    page = page_query.subquery()
    customer = func.substr(page.c.parent_key, 1, func.length(page.c.parent_key) - len("|usd"))
    is_name = first.names() & (_names.c.key == literal("customer|") + customer)
    is_its_past = (
        (_inferred.c.book == first.books["mrr"])
        & (_inferred.c.parent_key == contracts.c.key)
        & (_inferred.c.contract_id == contracts.c.contract_id)
    )
    return (
        select(page, contracts.c.key, contracts.c.contract_id, contracts.c.first, contracts.c.second)
        .add_columns(_names.c.name.label("customer_name"), _inferred.c.states.label("inferred"))
        .select_from(
            page.join(contracts, contracts.c.parent_key == page.c.parent_key)
            .outerjoin(_names, is_name)
            .outerjoin(_inferred, is_its_past)
        )
        .where(contracts.c.first != contracts.c.second)
        .order_by(page.c.size.desc(), page.c.parent_key, contracts.c.key)
    )


def _contracts(first: View, second: View) -> Select[Any]:
    """Every contract that has counted, with its MRR at the end of `today` under each policy."""
    names = [_steps.c[name] for name in ("key", "parent_key", "account", "customer_id", "contract_id")]
    zero = literal(0)
    steps = union_all(
        *(
            select(*names, first_cents.label("first"), second_cents.label("second")).where(
                *view.filters(_steps, "mrr"), _steps.c.date <= view.scope.today.isoformat()
            )
            for view, first_cents, second_cents in (
                (first, _steps.c.mrr_cents, zero),
                (second, zero, _steps.c.mrr_cents),
            )
        )
    ).subquery()
    columns = [steps.c[column.name] for column in names]
    return select(
        *columns, _sum(steps.c.first).label("first"), _sum(steps.c.second).label("second")
    ).group_by(*columns)


def _sum(column: ColumnElement[Any]) -> ColumnElement[int]:
    """A sum cast to an integer, since PostgreSQL sums to a numeric."""
    return cast(func.sum(column), BigInteger)


def _make_cursor(row: Any) -> str:
    return f"{row.size}|{row.parent_key}"


def _parse_cursor(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    size, _, parent_key = cursor.partition("|")
    if not (size.isascii() and size.isdigit() and len(size) < 19):
        raise ParameterError("cursor: the `next_cursor` of the page before")
    return int(size), parent_key
