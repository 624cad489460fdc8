"""A contract's past before its first event, inferred from what was billed.

On each day it is the items that invoices bill for whole periods that cover the day. A contract that no event
tells has no inferred past either: its end would not be known.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from operator import attrgetter
from typing import NamedTuple

from msgspec import json
from msgspec.structs import replace

from projections.book import INFERRED, Row, Rules, causes
from projections.contract_life import ContractState
from projections.contracts import ContractStart, ContractStates, contract_key, effective_states
from projections.customer_discounts import CustomerDiscounts
from projections.issued_invoices import latest_invoice
from projections.work import Work
from service.core.cadence import schedule_of_period
from service.core.events import BilledItem, Event, Invoice, Item, Subscription, join_key
from service.core.moments import day_of

_NEVER = datetime.max.replace(tzinfo=UTC)
_ISSUED = frozenset({"open", "paid", "uncollectible"})


class BilledItems(Row, frozen=True, kw_only=True):
    """The items of a contract that an invoice bills for whole periods, the first of which begins on a day.

    `items` is JSON of `BilledItem`s. A void invoice tells only how often its prices are billed.
    """

    table = "billed_items"

    invoice_id: str
    is_void: bool
    currency: str
    first_day: str
    items: str


class InferredStates(Row, frozen=True, kw_only=True):
    """A contract's states before its first event, for a customer who has, or had, it.

    `states` is JSON of `ContractState`s in order.
    """

    table = "inferred_states"

    contract_id: str
    states: str


def billed_item_rows(history: Sequence[Event], rules: Rules) -> list[Row]:
    """One invoice's events to the items of its contract that it bills, once it is issued."""
    if not any(isinstance(event.data, Invoice) for event in history):
        return []
    latest, data = latest_invoice(history)
    is_void = data.status == "void"
    if not (data.billed and data.subscription_id and (is_void or data.status in _ISSUED)):
        return []
    return [
        BilledItems(
            parent_key=contract_key(latest.processor, latest.account, data.subscription_id),
            causes=causes(latest),
            invoice_id=data.invoice_id,
            is_void=is_void,
            currency=data.currency,
            first_day=min(day_of(item.starts_at, rules.zone) for item in data.billed).isoformat(),
            items=json.encode(data.billed).decode(),
        )
    ]


def inferred_state_rows(rows: Sequence[ContractStart | BilledItems], rules: Rules) -> list[Row]:
    """One contract's start and its invoices to its states before that start."""
    start = next((row for row in rows if isinstance(row, ContractStart)), None)
    billed = [
        row for row in rows if isinstance(row, BilledItems) and start and row.first_day < start.first_day
    ]
    if start is None or not billed:
        return []
    states = list(_states(start, billed, rules))
    encoded = json.encode(states).decode()
    return [
        InferredStates(
            parent_key=join_key(states[0].processor, states[0].account, customer_id),
            contract_id=states[0].data.subscription_id,
            states=encoded,
        )
        for customer_id in json.decode(start.customers)
        if any(state.data.items for state in states)
    ]


def contract_lives(
    rows: Sequence[ContractStates | InferredStates | CustomerDiscounts], rules: Rules
) -> Iterator[tuple[ContractStates, list[ContractState]]]:
    """The contracts of one customer, each with all its states: inferred ones, and those that events tell."""
    discounts = next((row for row in rows if isinstance(row, CustomerDiscounts)), None)
    inferred = {row.contract_id: row.states for row in rows if isinstance(row, InferredStates)}
    for row in rows:
        if isinstance(row, ContractStates):
            past = json.decode(inferred.get(row.contract_id, "[]"), type=list[ContractState])
            yield row, [*past, *effective_states(row, discounts, rules)]


_Schedule = tuple[str, int, bool | None]  # interval, every, and whether by use, if that is known
_Schedules = dict[str, _Schedule]


def _schedules(start: ContractStart, billed: Sequence[BilledItems]) -> _Schedules:
    """How often items are billed, and whether by use, by the id of the item or price.

    Of a price that the contract does not show, most of its periods tell: one alone may mislead, as four weeks
    of February do, which are a month, too. Of two that as many tell, weeks are no accident. A period that
    costs nothing, as a trial's, tells nothing.
    """
    known = {key: (interval, every, metered) for key, interval, every, metered in json.decode(start.items)}
    guesses: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
    for invoice in billed:
        for item in json.decode(invoice.items, type=list[BilledItem]):
            if item.amount and item.price_id and item.price_id not in known:
                guesses[item.price_id][_schedule_of(item)] += 1
    told = {price_id: max(found, key=lambda one: (found[one], one)) for price_id, found in guesses.items()}
    return known | {price_id: (interval, every, None) for price_id, (interval, every) in told.items()}


def _schedule_of(item: BilledItem) -> tuple[str, int]:
    """How often an item is billed, as its line states it, or by its period."""
    if item.interval:
        return str(item.interval), item.every
    return schedule_of_period(item.starts_at.date(), item.ends_at.date())


class _Line(NamedTuple):
    """An item that is billed from the end of `first` to that of the day before `end`."""

    first: date
    end: date
    item: BilledItem
    invoice: BilledItems
    number: int  # among all lines, in the order in which they are told


def _states(start: ContractStart, billed: Sequence[BilledItems], rules: Rules) -> Iterator[ContractState]:
    """The states of all days on which what is billed changes, before the first event's."""
    first = json.decode(start.state, type=ContractState)
    schedules = _schedules(start, billed)
    lines = _lines(schedules, [invoice for invoice in billed if not invoice.is_void], rules)
    days = {day for line in lines for day in (line.first, line.end)}
    began = [first.data.started_at, first.data.trial_start_at, first.data.trial_end_at]
    days.update(day_of(moment, rules.zone) for moment in began if moment)
    work, covering = Work(), list[_Line]()
    lines.sort(key=attrgetter("first"), reverse=True)
    for day in sorted(day for day in days if day < first.day):
        while lines and lines[-1].first <= day:
            covering.append(lines.pop())
        covering = [line for line in covering if day < line.end]
        work.add(1 + len(covering))
        is_free = _is_free(first.data, day, rules)
        yield _state(first, day, [] if is_free else sorted(covering, key=_place), schedules)


def _is_free(data: Subscription, day: date, rules: Rules) -> bool:
    """Whether a day is before the contract's start, or in its trial."""

    def has_come(moment: datetime | None) -> bool:
        return moment is not None and day_of(moment, rules.zone) <= day

    in_trial = has_come(data.trial_start_at) and not has_come(data.trial_end_at)
    return in_trial or (data.started_at is not None and not has_come(data.started_at))


def _place(line: _Line) -> tuple[datetime, str, int]:
    return line.item.starts_at, line.invoice.invoice_id, line.number


def _state(first: ContractState, day: date, lines: Sequence[_Line], schedules: _Schedules) -> ContractState:
    names = {name for line in lines for name in json.decode(line.invoice.causes)}
    return ContractState(
        day=day,
        at=max(
            (line.item.starts_at for line in lines), default=datetime.combine(day, datetime.min.time(), UTC)
        ),
        processor=first.processor,
        account=first.account,
        causes=tuple(sorted(names)) or first.causes,
        trust=INFERRED,
        data=Subscription(
            subscription_id=first.data.subscription_id,
            customer_id=first.data.customer_id,
            status="active",
            currency=lines[0].invoice.currency if lines else first.data.currency,
            items=tuple(_item(line.item, schedules) for line in lines),
        ),
    )


def _item(billed: BilledItem, schedules: _Schedules) -> Item:
    known = None if billed.interval else _known(billed, schedules)
    interval, every = known[:2] if known else _schedule_of(billed)
    return Item(
        interval=interval,  # type: ignore[arg-type]
        every=every,
        unit_amount=Decimal(billed.amount),
        item_id=billed.item_id,
        price_id=billed.price_id,
        product_id=billed.product_id,
    )


def _known(billed: BilledItem, schedules: _Schedules) -> _Schedule | None:
    return schedules.get(billed.price_id or "") or (
        None if billed.price_id else schedules.get(billed.item_id or "")
    )


def _lines(schedules: _Schedules, billed: Sequence[BilledItems], rules: Rules) -> list[_Line]:
    """The items by the days that they cover. A later period of an item ends an earlier one.

    Where several invoices bill one period of an item, one of them counts.
    """
    periods: dict[str, dict[datetime, tuple[BilledItems, list[BilledItem]]]] = {}
    for invoice in sorted(billed, key=lambda row: row.invoice_id):
        items: dict[tuple[str, datetime], list[BilledItem]] = {}
        for item in json.decode(invoice.items, type=list[BilledItem]):
            if not _is_by_use(item, schedules):
                key = item.item_id or item.price_id or item.product_id or ""
                items.setdefault((key, item.starts_at), []).append(item)
        for (key, starts_at), parts in items.items():
            periods.setdefault(key, {})[starts_at] = (invoice, parts)
    lines: list[_Line] = []
    for by_start in periods.values():
        for starts_at, following in pairwise([*sorted(by_start), _NEVER]):
            invoice, parts = by_start[starts_at]
            for item in (part for whole in parts for part in _by_discounts(whole)):
                ends_at = min(item.ends_at, following)
                first, end = day_of(item.starts_at, rules.zone), day_of(ends_at, rules.zone)
                lines.append(_Line(first, end, item, invoice, len(lines)))
    return lines


def _is_by_use(billed: BilledItem, schedules: _Schedules) -> bool:
    """Whether the contract says that an item is billed by use; else, whether it is billed in arrears."""
    known = _known(billed, schedules)
    return billed.in_arrears if known is None or known[2] is None else known[2]


def _by_discounts(item: BilledItem) -> Iterator[BilledItem]:
    """An item until the first end of a discount within its period, then until the next one, and so on."""
    for discount in sorted(item.ending_discounts, key=attrgetter("ends_at")):
        ends_at = max(discount.ends_at, item.starts_at)
        yield replace(item, ends_at=ends_at)
        item = replace(item, starts_at=ends_at, amount=item.amount + discount.amount)
    yield item
